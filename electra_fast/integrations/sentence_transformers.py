"""sentence-transformers' models on our encoder and tokenizer, behind their own API: `accelerate(model)`.

`encode` and `predict` stay theirs: arguments, prompts, progress, processes, conversions. Replaced is what they call for
a list of inputs, `_inference`, in the one model: texts become packed batches of similar lengths by our tokenizer, and
the model's own modules compute them. All else goes the way it went, with the encoder patched as by `patch`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base import modules as base_modules
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.util import truncate_embeddings
from torch import Tensor, nn
from tqdm import tqdm
from transformers.models.electra import modeling_electra as theirs

from ..inference.bulk import Batch, Rows, TextNetwork
from ..inference.embed import EmbeddingNetwork
from ..model.packing import PackedBatch
from ..tokenizer import ElectraTokenizer
from .packed_electra import hidden_states, why_not_packed
from .transformers import PatchedForward, patch, unpatch

__all__ = ["accelerate", "restore"]

_Served = SentenceTransformer | CrossEncoder
# What may follow a pooling: modules that read and write vectors alone.
_OF_VECTORS = (base_modules.Dense, base_modules.Normalize, modules.Dropout, modules.LayerNorm)


def accelerate(model: _Served) -> _Served:
    """Serves `encode` of a SentenceTransformer, or `predict` and `rank` of a CrossEncoder; returns the model.

    Served are lists of texts, or of pairs of texts, on models whose encoder is transformers' ELECTRA. Results are
    theirs within rounding. Other inputs, outputs and modules are computed as before.

    Raises:
        TypeError: another object.
        ValueError: a model whose encoder is no ELECTRA of transformers, or whose tokenizer cannot be read.
    """
    if not isinstance(model, _Served):
        raise TypeError(f"expected a SentenceTransformer or a CrossEncoder, got {type(model)}")
    patch(model)
    if "_inference" not in vars(model):
        kind = _CrossEncoding if isinstance(model, CrossEncoder) else _SentenceEncoding
        model._inference = kind(model)
    return model


def restore(model: _Served) -> _Served:
    """Undoes `accelerate` and returns the model, as it was before. A model that is not served is left alone."""
    vars(model).pop("_inference", None)
    return unpatch(model)


@dataclass(frozen=True)
class _Encoder:
    """What `TextNetwork` uses of an encoder, of transformers' model."""

    model: theirs.ElectraModel

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def training(self) -> bool:
        return self.model.training

    def train(self, mode: bool = True) -> None:
        self.model.train(mode)

    def eval(self) -> None:
        self.model.eval()

    def encode_packed(self, ids: Tensor, packed: PackedBatch, type_ids: Tensor | None = None) -> Tensor:
        """Packed tokens [T] -> last hidden states [T, H]."""
        types = torch.zeros_like(ids) if type_ids is None else type_ids
        positions = packed.position_ids(len(ids))
        (states,) = hidden_states(self.model, packed, ids, types, positions, None, False)
        return states


class _Inference(ABC):
    """The `_inference` of one model: an object and not a bound method, so that models can be copied and pickled."""

    def __init__(self, model: _Served):
        self.model = model
        self._tokenizer: tuple[tuple, ElectraTokenizer] | None = None
        self.tokenizer()  # a tokenizer that cannot be read is told now

    def tokenizer(self) -> ElectraTokenizer:
        """Our form of the model's tokenizer, made again when that has changed."""
        own = self.model.tokenizer
        backend = own.backend_tokenizer
        steps = map(repr, (backend.normalizer, backend.pre_tokenizer, backend.post_processor))
        state = (own, len(own), own.model_max_length, own.truncation_side, *steps)
        if self._tokenizer is None or self._tokenizer[0] != state:
            made = ElectraTokenizer(
                tokenizer_object=backend,
                model_max_length=own.model_max_length,
                truncation_side=own.truncation_side,
            )
            self._tokenizer = state, made
        return self._tokenizer[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "_tokenizer": None}

    def __call__(self, inputs: list, **options: Any) -> Any:
        served = self._serve(inputs, options)
        return type(self.model)._inference(self.model, inputs, **options) if served is None else served

    @abstractmethod
    def _serve(self, inputs: list, options: dict[str, Any]) -> Tensor | None:
        """What our path computes for these arguments; None where it cannot."""

    def _transformer(self) -> nn.Module | None:
        """The network of the first module, if its encoder can run on packed tokens."""
        first = self.model[0]
        if type(first) is not base_modules.Transformer or any(
            getattr(first, name, None)
            for name in ("query_expansion", "query_length", "document_length", "processing_kwargs")
        ):
            return None
        encoder = first.model if isinstance(first.model, theirs.ElectraModel) else getattr(first.model, "electra", None)
        ids = {"input_ids": torch.zeros(1, 1, dtype=torch.long)}
        return None if encoder is None or why_not_packed(encoder, ids) is not None else first.model


