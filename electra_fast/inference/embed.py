"""Embeddings of any number of texts, one vector each, in constant memory and in the order of the texts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..model.backbone import ElectraModel
from ..model.base import ElectraPreTrainedModel, prepack_if_served
from ..model.packing import ranges
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from .batching import BATCH_TOKENS, Counts
from .bulk import Batch, Rows, TextNetwork, check_text, kind_of, load_network
from .pooling import POOLINGS, Pooling, pooled
from .sentence_modules import SentenceModules, check_case, read_sentence_modules


def embed(
    texts: Iterable[str],
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None = None,
    *,
    pooling: Pooling | None = None,
    normalize: bool = False,
    prompt: str | None = None,
    prompt_name: str | None = None,
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
            the CPU in fp32 elsewhere. A model of sentence-transformers has a pooling, a length, prompts and further
            modules of its own.
        tokenizer: the tokenizer, needed for a model in memory. Default: the one beside the model.
        pooling: "mean" of all tokens, [CLS] and [SEP] too; "cls", the first token; or one of the other modes of
            `electra_fast.inference.pooling`. Default: the model's own, or "mean".
        normalize: whether to divide each vector by its Euclidean length, if the model does not do so itself.
        prompt: a text to put before every text.
        prompt_name: the name of a prompt of a model of sentence-transformers. Default: the one that it names itself.
        max_length: number of tokens that longer texts are cut to, [CLS] and [SEP] included. Default: the model's own,
            or the most that tokenizer and model can take.
        batch_tokens: number of tokens to compute at once; a longer text is computed alone.
        progress: whether to show a bar on stderr.

    Returns:
        fp32 [texts, size], in the order of the texts. The size is the model's hidden size, or that of its last module.

    Raises:
        TypeError: texts that are not str, a model or tokenizer of another library.
        ValueError: a pooling or prompt that is not known, or a pooling for a model that has its own; a max_length that
            the model cannot take, batch_tokens that is not positive, half of a surrogate pair in a text, a tokenizer
            and a model that do not fit together, a model of sentence-transformers whose modules are not known.
        FileNotFoundError: no such model.
    """
    embedder = _embedder(model, tokenizer, pooling, normalize, prompt, prompt_name, max_length, batch_tokens)
    return embedder(texts, progress=progress)


