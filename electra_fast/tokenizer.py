"""ElectraTokenizer: text to ids and back, behind the interface of transformers 5's BertTokenizer.

Three layers. `tokenizers` holds the vocabulary and the rules and gives offsets, words and overflow. The bulk path
(`tokenizer_bulk.py`, C++) gives the same ids many times faster, and serves every call that asks for ids only; what it
cannot give is made on first use. This file joins the two and shapes the result.

The backend's truncation is state shared by all threads, so it is set and used under one lock. Padding never touches it.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from tokenizers import AddedToken, Encoding, Tokenizer

from . import tokenizer_bulk as bulk
from . import tokenizer_files as files
from .batch_encoding import BatchEncoding
from .tokenizer_inputs import OPTION_NAMES, Lengths, Options, as_batch, as_lists, is_pair, pad_row, resolve_lengths
from .tokenizer_vocab import Vocabulary

VERY_LARGE_INTEGER = int(1e30)  # transformers' model_max_length where none is known


class ElectraTokenizer(Vocabulary, files.Files):
    """WordPiece with [CLS] and [SEP], as ELECTRA and BERT use it.

    Args:
        vocab: path of a vocab.txt, or token -> id. Default: the five special tokens alone.
        do_lower_case, strip_accents, tokenize_chinese_chars: BERT's normalization; accents are stripped by default
            where text is lower-cased.
        unk_token, sep_token, pad_token, cls_token, mask_token: added to the vocabulary where missing, save unk_token.
        vocab_file: another name of `vocab`.
        tokenizer_file: a tokenizer.json, which also settles the normalization; instead of `vocab`.
        tokenizer_object: a `tokenizers.Tokenizer`, instead of `vocab`.
        model_max_length: the longest sequence that the model takes.
        padding_side, truncation_side: "right" or "left".
        model_input_names: which columns a call returns by default.
        **kwargs: any other key of a tokenizer_config.json; kept and written back.

    Raises:
        FileNotFoundError: a file that does not exist.
        ValueError: a vocabulary without unk_token, a damaged file, a side that is neither "right" nor "left".
    """

    is_fast = True

    def __init__(
        self,
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
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        tokenizer_object: Tokenizer | None = None,
        model_max_length: int | None = None,
        padding_side: str = "right",
        truncation_side: str = "right",
        model_input_names: Iterable[str] = ("input_ids", "token_type_ids", "attention_mask"),
        clean_up_tokenization_spaces: bool = False,
        bos_token: str | AddedToken | None = None,
        eos_token: str | AddedToken | None = None,
        extra_special_tokens: Iterable[str | AddedToken] | None = None,
        additional_special_tokens: Iterable[str | AddedToken] | None = None,
        added_tokens_decoder: dict[int | str, AddedToken] | None = None,
        name_or_path: str = "",
        **kwargs: Any,
    ):
        for name, side in (("padding_side", padding_side), ("truncation_side", truncation_side)):
            if side not in ("right", "left"):
                raise ValueError(f"{name} must be 'right' or 'left', got {side!r}")
        vocab = vocab_file if vocab is None else vocab
        if tokenizer_object is not None:
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
        if str(unk_token) not in backend.get_vocab():
            raise ValueError(
                f"the vocabulary must hold unk_token {str(unk_token)!r}; "
                f"none of its {backend.get_vocab_size()} tokens is that"
            )
        backend.no_truncation()
        backend.no_padding()
        self._tokenizer = backend
        self.name_or_path = str(name_or_path)
        self.model_max_length = VERY_LARGE_INTEGER if model_max_length is None else model_max_length
        self.padding_side, self.truncation_side = padding_side, truncation_side
        self.model_input_names = list(model_input_names)
        self.clean_up_tokenization_spaces = clean_up_tokenization_spaces
        self.init_kwargs = kwargs
        self.deprecation_warnings: dict[str, bool] = {}  # transformers' collators write into it
        self._make_caches()
        for _, token in sorted((added_tokens_decoder or {}).items(), key=lambda item: int(item[0])):
            if str(token) not in self.added_tokens_encoder:
                backend.add_tokens([token])
        named = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "unk_token": unk_token,
            "sep_token": sep_token,
            "pad_token": pad_token,
            "cls_token": cls_token,
            "mask_token": mask_token,
        }
        self._init_special_tokens(named, extra_special_tokens or additional_special_tokens or [])
        if backend.post_processor is None:
            files.frame_with(backend, self.cls_token, self.sep_token)

    def _make_caches(self) -> None:
        self._lock = threading.Lock()
        self._bulk: bulk.BulkEncoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_bulk")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_caches()

    def _settings(self) -> dict[str, Any]:
        """The constructor's arguments that make an equal tokenizer of this one's backend."""
        return {
            **self.init_kwargs,
            **self._special_tokens_map,
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
    ) -> BatchEncoding:
        """Encodes a text, a pair, or a batch of either.

        Args:
            text, text_pair: a str each, or lists of them; lists of words with `is_split_into_words=True`.
            text_target, text_pair_target: texts that become the column `labels`, cut to `max_target_length`.
            add_special_tokens: whether to frame rows with [CLS] and [SEP].
            padding: False, True or "longest", or "max_length".
            truncation: False, True or "longest_first", "only_first", "only_second".
            max_length: default: the model's. Given alone, it truncates.
            stride: tokens that a part has in common with the one before, with `return_overflowing_tokens=True`.
            pad_to_multiple_of: rounds the padded length up.
            padding_side: default: `self.padding_side`.
            return_tensors: "pt", "np", or None for lists.
            return_*: further columns. `return_overflowing_tokens` makes rows of what truncation cut off, and a column
                `overflow_to_sample_mapping`.
            tokenizer_kwargs: more of these arguments, which win over those given here.

        Raises:
            TypeError: a text that is no str.
            ValueError: an option that makes no sense, or rows of unequal length with `return_tensors`.
        """
        given = locals()
        keywords = {name: given[name] for name in OPTION_NAMES} | (tokenizer_kwargs or {})
        if text is None and text_target is None:
            raise ValueError("text must be given, or text_target, or both; got neither")
        output = None if text is None else self._encode(text, text_pair, Options(**keywords))
        if text_target is None:
            return output
        if max_target_length is not None:
            keywords["max_length"] = max_target_length
        target = self._encode(text_target, text_pair_target, Options(**keywords))
        if output is None:
            return target
        output["labels"] = target["input_ids"]
        return output

    def encode_plus(self, text: str | list, text_pair: str | list | None = None, **kwargs: Any) -> BatchEncoding:
        """Version 4's name of a call with one text."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: list, **kwargs: Any) -> BatchEncoding:
        """Version 4's name of a call with a batch."""
        return self(batch_text_or_text_pairs, **kwargs)

    def encode(self, text: str | list, text_pair: str | list | None = None, **kwargs: Any) -> Any:
        """The ids alone of `self(text, text_pair, **kwargs)`."""
        return self(text, text_pair, **kwargs)["input_ids"]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """The tokens of a text, as strings."""
        return self(text, pair, add_special_tokens=add_special_tokens, **kwargs).tokens()

    def encode_bulk(self, texts: list[str], add_special_tokens: bool = True) -> bulk.Ragged:
        """Encodes many texts into two arrays, with no Python object for a token and the GIL released.

        Returns:
            ids: int32 [N], all rows one after the other, never truncated.
            row_offsets: int64 [len(texts) + 1]; row i is ids[row_offsets[i]:row_offsets[i + 1]].
        """
        texts, _ = as_batch(list(texts), None, is_split_into_words=False)
        return self._encoder().encode(texts, add_special_tokens, self._encode_rest)

    def _encoder(self) -> bulk.BulkEncoder:
        """The bulk encoder of the backend as it is now: users may change it through `backend_tokenizer`."""
        fingerprint = bulk.fingerprint(self._tokenizer)
        if self._bulk is None or self._bulk.fingerprint != fingerprint:
            self._bulk = bulk.BulkEncoder(self._tokenizer, fingerprint)
        return self._bulk

    def _encode_rest(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        with self._lock:
            self._tokenizer.no_truncation()
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    def _encode(self, text: str | list, text_pair: str | list | None, options: Options) -> BatchEncoding:
        lengths = resolve_lengths(options, self.model_max_length, self.padding_side, self.truncation_side)
        if lengths.pads and self.pad_token is None:
            raise ValueError("padding needs a pad_token, but the tokenizer has none; set one with add_special_tokens")
        inputs, batched = as_batch(text, text_pair, options.is_split_into_words)
        if lengths.truncates:
            pair = any(is_pair(item, options.is_split_into_words) for item in inputs)
            self._check_room(options, lengths, pair)
        single_texts = not options.is_split_into_words and all(type(item) is str for item in inputs)
        if options.ids_only and single_texts and lengths.truncation != "only_second" and self._encoder().is_native:
            encodings = partial(self._encodings, inputs, options, lengths)  # on first use
            columns = self._bulk_columns(inputs, options, lengths)
        else:
            encodings = self._encodings(inputs, options, lengths)
            samples = list(range(len(inputs)))
            if options.return_overflowing_tokens:
                samples = [index for index, encoding in enumerate(encodings) for _ in (encoding, *encoding.overflowing)]
                encodings = [part for encoding in encodings for part in (encoding, *encoding.overflowing)]
            columns = self._columns(encodings, samples, options)
        if options.max_length is None and options.verbose:
            self._warn_if_too_long(max(map(len, columns["input_ids"]), default=0))
        output = BatchEncoding(columns, encodings, tensor_type=options.return_tensors)
        if batched or options.return_tensors is not None or options.return_overflowing_tokens:
            return output
        row = {name: value[0] if isinstance(value[0], list) else value for name, value in columns.items()}
        return BatchEncoding(row, encodings)

    def _bulk_columns(self, texts: list[str], options: Options, lengths: Lengths) -> dict[str, Any]:
        """Columns of single texts, as arrays where tensors are asked for and rows are of one length."""
        encoder = self._encoder()
        ragged = encoder.encode(texts, options.add_special_tokens, self._encode_rest)
        if lengths.truncates:
            n_ends = 1 if options.add_special_tokens else 0
            ragged = bulk.truncate(ragged, lengths.max_length, n_ends, lengths.truncation_side)
        longest = int(np.diff(ragged[1]).max(initial=0))
        width = lengths.width(longest) if lengths.pads else 0
        if lengths.pads and longest <= width:
            ids, mask = bulk.pad(ragged, width, self.pad_token_id, lengths.padding_side)
            if options.return_tensors is None:
                ids, mask = ids.tolist(), mask.tolist()
        else:
            ids, mask = bulk.to_lists(ragged), [[1] * n for n in np.diff(ragged[1]).tolist()]
            if lengths.pads:  # padding="max_length" without truncation: longer rows stay as they are
                fill = partial(pad_row, width=width, side=lengths.padding_side)
                ids, mask = [fill(row, fill=self.pad_token_id) for row in ids], [fill(row, fill=0) for row in mask]
        columns = {"input_ids": ids}
        if self._wants("token_type_ids", options.return_token_type_ids):
            columns["token_type_ids"] = [[0] * len(row) for row in ids] if isinstance(ids, list) else np.zeros_like(ids)
        if self._wants("attention_mask", options.return_attention_mask):
            columns["attention_mask"] = mask
        return columns

    def _encodings(self, inputs: list, options: Options, lengths: Lengths) -> list[Encoding]:
        """The backend's encodings, cut and filled: one an input, which holds its overflow."""
        with self._lock:
            if lengths.truncates:
                self._tokenizer.enable_truncation(
                    lengths.max_length,
                    stride=lengths.stride,
                    strategy=lengths.truncation,
                    direction=lengths.truncation_side,
                )
            else:
                self._tokenizer.no_truncation()
            try:
                encodings = self._tokenizer.encode_batch(
                    inputs,
                    is_pretokenized=options.is_split_into_words,
                    add_special_tokens=options.add_special_tokens,
                )
            except BaseException as error:
                # What a strategy cannot do to a pair is a bare Exception, or a panic of the library, not even that.
                if type(error) is not Exception and type(error).__name__ != "PanicException":
                    raise
                limits = f"truncation={lengths.truncation!r}, max_length={lengths.max_length}, stride={lengths.stride}"
                raise ValueError(f"a text cannot be cut with {limits}: {error}") from error
        if lengths.pads:
            width = lengths.width(max((len(encoding) for encoding in encodings), default=0))
            for encoding in encodings:
                encoding.pad(
                    width,
                    direction=lengths.padding_side,
                    pad_id=self.pad_token_id,
                    pad_type_id=self.pad_token_type_id,
                    pad_token=self.pad_token,
                )
        return encodings

    def _check_room(self, options: Options, lengths: Lengths, pair: bool) -> None:
        special = self.num_special_tokens_to_add(pair) if options.add_special_tokens else 0
        if lengths.max_length < special:
            raise ValueError(f"max_length must leave room for {special} special tokens, got {lengths.max_length}")
        if lengths.stride and lengths.stride >= lengths.max_length - special:
            room = lengths.max_length - special
            raise ValueError(f"stride must be below max_length without special tokens, {room}, got {lengths.stride}")

    def _wants(self, column: str, asked: bool | None) -> bool:
        return column in self.model_input_names if asked is None else asked

    def _columns(self, encodings: list[Encoding], samples: list[int], options: Options) -> dict[str, Any]:
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if self._wants("token_type_ids", options.return_token_type_ids):
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        if self._wants("attention_mask", options.return_attention_mask):
            columns["attention_mask"] = [encoding.attention_mask for encoding in encodings]
        if options.return_special_tokens_mask:
            columns["special_tokens_mask"] = [encoding.special_tokens_mask for encoding in encodings]
        if options.return_offsets_mapping:
            columns["offset_mapping"] = [encoding.offsets for encoding in encodings]
        if options.return_length:
            columns["length"] = [len(encoding) for encoding in encodings]
        if options.return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = samples
        return columns

    def _warn_if_too_long(self, length: int) -> None:
        seen = "sequence-length-is-longer-than-the-specified-maximum"  # transformers' key: its code silences it by this
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
        """Pads rows that have been encoded before, as collators do.

        Args:
            encoded_inputs: columns by name, of one row or of many, or a list of such mappings with one row each; lists,
                arrays or tensors. Columns other than a call's own are kept as they are.
            return_tensors: default: what the columns are.
        """
        options = Options(
            padding=padding,
            truncation=False,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            verbose=verbose,
        )
        lengths = resolve_lengths(options, self.model_max_length, self.padding_side, self.truncation_side)
        columns, kind = as_lists(encoded_inputs)
        ids = columns["input_ids"]
        single = bool(ids) and not isinstance(ids[0], list)
        rows = {name: [value] for name, value in columns.items()} if single else columns
        sizes = [len(row) for row in rows["input_ids"]]
        if self._wants("attention_mask", return_attention_mask):
            rows.setdefault("attention_mask", [[1] * size for size in sizes])
        if lengths.pads:
            width = lengths.width(max(sizes, default=0))
            fills = {
                "input_ids": self.pad_token_id,
                "token_type_ids": self.pad_token_type_id,
                "attention_mask": 0,
                "special_tokens_mask": 1,
            }
            for name in fills.keys() & rows.keys():
                rows[name] = [pad_row(row, width, fills[name], lengths.padding_side) for row in rows[name]]
        columns = {name: value[0] for name, value in rows.items()} if single else rows
        return BatchEncoding(columns, tensor_type=return_tensors or kind)

    @property
    def do_lower_case(self) -> bool:
        return self._tokenizer.normalizer.lowercase

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"truncation_side={self.truncation_side!r}, special_tokens={self.special_tokens_map})"
        )


class ElectraTokenizerFast(ElectraTokenizer):
    """transformers 4's name of the same tokenizer."""
