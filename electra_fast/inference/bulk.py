"""Networks on any number of texts: read in chunks, tokenised ahead, computed in batches of similar lengths."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..model.backbone import ElectraModel
from ..model.base import ElectraPreTrainedModel
from ..model.packing import PackedBatch, ranges
from ..model.precision import DTYPES, default_precision
from ..model.pretrained import load_complete
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from ..tokenizer.unknown import UnknownTokens
from .batching import BATCH_TOKENS, Counts, batches_by_length, chunks, one_ahead


@dataclass(frozen=True)
class Batch:
    """Some rows, packed.

    Attributes:
        ids, type_ids: [T] int64.
        lengths: [rows] int64, the tokens of each row; the first row is the longest.
    """

    ids: Tensor
    type_ids: Tensor
    packed: PackedBatch
    lengths: np.ndarray


@dataclass(frozen=True)
class Rows:
    """What a network reads of some texts, a row for each.

    Attributes:
        ids: [T] int32.
        type_ids: [T] uint8.
        lengths: [rows] int64, the tokens of each row, at least 1.
    """

    ids: np.ndarray
    type_ids: np.ndarray
    lengths: np.ndarray

    def batch(self, items: np.ndarray, device: torch.device) -> Batch:
        """The rows with these numbers, at least one, the longest first."""
        lengths = self.lengths[items]
        tokens = ranges((self.lengths.cumsum() - self.lengths)[items], lengths)
        cu_seqlens = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]).astype(np.int32)).to(device)
        ids, type_ids = (
            torch.from_numpy(values[tokens].astype(np.int64)).to(device) for values in (self.ids, self.type_ids)
        )
        return Batch(ids, type_ids, PackedBatch.from_cu_seqlens(1, len(tokens), cu_seqlens, int(lengths[0])), lengths)


@dataclass(frozen=True, kw_only=True)
class TextNetwork(ABC):
    """An encoder, its tokenizer, and what turns hidden states into a result for each text."""

    encoder: ElectraModel
    tokenizer: ElectraTokenizer
    max_length: int | None = None
    batch_tokens: int = BATCH_TOKENS

    noun: ClassVar[str] = "texts"
    """What the texts are called in errors and beside the bar."""
    least: ClassVar[int] = 2
    """The least that `max_length` may be: the special tokens of a row."""

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, ElectraTokenizer):
            raise TypeError(f"the tokenizer must be an ElectraTokenizer, got {kind_of(self.tokenizer)}")
        config = self.encoder.config
        if not _is_integer(self.batch_tokens) or self.batch_tokens < 1:
            raise ValueError(f"batch_tokens must be an integer of at least 1, got {self.batch_tokens!r}")
        longest, least = config.max_position_embeddings, self.least
        if self.max_length is not None and not (_is_integer(self.max_length) and least <= self.max_length <= longest):
            raise ValueError(
                f"max_length must be an integer from {least} to the model's {longest}, got {self.max_length!r}"
            )
        if self.tokenizer.n_ids > config.vocab_size:
            raise ValueError(
                f"the tokenizer must have at most the model's {config.vocab_size} tokens, got {self.tokenizer.n_ids}"
            )
        frame = self.tokenizer.encode_bulk([""])[0].tolist()
        if frame != [self.tokenizer.cls_token_id, self.tokenizer.sep_token_id]:
            raise ValueError(f"the tokenizer must put each text between [CLS] and [SEP], an empty one becomes {frame}")

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers in a result."""

    @abstractmethod
    def _results(self, batch: Batch) -> Tensor:
        """The results of some rows, fp32 [rows, size]."""

    @property
    def longest(self) -> int:
        """The most tokens that a row may have."""
        return self.max_length or min(self.tokenizer.model_max_length, self.encoder.config.max_position_embeddings)

    def _stream(
        self, texts: Iterable[str], tokenise: Callable[[list[str]], Rows], progress: bool, counts: Counts | None
    ) -> Iterator[np.ndarray]:
        """Yields results, fp32 [some texts, size], of some thousand texts at a time, and keeps `counts` up to date."""
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
            raise TypeError(f"{self.noun} must be a list of str or an iterable of them, got {kind_of(texts)}")
        return self._portions(texts, tokenise, progress, Counts() if counts is None else counts)

    def _portions(
        self, texts: Iterable[str], tokenise: Callable[[list[str]], Rows], progress: bool, counts: Counts
    ) -> Iterator[np.ndarray]:
        total = len(texts) if isinstance(texts, Sized) else None
        unknown = UnknownTokens(self.tokenizer, f"the {self.noun}")
        shows_bar = progress and sys.stderr is not None
        with tqdm(total=total, unit=f" {self.noun}", unit_scale=True, disable=not shows_bar) as bar:
            for rows in one_ahead(tokenise, chunks(self._checked(texts), len)):
                unknown.count(rows.ids)
                results = self._compute(rows, bar)
                counts.examples += len(results)
                counts.tokens += len(rows.ids)
                yield results

    @torch.inference_mode()
    def _compute(self, rows: Rows, bar: tqdm) -> np.ndarray:
        """Computes the results of some texts, fp32 [texts, size]; the model's training mode is restored."""
        encoder = self.encoder
        was_training = encoder.training
        encoder.eval()
        results = torch.empty(len(rows.lengths), self.size, device=encoder.device)
        for items in batches_by_length(rows.lengths, self.batch_tokens):
            results[torch.from_numpy(items).to(encoder.device)] = self._results(rows.batch(items, encoder.device))
            bar.update(len(items))
        encoder.train(was_training)
        return results.cpu().numpy()

    def _checked(self, texts: Iterable[str]) -> Iterator[str]:
        """Yields the texts; an error says the number of its text among all of them."""
        for number, text in enumerate(texts):
            check_text(text, f"{self.noun}[{number}]")
            yield text


def load_network(
    model_class: type[ElectraPreTrainedModel],
    name_or_path: str | os.PathLike,
    what: str,
    *,
    subfolder: str,
    device: str | torch.device,
    dtype: str | None,
    impl: Impl,
) -> tuple[Any, ElectraTokenizer]:
    """A whole network of this class, called `what` in errors, and the tokenizer beside it; see `load_encoder`."""
    dtypes = {**DTYPES, "int8": "int8"}
    if dtype is not None and dtype not in dtypes:
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, got {dtype!r}")
    loaded = dtypes[dtype or "fp32"]
    model = load_complete(
        model_class, name_or_path, what, subfolder=subfolder, device_map=device, dtype=loaded, impl=impl
    )
    if dtype is None:
        model.to(DTYPES[default_precision(model.device)])
    return model, ElectraTokenizer.from_pretrained(name_or_path, subfolder=subfolder)


def check_text(text: str, name: str) -> None:
    """Raises TypeError for what is no str, and ValueError for half of a surrogate pair."""
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {kind_of(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be well-formed Unicode, got: {error}") from error


def kind_of(value: object) -> str:
    """The class of a value, as an error names it."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