def embed_stream(
    texts: Iterable[str],
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None = None,
    *,
    pooling: Pooling | None = None,
    normalize: bool = False,
    prompt: str | None = None,
    prompt_name: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """Yields the result of `embed` in portions of some thousand texts, for more vectors than memory holds.

    A portion is fp32 [some texts, size]. Arguments and errors are those of `embed`.
    """
    embedder = _embedder(model, tokenizer, pooling, normalize, prompt, prompt_name, max_length, batch_tokens)
    return embedder.stream(texts, progress=progress)


def load_embedder(
    name_or_path: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    pooling: Pooling | None = None,
    normalize: bool = False,
    prompt: str | None = None,
    prompt_name: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    device: str | torch.device = "auto",
    dtype: str | None = None,
    impl: Impl = "auto",
) -> EmbeddingNetwork:
    """All that `embed` needs of a directory or a name on the Hub, loaded once for any number of calls.

    On a CPU the encoder's weights are prepacked: `encoder.unpack_weights()` gives them back.
    Arguments and errors are those of `embed` and `load_encoder`.
    """
    modules = read_sentence_modules(name_or_path)
    encoder, own_tokenizer = load_encoder(
        name_or_path, subfolder="" if modules is None else modules.subfolder, device=device, dtype=dtype, impl=impl
    )
    prepack_if_served(encoder)
    tokenizer = own_tokenizer if tokenizer is None else tokenizer
    options = {"normalize": normalize, "max_length": max_length, "batch_tokens": batch_tokens}
    if modules is None:
        return _plain(encoder, tokenizer, pooling, prompt, prompt_name, **options)
    _check_fits(name_or_path, modules, encoder, own_tokenizer, pooling)
    return EmbeddingNetwork(
        encoder=encoder,
        tokenizer=tokenizer,
        pooling=modules.pooling,
        head=modules.head.to(encoder.device),
        prompt=modules.prompt(prompt, prompt_name),
        pools_prompt=modules.pools_prompt,
        **options | {"max_length": modules.max_length if max_length is None else max_length},
    )


def load_encoder(
    name_or_path: str | os.PathLike,
    *,
    subfolder: str = "",
    device: str | torch.device = "auto",
    dtype: str | None = None,
    impl: Impl = "auto",
) -> tuple[ElectraModel, ElectraTokenizer]:
    """The encoder of a directory or the Hub, and its tokenizer.

    Args:
        subfolder: where both lie in it.
        device: "auto" is CUDA where there is one.
        dtype: "fp32", "bf16", "fp16" or "int8". Default: bf16 on a GPU, fp32 on a CPU.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a damaged file, one that lacks a part of the encoder, a device or dtype that is not available.
    """
    return load_network(
        ElectraModel, name_or_path, "an ELECTRA encoder", subfolder=subfolder, device=device, dtype=dtype, impl=impl
    )


def _check_fits(
    name_or_path: str | os.PathLike,
    modules: SentenceModules,
    encoder: ElectraModel,
    tokenizer: ElectraTokenizer,
    pooling: Pooling | None,
) -> None:
    if pooling is not None:
        own = " and ".join(modules.pooling)
        raise ValueError(f"{name_or_path} is a model of sentence-transformers with its own pooling, {own}: give none")
    if (size := encoder.config.hidden_size) != modules.width:
        raise ValueError(f"the pooling of {name_or_path} must take the encoder's {size} numbers, got {modules.width}")
    check_case(name_or_path, modules.lowercases, tokenizer)


@dataclass(frozen=True, kw_only=True)
class EmbeddingNetwork(TextNetwork):
    """An encoder, a tokenizer and options that turn texts into vectors; arguments and errors are those of `embed`."""

    pooling: tuple[Pooling, ...] = ("mean",)
    """The modes, whose vectors are joined."""
    head: nn.Module = field(default_factory=nn.Identity)
    """What follows the pooling, from fp32 [texts, hidden size * modes] to [texts, size]."""
    prompt: str = ""
    pools_prompt: bool = True
    """Whether the tokens of the prompt, and [CLS] before it, are pooled, too."""
    normalize: bool = False

    def __post_init__(self) -> None:
        if unknown := [mode for mode in self.pooling if mode not in POOLINGS]:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {unknown[0]!r}")
        check_text(self.prompt, "the prompt")
        super().__post_init__()
        if self._n_unpooled >= self.longest:
            raise ValueError(
                f"the prompt must be shorter than the {self.longest} tokens of a text, got {self.prompt!r:.80}"
            )

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        with torch.inference_mode():
            width = self.encoder.config.hidden_size * len(self.pooling)
            return self.head(torch.zeros(1, width, device=self.encoder.device)).shape[1]

    def __call__(self, texts: Iterable[str], *, progress: bool = False) -> np.ndarray:
        """The vectors of all texts, fp32 [texts, size]."""
        size, end = self.size, 0
        vectors = np.empty((0, size), np.float32)
        for part in self.stream(texts, progress=progress):
            begin, end = end, end + len(part)
            if end > len(vectors):
                # In place, by moving pages: the vectors are never in memory twice.
                n_rows = max(end, begin + begin // 4, len(texts) if isinstance(texts, Sized) else 0)
                vectors.resize((n_rows, size), refcheck=False)
            vectors[begin:end] = part
        vectors.resize((end, size), refcheck=False)
        return vectors

    def stream(
        self, texts: Iterable[str], *, progress: bool = False, counts: Counts | None = None
    ) -> Iterator[np.ndarray]:
        """Yields vectors as `embed_stream` does, and keeps `counts` up to date."""
        return self._stream(texts, self._tokenise, progress, counts)

    @cached_property
    def _n_unpooled(self) -> int:
        """How many tokens at the beginning of each text are not pooled: [CLS] and the prompt's."""
        return 0 if self.pools_prompt or not self.prompt else len(self.tokenizer.encode_bulk([self.prompt])[0]) - 1

    def _tokenise(self, texts: list[str]) -> Rows:
        texts = [self.prompt + text for text in texts] if self.prompt else texts
        # One thread is enough: the others are computing, and tokenising is far ahead of them all the same.
        ids, starts = self.tokenizer.encode_bulk(texts, num_threads=1)
        lengths = np.minimum(np.diff(starts), self.longest)
        if lengths.sum() < len(ids):
            begins, ends, kept_ends = starts[:-1], starts[1:], lengths.cumsum()
            keeps_end = self.tokenizer.truncation_side == "left"
            kept = ids[ranges(ends - lengths if keeps_end else begins, lengths)]
            # A text that is cut keeps [CLS] and [SEP] too.
            kept[kept_ends - lengths], kept[kept_ends - 1] = ids[begins], ids[ends - 1]
            ids = kept
        return Rows(ids, np.zeros(len(ids), np.uint8), lengths)

    def _results(self, batch: Batch) -> Tensor:
        hidden = self.encoder.encode_packed(batch.ids, batch.packed)
        parts = [pooled(hidden, batch.lengths, mode, self._n_unpooled) for mode in self.pooling]
        vectors = self.head(torch.cat(parts, dim=1))
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors


def _embedder(
    model: str | os.PathLike | ElectraPreTrainedModel,
    tokenizer: ElectraTokenizer | None,
    pooling: Pooling | None,
    normalize: bool,
    prompt: str | None,
    prompt_name: str | None,
    max_length: int | None,
    batch_tokens: int,
) -> EmbeddingNetwork:
    options = {"normalize": normalize, "max_length": max_length, "batch_tokens": batch_tokens}
    if isinstance(model, (str, os.PathLike)):
        return load_embedder(model, tokenizer, pooling=pooling, prompt=prompt, prompt_name=prompt_name, **options)
    if not isinstance(model, ElectraPreTrainedModel):
        what = kind_of(model)
        raise TypeError(f"model must be a directory, a name on the Hub or a model of electra_fast, got {what}")
    if tokenizer is None:
        raise TypeError("a model in memory needs its tokenizer beside it: embed(texts, model, tokenizer)")
    encoder = model if isinstance(model, ElectraModel) else model.electra
    return _plain(encoder, tokenizer, pooling, prompt, prompt_name, **options)


def _plain(
    encoder: ElectraModel,
    tokenizer: ElectraTokenizer,
    pooling: Pooling | None,
    prompt: str | None,
    prompt_name: str | None,
    **options: Any,
) -> EmbeddingNetwork:
    """The embedder of a model that says nothing of pooling and prompts."""
    if prompt_name is not None:
        raise ValueError(f"prompt_name needs a model of sentence-transformers, which has prompts; got {prompt_name!r}")
    pooling = "mean" if pooling is None else pooling
    return EmbeddingNetwork(encoder=encoder, tokenizer=tokenizer, pooling=(pooling,), prompt=prompt or "", **options)
