"""The vocabulary's side of a tokenizer: special tokens by name, added tokens, tokens to ids and back, ids to text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import index as as_index
from typing import Any

from tokenizers import AddedToken, Tokenizer

from .arguments import check_flag
from .padding import to_lists

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _token_property(name: str) -> property:
    """Makes a property like `tokenizer.cls_token`: a str, or None where the tokenizer has no such token."""

    def get(self: Vocabulary) -> str | None:
        token = self._special_tokens_map[name]
        return None if token is None else str(token)

    def put(self: Vocabulary, token: str | AddedToken | None) -> None:
        self._name_token(name, token)

    return property(get, put)


def _id_property(name: str) -> property:
    """Makes a property like `tokenizer.cls_token_id`: the id, looked up in the vocabulary at every use."""

    def get(self: Vocabulary) -> int | None:
        token = getattr(self, name)
        return None if token is None else self.convert_tokens_to_ids(token)

    def put(self: Vocabulary, index: int | None) -> None:
        setattr(self, name, None if index is None else self.convert_ids_to_tokens(index))

    return property(get, put)


class Vocabulary:
    """The part of a tokenizer that knows its tokens; `_tokenizer` is the backend."""

    _tokenizer: Tokenizer
    _natives: dict[bool, Any]
    _backend_is_shared: bool
    _special_tokens_map: dict[str, str | AddedToken | None]
    model_max_length: int
    clean_up_tokenization_spaces: bool
    SPECIAL_TOKENS_ATTRIBUTES = SPECIAL_TOKENS

    bos_token, bos_token_id = _token_property("bos_token"), _id_property("bos_token")
    eos_token, eos_token_id = _token_property("eos_token"), _id_property("eos_token")
    unk_token, unk_token_id = _token_property("unk_token"), _id_property("unk_token")
    sep_token, sep_token_id = _token_property("sep_token"), _id_property("sep_token")
    pad_token, pad_token_id = _token_property("pad_token"), _id_property("pad_token")
    cls_token, cls_token_id = _token_property("cls_token"), _id_property("cls_token")
    mask_token, mask_token_id = _token_property("mask_token"), _id_property("mask_token")
    pad_token_type_id = 0

    def _init_special_tokens(
        self,
        named: Mapping[str, str | AddedToken | None],
        extra: Iterable[str | AddedToken] | Mapping[str, str | AddedToken] | None,
        others: Mapping[str, str | AddedToken],
    ) -> None:
        """Stores the special tokens, and adds those that are not among the backend's added tokens yet.

        Args:
            named: the tokens that every tokenizer may have.
            extra: tokens without names, or by names of their own, such as image_token.
            others: more tokens by names of their own, which win over `extra` and `named`.
        """
        self._special_tokens_map = dict.fromkeys(SPECIAL_TOKENS)
        self._extra_special_tokens: list[str | AddedToken] = []
        if isinstance(extra, Mapping):
            others = {**extra, **others}
        elif extra is not None:
            self._extra_special_tokens = _token_list("extra_special_tokens", extra, TypeError)
        for name, token in {**named, **others}.items():
            self._name_token(name, token)
        names = {str(token) for token in self._special_tokens_map.values() if token is not None}
        known = {token.content: token for token in self.added_tokens_decoder.values()}
        for token in known.values():
            if token.content in names and not token.special:  # the files had it as an ordinary one
                token.special = True
                self._tokenizer.add_special_tokens([token])
        tokens = [*self._special_tokens_map.values(), *self._extra_special_tokens]
        self.add_tokens([token for token in tokens if token is not None and str(token) not in known], True)

    def _name_token(self, name: str, token: str | AddedToken | None) -> None:
        is_known = name in SPECIAL_TOKENS
        if not isinstance(token, (str, AddedToken)) and not (token is None and is_known):
            raise TypeError(f"{name} must be a str or an AddedToken, got {type(token).__name__}")
        self._special_tokens_map[name] = token

    # Special tokens with names of their own are attributes too: image_token and image_token_id.

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where ordinary look-up fails. While an instance is unpickled, it has no tokens yet.
        token = self.__dict__.get("_special_tokens_map", {}).get(name.removesuffix("_id"))
        if token is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return self.convert_tokens_to_ids(str(token)) if name.endswith("_id") else str(token)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__.get("_special_tokens_map", {}).keys() - set(SPECIAL_TOKENS)
        if name in own:
            self._name_token(name, value)
        elif name.removesuffix("_id") in own:
            self._name_token(name.removesuffix("_id"), self.convert_ids_to_tokens(value))
        else:
            super().__setattr__(name, value)

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` underneath. Changes to it take effect; its truncation and padding have none."""
        self._backend_is_shared = True
        return self._tokenizer

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Names and contents of the special tokens that are set."""
        return {name: str(token) for name, token in self._special_tokens_map.items() if token is not None}

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a name of their own."""
        return [str(token) for token in self._extra_special_tokens]

    @property
    def extra_special_tokens_ids(self) -> list[int]:
        return self.convert_tokens_to_ids(self.extra_special_tokens)

    @property
    def split_special_tokens(self) -> bool:
        """Whether special tokens in texts are split like words, where a call does not say."""
        return self._tokenizer.encode_special_tokens

    @split_special_tokens.setter
    def split_special_tokens(self, value: bool) -> None:
        check_flag("split_special_tokens", value, or_none=True)
        self._tokenizer.encode_special_tokens = bool(value)

    @property
    def additional_special_tokens(self) -> list[str]:
        """The name of `extra_special_tokens` in transformers 4."""
        return self.extra_special_tokens

    @property
    def all_special_tokens(self) -> list[str]:
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self.extra_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        return self.convert_tokens_to_ids(self.all_special_tokens)

    # Adding tokens. A model's word table must be resized to `len(tokenizer)` afterwards.

    def add_tokens(
        self, new_tokens: str | AddedToken | Iterable[str | AddedToken], special_tokens: bool = False
    ) -> int:
        """Adds tokens that no rule splits; returns how many were not in the vocabulary."""
        if not new_tokens:
            return 0
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else new_tokens
        tokens = _token_list("new_tokens", tokens, TypeError)
        self._natives = {}  # they were made of the tokens before
        return (self._tokenizer.add_special_tokens if special_tokens else self._tokenizer.add_tokens)(tokens)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Sets special tokens by name, adding them where missing; returns how many were not in the vocabulary.

        Args:
            special_tokens_dict: name -> token, and `extra_special_tokens` (or `additional_special_tokens`) -> tokens.
            replace_extra_special_tokens: whether the extra tokens take the place of earlier ones or join them.
        """
        added = []
        if not special_tokens_dict:
            return 0
        if not isinstance(special_tokens_dict, Mapping):
            raise TypeError(f"special_tokens_dict must be a mapping, got {type(special_tokens_dict).__name__}")
        for name, value in special_tokens_dict.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                value = _token_list(name, value, ValueError)
                kept = [] if replace_extra_special_tokens and value else self._extra_special_tokens
                new = [token for token in value if str(token) not in {str(other) for other in kept}]
                self._extra_special_tokens = [*kept, *new]
                added += new
            elif name in self._special_tokens_map:
                if not isinstance(value, (str, AddedToken)):
                    raise ValueError(f"{name} must be a str or an AddedToken, got {value!r:.80}")
                self._name_token(name, value)
                added.append(value)
            else:
                expected = ", ".join([*self._special_tokens_map, "extra_special_tokens"])
                raise ValueError(f"a special token's name must be one of {expected}, got {name!r}")
        return self.add_tokens(added, special_tokens=True)

    # The vocabulary

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary without added tokens; `len(tokenizer)` counts them."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def n_ids(self) -> int:
        """One more than the largest id, the rows that a word table needs: above `len` if ids have gaps."""
        return max(self.get_vocab().values()) + 1

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return self._tokenizer.get_added_tokens_decoder()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        return self.added_tokens_encoder

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """The id of a token, or of each; unk_token's for a token that is not in the vocabulary."""
        if isinstance(tokens, str):
            index = self._tokenizer.token_to_id(tokens)
            return self._tokenizer.token_to_id(self.unk_token) if index is None and self.unk_token else index
        return [self.convert_tokens_to_ids(token) for token in _strings(tokens)]

    def convert_ids_to_tokens(
        self, ids: int | Iterable[int], skip_special_tokens: bool = False
    ) -> str | list[str | None] | None:
        """The token of an id, or of each; None for an id outside the vocabulary."""
        rows = to_lists(ids)
        if isinstance(rows, int):
            return _checked(self._tokenizer.id_to_token, rows)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [_checked(self._tokenizer.id_to_token, index) for index in _row(rows) if index not in skipped]

    # Ids to text

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str | list[str]:
        """The text of a row of ids, or the texts of many; lists, arrays or tensors.

        Args:
            skip_special_tokens: whether to leave special tokens out.
            clean_up_tokenization_spaces: whether to join "do n't ." to "don't."; default: the tokenizer's setting.

        Raises:
            TypeError: what is neither an id nor a row of ids nor many of them.
            ValueError: an id below 0, as in labels.
        """
        check_flag("skip_special_tokens", skip_special_tokens)
        check_flag("clean_up_tokenization_spaces", clean_up_tokenization_spaces, or_none=True)
        is_columns = isinstance(token_ids, Mapping) and "input_ids" in token_ids
        ids = to_lists(token_ids["input_ids"] if is_columns else token_ids)
        if isinstance(ids, (list, tuple)) and ids and isinstance(ids[0], (list, tuple)):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        row = [ids] if isinstance(ids, int) else _row(ids)
        text = _checked(self._tokenizer.decode, row, skip_special_tokens=bool(skip_special_tokens))
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """The texts of rows of ids."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return self._tokenizer.decoder.decode(_strings(tokens))

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Raises ValueError: an encoder reads no chats."""
        raise ValueError("apply_chat_template needs a tokenizer of transformers, whose chat_template it fills in")

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Removes the spaces that splitting put before punctuation and contractions."""
        for ending in (" .", " ?", " !", " ,"):
            text = text.replace(ending, ending[1:])
        text = text.replace(" ' ", "'")
        for ending in (" n't", " 'm", " 's", " 've", " 're"):
            text = text.replace(ending, ending[1:])
        return text

    # Sequences as the model sees them: [CLS] A [SEP] and [CLS] A [SEP] B [SEP]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        return self._tokenizer.num_special_tokens_to_add(pair)

    @property
    def max_len_single_sentence(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        first = [self.cls_token_id, *token_ids_0, self.sep_token_id]
        return first if token_ids_1 is None else [*first, *token_ids_1, self.sep_token_id]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Types of the tokens of a framed text or pair: 0 for [CLS] A [SEP], 1 for B [SEP]."""
        first = [0] * (len(token_ids_0) + 2)
        return first if token_ids_1 is None else first + [1] * (len(token_ids_1) + 1)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Mask of a framed text or pair: 1 for special tokens, 0 for others.

        Args:
            token_ids_0, token_ids_1: the ids of a text and of its pair.
            already_has_special_tokens: whether token_ids_0 is a whole sequence, rather than a text without them.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError("token_ids_1 must be None where token_ids_0 already has special tokens")
            special = set(self.all_special_ids)
            return [int(int(index) in special) for index in token_ids_0]
        first = [1, *[0] * len(token_ids_0), 1]
        return first if token_ids_1 is None else [*first, *[0] * len(token_ids_1), 1]


