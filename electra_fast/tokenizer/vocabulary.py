"""The vocabulary's side of a tokenizer: special tokens by name, added tokens, tokens to ids and back, ids to text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _token_property(name: str) -> property:
    """Makes a property like `tokenizer.cls_token`: a str, or None where the tokenizer has no such token."""

    def get(self: Vocabulary) -> str | None:
        token = self._special_tokens_map[name]
        return None if token is None else str(token)

    def put(self: Vocabulary, token: str | AddedToken | None) -> None:
        if token is not None and not isinstance(token, (str, AddedToken)):
            raise TypeError(f"{name} must be a str or an AddedToken, got {type(token).__name__}")
        self._special_tokens_map[name] = token

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
    _native: Any
    _backend_is_shared: bool
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
        self, named: dict[str, str | AddedToken | None], extra: Iterable[str | AddedToken]
    ) -> None:
        """Stores the special tokens, and adds those that are not among the backend's added tokens yet."""
        self._special_tokens_map = dict.fromkeys(SPECIAL_TOKENS)
        for name, token in named.items():
            setattr(self, name, token)
        self._extra_special_tokens = list(extra)
        known = self.added_tokens_encoder
        tokens = [token for token in (*named.values(), *self._extra_special_tokens) if token is not None]
        self.add_tokens([token for token in tokens if str(token) not in known], special_tokens=True)

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
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        self._native = None  # it was made of the tokens before
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
        for name, value in special_tokens_dict.items():
            if name in ("extra_special_tokens", "additional_special_tokens"):
                if not isinstance(value, (list, tuple)) or not all(isinstance(t, (str, AddedToken)) for t in value):
                    raise ValueError(f"{name} must be a list of str or AddedToken, got {value!r}")
                kept = [] if replace_extra_special_tokens and value else self._extra_special_tokens
                new = [token for token in value if str(token) not in {str(other) for other in kept}]
                self._extra_special_tokens = [*kept, *new]
                added += new
            elif name in SPECIAL_TOKENS:
                setattr(self, name, value)
                added.append(value)
            else:
                expected = ", ".join([*SPECIAL_TOKENS, "extra_special_tokens"])
                raise ValueError(f"a special token's name must be one of {expected}, got {name!r}")
        return self.add_tokens(added, special_tokens=True)

    # The vocabulary

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary without added tokens; `len(tokenizer)` counts them."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

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
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(
        self, ids: int | Iterable[int], skip_special_tokens: bool = False
    ) -> str | list[str | None] | None:
        """The token of an id, or of each; None for an id outside the vocabulary."""
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._tokenizer.id_to_token(int(index)) for index in ids if int(index) not in skipped]

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
        """
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        ids = ids["input_ids"] if isinstance(ids, Mapping) else ids
        if isinstance(ids, (list, tuple)) and ids and (isinstance(ids[0], (list, tuple)) or hasattr(ids[0], "__len__")):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        ids = [ids] if isinstance(ids, int) else [int(index) for index in ids]
        text = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
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
        return self._tokenizer.decoder.decode(tokens)

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
