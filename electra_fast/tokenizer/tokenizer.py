"""ElectraTokenizer: text to ids and back, behind the interface of transformers 5's BertTokenizer.

Two sides meet here. A `tokenizers` backend knows the vocabulary, the added tokens and the files, and turns ids into
text. A C++ encoder (native.py) is made from it and turns text into tokens, by the same rules, many times faster. The
encoder does not change once it is made, so any number of threads may share a tokenizer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder

from . import files
from .arguments import as_batch, as_int, as_model_length, as_side, check_flag
from .batch_encoding import BatchEncoding, Late
from .bulk import BulkEncoding
from .components import simplify
from .native import NativeEncoder, fingerprint
from .padding import as_lists, is_of_rows, pad_rows
from .plan import Defaults, Lengths, Options, Plan, plan_of
from .rows import Rows
from .vocabulary import SPECIAL_TOKENS, Vocabulary, is_own_token

VERY_LARGE_INTEGER = int(1e30)  # transformers' model_max_length where none is known
_RIGHT = {"direction": "right"}


class ElectraTokenizer(Vocabulary, BulkEncoding, files.Files):
    """WordPiece with [CLS] and [SEP], as ELECTRA and BERT use it.

    Args:
        vocab: path of a vocab.txt, or a mapping token -> id. Default: the five special tokens alone.
        do_lower_case, strip_accents, tokenize_chinese_chars: BERT's normalization; strip_accents=None is do_lower_case.
        max_input_chars_per_word: length of the longest known words. Default: the file's, or 100; Google's code has 200.
        final_sigma: whether a word's last capital sigma is lower-cased to the final form, as in Google's own code.
        unk_token, sep_token, pad_token, cls_token, mask_token: special tokens, added where missing except unk_token.
        vocab_file: another name of `vocab`.
        tokenizer_file: a tokenizer.json, which also settles the normalization; instead of `vocab`.
        tokenizer_object: a `tokenizers.Tokenizer`, instead of `vocab`.
        model_max_length: the longest sequence that the model takes.
        padding_side, truncation_side: "right" or "left". Default: those of tokenizer.json, or "right".
        model_input_names: the columns that a call returns by default.
        extra_special_tokens: special tokens without a name, or a mapping name -> token, which become attributes.
        model_specific_special_tokens: such a mapping too; so does any other keyword like image_token="<image>".
        split_special_tokens: whether special tokens in texts are split like words.
        **kwargs: any other key of a tokenizer_config.json; kept and written back.

    Raises:
        FileNotFoundError: a file that does not exist.
        ValueError: a vocabulary without unk_token, a damaged file, a side that is neither "right" nor "left".
    """

    is_fast = True

    def __init__(
        self,
        /,
        vocab: str | os.PathLike | dict[str, int] | None = None,
        do_lower_case: bool = True,
        unk_token: str | AddedToken = "[UNK]",
        sep_token: str | AddedToken = "[SEP]",
        pad_token: str | AddedToken = "[PAD]",
        cls_token: str | AddedToken = "[CLS]",
        mask_token: str | AddedToken = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        *,
        max_input_chars_per_word: int | None = None,
        final_sigma: bool = False,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        tokenizer_object: Tokenizer | None = None,
        model_max_length: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        model_input_names: Iterable[str] = ("input_ids", "token_type_ids", "attention_mask"),
        clean_up_tokenization_spaces: bool = False,
        bos_token: str | AddedToken | None = None,
        eos_token: str | AddedToken | None = None,
        extra_special_tokens: Iterable[str | AddedToken] | Mapping[str, str | AddedToken] | None = None,
        additional_special_tokens: Iterable[str | AddedToken] | None = None,
        model_specific_special_tokens: Mapping[str, str | AddedToken] | None = None,
        added_tokens_decoder: dict[int | str, AddedToken] | None = None,
        split_special_tokens: bool | None = None,
        max_len: int | None = None,
        chat_template: Any = None,
        name_or_path: str = "",
        **kwargs: Any,
    ):
        vocab = vocab_file if vocab is None else vocab
        if not isinstance(tokenizer_object, (Tokenizer, type(None))):
            raise TypeError(f"tokenizer_object must be a tokenizers.Tokenizer, got {type(tokenizer_object).__name__}")
        if not isinstance(vocab, (str, os.PathLike, Mapping, type(None))):
            raise TypeError(f"vocab must be a path or a mapping token -> id, got {vocab!r:.80}")
        if tokenizer_object is not None:
            files.check_ids(tokenizer_object)
            backend = Tokenizer.from_str(tokenizer_object.to_str())
        elif tokenizer_file is not None:
            backend = files.read_backend(tokenizer_file)
        else:
            if vocab is None:
                names = (pad_token, unk_token, cls_token, sep_token, mask_token)
                vocab = {str(token): index for index, token in enumerate(names)}
            backend = files.build_backend(
                vocab if isinstance(vocab, Mapping) else files.read_vocab(vocab),
                str(unk_token),
                do_lower_case,
                tokenize_chinese_chars,
                strip_accents,
            )
            files.check_ids(backend)
        for token in (str(unk_token), backend.model.unk_token):
            if token not in backend.get_vocab():
                size = backend.get_vocab_size()
                raise ValueError(f"the vocabulary must hold unk_token {token!r}; none of its {size} tokens is that")
        simplify(backend)
        if max_input_chars_per_word is not None:
            longest = as_int("max_input_chars_per_word", max_input_chars_per_word, 0)
            backend.model.max_input_chars_per_word = min(longest, 1 << 62)
        if backend.decoder is None:
            backend.decoder = WordPieceDecoder(prefix="##")
        self.padding_side = as_side("padding_side", padding_side, (backend.padding or _RIGHT)["direction"])
        self.truncation_side = as_side("truncation_side", truncation_side, (backend.truncation or _RIGHT)["direction"])
        backend.no_truncation()
        backend.no_padding()
        self._tokenizer = backend
        self._natives: dict[bool, NativeEncoder] = {}
        self._backend_is_shared = False
        check_flag("final_sigma", final_sigma, or_none=True)
        self.final_sigma = bool(final_sigma)
        self.name_or_path = str(name_or_path)
        model_max_length = max_len if model_max_length is None else model_max_length
        self.model_max_length = VERY_LARGE_INTEGER if model_max_length is None else model_max_length
        as_model_length(self.model_max_length)
        if not isinstance(model_input_names, (list, tuple)):
            raise TypeError(f"model_input_names must be a list of names, got {model_input_names!r:.80}")
        self.model_input_names = list(model_input_names)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.split_special_tokens = split_special_tokens
        self.chat_template = chat_template
        others = {name: kwargs.pop(name) for name in list(kwargs) if is_own_token(name, kwargs[name])}
        self.init_kwargs = kwargs
        self.deprecation_warnings: dict[str, bool] = {}  # transformers' collators write into it
        files.add_decoded(backend, added_tokens_decoder or {})
        named = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "sep_token": sep_token,
            "pad_token": pad_token,
            "cls_token": cls_token,
            "mask_token": mask_token,
        }
        extra = extra_special_tokens or additional_special_tokens
        if not isinstance(model_specific_special_tokens, (Mapping, type(None))):
            kind = type(model_specific_special_tokens).__name__
            raise TypeError(f"model_specific_special_tokens must be a mapping, got {kind}")
        self._init_special_tokens(named, extra, {**others, **(model_specific_special_tokens or {})})
        if backend.post_processor is None:
            files.frame_with(backend, self.cls_token, self.sep_token)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_natives": {}}

    def _settings(self) -> dict[str, Any]:
        """The constructor's arguments that make an equal tokenizer from this one's backend."""
        own = {name: token for name, token in self._special_tokens_map.items() if name not in SPECIAL_TOKENS}
        return {
            **self.init_kwargs,
            **{name: self._special_tokens_map[name] for name in SPECIAL_TOKENS},
            "model_specific_special_tokens": own or None,
            "final_sigma": self.final_sigma or None,
            "split_special_tokens": self.split_special_tokens or None,
            "chat_template": self.chat_template,
            "extra_special_tokens": self._extra_special_tokens,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "model_input_names": self.model_input_names,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
        }

    # Text to ids

    def __call__(
        self,
        text: str | list | None = None,
        text_pair: str | list | None = None,
        text_target: str | list | None = None,
        text_pair_target: str | list | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        tokenizer_kwargs: dict[str, Any] | None = None,
        max_target_length: int | None = None,
        split_special_tokens: bool | None = None,
        **unknown: Any,
    ) -> BatchEncoding:
        """Encodes a text, a pair, or a batch of either.

        Args:
            text, text_pair: a str each, or lists of str; lists of words with `is_split_into_words=True`.
            text_target, text_pair_target: texts that become the column `labels`, cut to `max_target_length`.
            add_special_tokens: whether to frame rows with [CLS] and [SEP].
            padding: False, True or "longest", or "max_length".
            truncation: False, True or "longest_first", "only_first", "only_second".
            max_length: the longest row; by default the model's. Given alone, it truncates.
            stride: tokens that a part has in common with the one before, with `return_overflowing_tokens=True`.
            pad_to_multiple_of: number of which the padded length becomes a multiple.
            padding_side: "right" or "left"; by default `self.padding_side`.
            return_tensors: "pt", "np", or None for lists.
            return_*: further columns; `return_overflowing_tokens` adds the rows cut off and overflow_to_sample_mapping.
            split_special_tokens: whether special tokens in texts are split; default: `self.split_special_tokens`.
            tokenizer_kwargs: more of these arguments, which win over those given here.

        Raises:
            TypeError: a text that is no str, or a keyword that a call does not have.
            ValueError: an option that makes no sense, or rows of unequal length with `return_tensors="pt"`.
        """
        if unknown:
            raise TypeError(f"{', '.join(unknown)} must be left out: no keyword of a call of {type(self).__name__}")
        if not isinstance(tokenizer_kwargs, (Mapping, type(None))):
            raise TypeError(f"tokenizer_kwargs must be a mapping or None, got {tokenizer_kwargs!r:.80}")
        options = Options(
            add_special_tokens, padding, truncation, max_length, stride, is_split_into_words, pad_to_multiple_of,
            padding_side, return_tensors, return_token_type_ids, return_attention_mask, return_overflowing_tokens,
            return_special_tokens_mask, return_offsets_mapping, return_length, split_special_tokens, verbose,
        )  # fmt: skip
        if tokenizer_kwargs:
            if others := [name for name in tokenizer_kwargs if name not in Options._fields]:
                raise TypeError(f"tokenizer_kwargs must hold keywords of a call, got {others[0]!r:.80}")
            options = options._replace(**tokenizer_kwargs)
        if text is None and text_target is None:
            raise ValueError("text must be given, or text_target, or both; got neither")
        output = None if text is None else self._encode(text, text_pair, options)
        if text_target is None:
            return output
        if max_target_length is not None:
            options = options._replace(max_length=max_target_length)
        target = self._encode(text_target, text_pair_target, options)
        if output is None:
            return target
        output["labels"] = target["input_ids"]
        return output

    def encode_plus(self, text: str | list, text_pair: str | list | None = None, **kwargs: Any) -> BatchEncoding:
        """Encodes one text or pair; the name of such a call in transformers 4."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: list, **kwargs: Any) -> BatchEncoding:
        """Encodes a batch; the name of such a call in transformers 4."""
        return self(batch_text_or_text_pairs, **kwargs)

    def encode(
        self,
        text: str | list,
        text_pair: str | list | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Encodes a text or pair and returns the ids alone; keywords are those of a call."""
        return self(
            text, text_pair, add_special_tokens=add_special_tokens, padding=padding, truncation=truncation,
            max_length=max_length, stride=stride, padding_side=padding_side, return_tensors=return_tensors, **kwargs,
        )["input_ids"]  # fmt: skip

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """The tokens of a text, as strings."""
        return self(text, pair, add_special_tokens=add_special_tokens, **kwargs).tokens()

    def _encoder(self, split_special: bool | None = None) -> NativeEncoder:
        """The encoder of the present backend; a user who holds `backend_tokenizer` may have changed that."""
        split = bool(self.split_special_tokens if split_special is None else split_special)
        native = self._natives.get(split)
        if native is None or (self._backend_is_shared and native.fingerprint != fingerprint(self._tokenizer)):
            native = self._natives[split] = NativeEncoder(self._tokenizer, self.final_sigma, split)
        return native

    def _plan(self, options: Options) -> Plan:
        names = self.model_input_names
        has_types, has_mask = "token_type_ids" in names, "attention_mask" in names
        defaults = Defaults(self.model_max_length, self.padding_side, self.truncation_side, has_types, has_mask)
        plan = plan_of(options, defaults)
        if plan.warning:
            warnings.warn(plan.warning)
        return plan

    def _encode(self, text: str | list, text_pair: str | list | None, options: Options) -> BatchEncoding:
        plan = self._plan(options)
        lengths, is_split, specials = plan.lengths, options.is_split_into_words, options.add_special_tokens
        self._check_padding(lengths)
        firsts, seconds, batched = as_batch(text, text_pair, is_split)
        if lengths.truncates:
            self._check_room(options, lengths, seconds is not None)
        encoder = self._encoder(options.split_special_tokens)
        batch = encoder.encode_batch(firsts, seconds, is_split, specials, plan.truncation)
        if options.return_overflowing_tokens:
            batch = batch.with_overflow(True)
        width, pad_id = (lengths.width(batch.longest()), self.pad_token_id) if lengths.pads else (0, 0)
        rows = Rows(batch, width, plan.padding_side, pad_id, self.pad_token_type_id, self._tokenizer.id_to_token)
        if options.max_length is None and options.verbose:
            self._warn_if_too_long(rows.longest)
        output = BatchEncoding(_columns(rows, plan, options), rows.encodings, tensor_type=options.return_tensors)
        if batched or options.return_tensors is not None or options.return_overflowing_tokens:
            return output
        row = {name: value[0] if isinstance(value[0], list) else value for name, value in output.items()}
        return BatchEncoding(row, rows.encodings)

    def _check_padding(self, lengths: Lengths) -> None:
        if lengths.pads and self.pad_token is None:
            raise ValueError("padding needs a pad_token, but the tokenizer has none; set one with add_special_tokens")

    def _check_room(self, options: Options, lengths: Lengths, pair: bool) -> None:
        special = self.num_special_tokens_to_add(pair) if options.add_special_tokens else 0
        if lengths.max_length < special:
            raise ValueError(f"max_length must leave room for {special} special tokens, got {lengths.max_length}")
        if lengths.stride and lengths.stride >= lengths.max_length - special:
            room = lengths.max_length - special
            raise ValueError(f"stride must be below max_length without special tokens, {room}, got {lengths.stride}")

    def _warn_if_too_long(self, length: int) -> None:
        seen = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' code silences it by this key
        if length > self.model_max_length and not self.deprecation_warnings.get(seen):
            self.deprecation_warnings[seen] = True
            warnings.warn(
                f"{length} tokens are more than the model takes ({self.model_max_length}); truncation=True cuts"
            )

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads rows that have been encoded before, for collators.

        Args:
            encoded_inputs: columns by name, of one row or of many, or a list of such mappings with one row each; lists,
                arrays or tensors. Columns other than a call's own are kept as they are.
            return_tensors: "pt" or "np"; by default the kind that the columns are.
        """
        options = Options(
            padding=padding,
            truncation=False,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            verbose=verbose,
        )
        lengths = self._plan(options).lengths
        self._check_padding(lengths)
        columns, kind = as_lists(encoded_inputs)
        single = not is_of_rows(columns["input_ids"])
        rows = {name: [value] for name, value in columns.items()} if single else columns
        has_mask = return_attention_mask
        if has_mask is None:
            has_mask = "attention_mask" in self.model_input_names
        if rows["input_ids"] and has_mask:
            rows.setdefault("attention_mask", [[1] * len(row) for row in rows["input_ids"]])
        if lengths.pads:
            fills = {
                "input_ids": self.pad_token_id,
                "token_type_ids": self.pad_token_type_id,
                "attention_mask": 0,
                "special_tokens_mask": 1,
            }
            rows = pad_rows(rows, lengths, fills)
        columns = {name: value[0] for name, value in rows.items()} if single else rows
        return BatchEncoding(columns, tensor_type=return_tensors or kind)

    @property
    def do_lower_case(self) -> bool:
        simplify(self._tokenizer)  # the normalizer may be another one since
        return self._tokenizer.normalizer.lowercase

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )


def _columns(rows: Rows, plan: Plan, options: Options) -> dict[str, Any]:
    """The columns: arrays if tensors are asked for and rows have one length, else lists that are made late."""
    arrays = None if options.return_tensors is None else rows.arrays(plan.columns)
    columns: dict[str, Any] = arrays or {
        name: Late(partial(rows.lists, column)) for name, column in plan.columns.items()
    }
    if options.return_length:
        columns["length"] = rows.lengths
    if options.return_overflowing_tokens:
        columns["overflow_to_sample_mapping"] = rows.samples
    return columns


class ElectraTokenizerFast(ElectraTokenizer):
    """The name of the same tokenizer in transformers 4."""