class _SentenceEncoding(_Inference):
    def _serve(self, inputs: list, options: dict[str, Any]) -> Tensor | None:
        pooling, after = self.model[1] if len(self.model) > 1 else None, list(self.model)[2:]
        network = self._transformer()
        known = {"prompt", "batch_size", "show_progress_bar", "output_value", "save_to_cpu", "normalize_embeddings"}
        if (
            not all(isinstance(text, str) for text in inputs)
            or options["output_value"] != "sentence_embedding"
            or options.get("device") is not None
            or options.keys() - known - {"truncate_dim", "device", "task"}
            or type(network) is not theirs.ElectraModel
            or type(pooling) is not modules.Pooling
            or any(type(module) not in _OF_VECTORS for module in after)
            or any(map(_is_hooked, (pooling, *after)))
        ):
            return None
        self.model.eval()
        modes = pooling.pooling_mode
        embedder = EmbeddingNetwork(
            encoder=_Encoder(network),
            tokenizer=self.tokenizer(),
            pooling=(modes,) if isinstance(modes, str) else modes,
            head=_Head(after, network.dtype),
            prompt=options["prompt"] or "",
            pools_prompt=pooling.include_prompt,
            normalize=False,
        )
        vectors = torch.from_numpy(embedder(inputs, progress=options["show_progress_bar"])).to(network.dtype)
        vectors = truncate_embeddings(vectors, options["truncate_dim"])
        if options["normalize_embeddings"]:
            vectors = nn.functional.normalize(vectors, dim=1)
        return vectors if options["save_to_cpu"] else vectors.to(network.device)


class _CrossEncoding(_Inference):
    def _serve(self, inputs: list, options: dict[str, Any]) -> Tensor | None:
        network = self._transformer()
        known = {"prompt", "batch_size", "show_progress_bar", "activation_fn", "apply_softmax", "device"}
        if (
            not inputs
            or not all(isinstance(pair, Sequence) and list(map(type, pair)) == [str, str] for pair in inputs)
            or options["prompt"]
            or options.get("device") is not None
            or options.keys() - known
            or len(self.model) != 1
            or type(network) is not theirs.ElectraForSequenceClassification
            or type(network.classifier) is not theirs.ElectraClassificationHead
            or any(map(_is_hooked, (network, network.classifier)))
        ):
            return None
        self.model.eval()
        scorer = _PairScorer(encoder=_Encoder(network.electra), tokenizer=self.tokenizer(), network=network)
        logits = scorer(inputs, bool(options["show_progress_bar"]))
        scores = options["activation_fn"](logits) if options["activation_fn"] is not None else logits
        if network.config.num_labels == 1 and scores.ndim > 1:
            scores = scores.squeeze(-1)
        return scores.softmax(1) if options["apply_softmax"] and scores.ndim > 1 else scores


@dataclass(frozen=True, kw_only=True)
class _PairScorer(TextNetwork):
    """Logits of pairs of texts."""

    network: theirs.ElectraForSequenceClassification

    least = 3

    @property
    def size(self) -> int:
        return self.network.config.num_labels

    def __call__(self, pairs: Sequence[Sequence[str]], progress: bool) -> Tensor:
        firsts, seconds = (list(texts) for texts in zip(*pairs, strict=True))
        encoded = self.tokenizer(
            firsts, seconds, truncation="longest_first", max_length=self.longest, return_token_type_ids=True
        )
        lengths = np.array(list(map(len, encoded["input_ids"])))
        ids, types = (
            np.fromiter((x for row in encoded[name] for x in row), dtype, lengths.sum())
            for name, dtype in (("input_ids", np.int32), ("token_type_ids", np.uint8))
        )
        with tqdm(total=len(pairs), unit=" pairs", disable=not progress) as bar:
            return torch.from_numpy(self._compute(Rows(ids, types, lengths), bar)).to(self.network.device)

    def _results(self, batch: Batch) -> Tensor:
        hidden = self.encoder.encode_packed(batch.ids, batch.packed, batch.type_ids)
        first = hidden[batch.packed.cu_seqlens[:-1].long()]
        return self.network.classifier(first[:, None]).float()


class _Head(nn.Module):
    """The modules after a pooling, on vectors; in the model's dtype, as they are there."""

    def __init__(self, after: Sequence[nn.Module], dtype: torch.dtype):
        super().__init__()
        self.after, self.dtype = nn.ModuleList(after), dtype

    def forward(self, vectors: Tensor) -> Tensor:
        features = {"sentence_embedding": vectors.to(self.dtype)}
        for module in self.after:
            features = module(features)
        return features["sentence_embedding"].float()


def _is_hooked(module: nn.Module) -> bool:
    """Whether a call of the module may do more than its class says; what `patch` put there does not."""
    own = vars(module).get("forward")
    return bool(module._forward_hooks or module._forward_pre_hooks) or not isinstance(own, PatchedForward | None)
