"""Embeddings of any number of texts, one vector each, in constant memory and in the order of the texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..hub.files import find_file
from ..model.backbone import ElectraModel
from ..model.base import ElectraPreTrainedModel
from ..model.packing import PackedBatch, ranges
from ..model.precision import DTYPES, default_precision
from ..model.pretrained import load_complete
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from ..tokenizer.unknown import UnknownTokens
from .batching import BATCH_TOKENS, Counts, batches_by_length, chunks, one_ahead

Pooling = Literal["mean", "cls"]

# Files that sentence-transformers writes, the whole model's and those of its first two modules.
_OF_SENTENCE_TRANSFORMERS = ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json")


def embed(
    texts: Iterable[str],
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None = None,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> np.ndarray:
    """Computes a vector for each text: its last hidden states, pooled.

    Some thousand texts are ordered by length and computed in batches of similar lengths, without padding, while the
    next ones are tokenised.

    Args:
        texts: any number of texts; an empty one is [CLS] [SEP].
        model: a directory, a name on the Hub, or a model in memory. A model in memory is used as it is: on its device,
            in its dtype, without its head if it has one. A loaded model is on CUDA in bf16 where there is a GPU, and on
            the CPU in fp32 elsewhere.
        tokenizer: the tokenizer, needed for a model in memory. Default: the one beside the model.
        pooling: "mean" of all tokens, [CLS] and [SEP] too; or "cls", the first token alone.
        normalize: whether to divide each vector by its Euclidean length.
        max_length: number of tokens that longer texts are cut to, [CLS] and [SEP] included. Default: the most that
            tokenizer and model can take.
        batch_tokens: number of tokens to compute at once; a longer text is computed alone.
        progress: whether to show a bar on stderr.

    Returns:
        fp32 [texts, hidden_size], in the order of the texts.

    Raises:
        TypeError: texts that are not str, a model or tokenizer of another library.
        ValueError: a pooling that is not known, a max_length that the model cannot take, batch_tokens that is not
            positive, half of a surrogate pair in a text, a tokenizer and a model that do not fit together, a model of
            sentence-transformers.
        FileNotFoundError: no such model.
    """
    embedder = _embedder(model, tokenizer, pooling, normalize, max_length, batch_tokens)
    parts = embedder.stream(texts, progress=progress)
    return np.concatenate([np.empty((0, embedder.size), np.float32), *parts])


def embed_stream(
    texts: Iterable[str],
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None = None,
    *,
    pooling: Pooling = "mean",
    normalize: bool = False,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Yields the result of `embed` in portions of some thousand texts, for more vectors than memory holds.

    A portion is fp32 [some texts, hidden_size]. Arguments and errors are those of `embed`.
    """
    return _embedder(model, tokenizer, pooling, normalize, max_length, batch_tokens).stream(texts, progress=progress)


def load_encoder(
    name_or_path: str | os.PathLike,
    *,
    device: str | torch.device = "auto",
    dtype: str | None = None,
    impl: Impl = "auto",
) -> tuple[ElectraModel, ElectraTokenizer]:
    """The encoder of a directory or the Hub, and its tokenizer.

    Args:
        device: "auto" is CUDA where there is one.
        dtype: "fp32", "bf16", "fp16" or "int8". Default: bf16 on a GPU, fp32 on a CPU.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a damaged file, one that lacks a part of the encoder, a device or dtype that is not available, a
            model of sentence-transformers.
    """
    _check_is_no_sentence_transformer(name_or_path)
    dtypes = {**DTYPES, "int8": "int8"}
    if dtype is not None and dtype not in dtypes:
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}")
    model = load_complete(
        ElectraModel,
        name_or_path,
        "an ELECTRA encoder",
        device_map=device,
        dtype=dtypes[dtype or "fp32"],
        impl=impl,
    )
    if dtype is None:
        model.to(DTYPES[default_precision(model.device)])
    return model, ElectraTokenizer.from_pretrained(name_or_path)


def _check_is_no_sentence_transformer(name_or_path: str | os.PathLike) -> None:
    for filename in _OF_SENTENCE_TRANSFORMERS:
        if find_file(name_or_path, filename, required=False) is not None:
            raise ValueError(
                f"{name_or_path} is a model of sentence-transformers ({filename}), whose pooling, length and "
                f"normalisation are not read yet: its vectors would be others. Load it with sentence-transformers, or "
                f"give a directory with its encoder and tokenizer alone"
            )