def is_own_token(name: str, value: Any) -> bool:
    """Tells whether a keyword such as image_token="<image>" names a special token of the tokenizer's own."""
    return name.endswith("_token") and name not in SPECIAL_TOKENS and isinstance(value, (str, AddedToken))


def _token_list(name: str, tokens: Any, error: type[Exception]) -> list[str | AddedToken]:
    if not isinstance(tokens, (list, tuple)) or not all(isinstance(token, (str, AddedToken)) for token in tokens):
        raise error(f"{name} must be a list of str or AddedToken, got {tokens!r:.80}")
    return list(tokens)


def _strings(tokens: Any) -> list[str]:
    tokens = list(tokens) if isinstance(tokens, Iterable) and not isinstance(tokens, (str, bytes, Mapping)) else None
    if tokens is None or not all(isinstance(token, str) for token in tokens):
        raise TypeError(f"tokens must be a str or an iterable of str, got {tokens!r:.80}")
    return tokens


def _row(ids: Any) -> list[int]:
    try:
        if isinstance(ids, (str, bytes, Mapping)):
            raise TypeError
        return list(map(as_index, ids))
    except TypeError:
        raise TypeError(f"ids must be an id, a list of ids or a list of such lists, got {ids!r:.80}") from None


def _checked(call: Callable, ids: Any, **options: Any) -> Any:
    """Calls the backend; its error for an id of less than 0 or more than 32 bits names no id."""
    try:
        return call(ids, **options)
    except OverflowError:
        raise ValueError(f"an id must be from 0 to {2**32 - 1}, got {ids!r:.80}") from None