@dataclass(frozen=True)
class _Rows:
    """Tokenised texts.

    Attributes:
        ids: [N] int32, as the tokenizer gave them.
        starts: [texts + 1] int64, where each text starts.
        lengths: [texts] int64, how many tokens of each text are kept.
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Encoder, tokenizer and options that turn texts into vectors; arguments and errors are those of `embed`."""

    encoder: ElectraModel
    tokenizer: ElectraTokenizer
    pooling: Pooling = "mean"
    normalize: bool = False
    max_length: int | None = None
    batch_tokens: int = BATCH_TOKENS

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, ElectraTokenizer):
            raise TypeError(f"the tokenizer must be an ElectraTokenizer, got {_kind(self.tokenizer)}")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {self.pooling!r}")
        config = self.encoder.config
        if not _is_integer(self.batch_tokens) or self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be an integer of at least 1, got {self.batch_tokens!r}")
        longest = config.max_position_embeddings
        if self.max_length is not None and not (_is_integer(self.max_length) and 2 <= self.max_length <= longest):
            raise ValueError(f"max_length must be an integer from 2 to the model's {longest}, got {self.max_length!r}")
        if self.tokenizer.n_ids > config.vocab_size:
            raise ValueError(
                f"the tokenizer must have at most the model's {config.vocab_size} tokens, got {self.tokenizer.n_ids}"
            )
        frame = self.tokenizer.encode_bulk([""])[0].tolist()
        if frame != [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]:
            raise ValueError(f"the tokenizer must put each text between [CLS] and [SEP], an empty one becomes {frame}")

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self.encoder.config.hidden_size

    def stream(
        self, texts: Iterable[str], *, progress: bool = False, counts: Counts | None = None
    ) -> Iterator[np.ndarray]:
        """Yields vectors as `embed_stream` does, and keeps `counts` up to date."""
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise TypeError(f"texts must be a list of str or an iterable of them, got {_kind(texts)}")
        return self._portions(texts, progress, Counts() if counts is None else counts)

    def _portions(self, texts: Iterable[str], progress: bool, counts: Counts) -> Iterator[np.ndarray]:
        total = len(texts) if isinstance(texts, Sized) else None
        unknown = UnknownTokens(self.tokenizer, "the texts")
        shows_bar = progress and sys.stderr is not None
        with tqdm(total=total, unit=" texts", unit_scale=True, disable=not shows_bar) as bar:
            for rows in one_ahead(self._tokenise, chunks(_checked(texts), len)):
                unknown.count(rows.ids)
                vectors = self._compute(rows, bar)
                counts.examples += len(vectors)
                counts.tokens += int(rows.lengths.sum())
                yield vectors

    def _tokenise(self, texts: list[str]) -> _Rows:
        # One thread is enough: the others are computing, and tokenising is far ahead of them all the same.
        ids, starts = self.tokenizer.encode_bulk(texts, num_threads=1)
        limit = self.max_length or min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings)
        return _Rows(ids, starts, np.minimum(np.diff(starts), limit))

    @torch.inference_mode()
    def _compute(self, rows: _Rows, bar: tqdm) -> np.ndarray:
        """Computes the vectors of some texts, fp32 [texts, H]; the model's training mode is restored."""
        encoder = self.encoder
        was_training = encoder.training
        encoder.eval()
        vectors = torch.empty(len(rows.lengths), self.size, device=encoder.device)
        for items in batches_by_length(rows.lengths, self.batch_tokens):
            ids, packed = self._batch(rows, items)
            hidden = encoder.encode_packed(ids, packed)
            vectors[torch.from_numpy(items).to(encoder.device)] = self._pooled(hidden, packed.cu_seqlens)
            bar.update(len(items))
        encoder.train(was_training)
        return vectors.cpu().numpy()

    def _batch(self, rows: _Rows, items: np.ndarray) -> tuple[Tensor, PackedBatch]:
        """The token ids [T] of some texts, cut, and where each text is."""
        lengths, begins, ends = rows.lengths[items], rows.starts[items], rows.starts[items + 1]
        ends_of_kept = np.cumsum(lengths)
        keeps_end = self.tokenizer.truncation_side == "left"
        ids = rows.ids[ranges(ends - lengths if keeps_end else begins, lengths)].astype(np.int64)
        # A text that is cut keeps [CLS] and [SEP] too.
        ids[ends_of_kept - lengths], ids[ends_of_kept - 1] = rows.ids[begins], rows.ids[ends - 1]
        cu_seqlens = torch.from_numpy(np.concatenate([[0], ends_of_kept]).astype(np.int32))
        device = self.encoder.device
        packed = PackedBatch.from_cu_seqlens(1, len(ids), cu_seqlens.to(device), int(lengths[0]))
        return torch.from_numpy(ids).to(device), packed

    def _pooled(self, hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Pools hidden states [T, H] -> fp32 [texts, H]."""
        first = cu_seqlens[:-1].long()
        if self.pooling == "cls":
            vectors = hidden[first].float()
        else:
            # embedding_bag sums neighbouring rows: many times as fast as segment_reduce on a CPU, no atomics on a GPU.
            every = torch.arange(len(hidden), device=hidden.device)
            vectors = nn.functional.embedding_bag(every, hidden.float(), first, mode="mean")
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors


def _embedder(
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None,
    pooling: Pooling,
    normalize: bool,
    max_length: int | None,
    batch_tokens: int,
) -> Embedder:
    if isinstance(model, (str, os.PathLike)):
        encoder, own_tokenizer = load_encoder(model)
        tokenizer = own_tokenizer if tokenizer is None else tokenizer
    elif isinstance(model, ElectraPreTrainedModel):
        encoder = model if isinstance(model, ElectraModel) else model.electra
    else:
        raise TypeError(f"model must be a directory, a name on the Hub or a model of electra_fast, got {_kind(model)}")
    if tokenizer is None:
        raise TypeError("a model in memory needs its tokenizer beside it: embed(texts, model, tokenizer)")
    return Embedder(
        encoder=encoder,
        tokenizer=tokenizer,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        batch_tokens=batch_tokens,
    )


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts; an error says the number of its text among all of them."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"texts[{number}] must be a str, got {_kind(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"texts[{number}] must be well-formed Unicode, got: {error}") from error
        yield text


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
