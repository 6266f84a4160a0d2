"""The providers of text embeddings besides `embed`: the mean of all tokens' last hidden states, in fp32 on a CPU.

Padded batches have 32 texts, in their order or, `-sorted`, from the longest text to the shortest by characters, as
sentence-transformers sorts them; sorting and restoring the order count.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..model.files import write_onnx
from ..model.peers import OnnxRuntime as OnnxSession
from ..model.peers import Setup

Provider = Callable[[list[str]], np.ndarray]

BATCH_SIZE = 32


class Padded(ABC):
    """Transformers' fast tokenizer, padding to the longest of a batch, and a mean by the mask."""

    def __init__(self, folder: Path, max_length: int):
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.max_length = max_length

    def __call__(self, texts: list[str]) -> np.ndarray:
        starts = range(0, len(texts), BATCH_SIZE)
        return np.concatenate([self._vectors(texts[start : start + BATCH_SIZE]) for start in starts])

    @torch.inference_mode()
    def _vectors(self, texts: list[str]) -> np.ndarray:
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        mask = inputs["attention_mask"][..., None]
        return ((self.hidden_states(inputs) * mask).sum(1) / mask.sum(1)).numpy()

    @abstractmethod
    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The last hidden states [B, S, H] of a padded batch."""


class Transformers(Padded):
    """AutoModel with torch's fused attention."""

    def __init__(self, folder: Path, max_length: int):
        from transformers import AutoModel

        super().__init__(folder, max_length)
        self.model = AutoModel.from_pretrained(folder, attn_implementation="sdpa", dtype=torch.float32).eval()

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.model(**inputs).last_hidden_state


class OnnxRuntime(Padded):
    """The graph and the session that are the fastest of what onnxruntime has for the model."""

    def __init__(self, folder: Path, max_length: int):
        super().__init__(folder, max_length)
        write_onnx(folder, ())
        self.session = OnnxSession(Setup(folder, "cpu", torch.get_num_threads()), "fp32")

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(self.session.run(inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()))


class SentenceTransformers:
    """`SentenceTransformer.encode`, which sorts by length itself."""

    def __init__(self, folder: Path, max_length: int):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        options = {"attn_implementation": "sdpa", "dtype": torch.float32}
        encoder = Transformer(str(folder), max_seq_length=max_length, model_kwargs=options)
        pooling = Pooling(encoder.get_embedding_dimension(), "mean")
        self.model = SentenceTransformer(modules=[encoder, pooling], device="cpu")

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False)


@dataclass(frozen=True)
class Sorted:
    """Another provider, with the longest texts first."""

    provider: Provider

    def __call__(self, texts: list[str]) -> np.ndarray:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        found = self.provider([texts[i] for i in order])
        vectors = np.empty_like(found)
        vectors[order] = found
        return vectors


@dataclass(frozen=True)
class Peer:
    """One of the providers beside `embed`.

    Attributes:
        make: makes it from a folder with a model and the longest row in tokens.
        packages: what it needs, by the names of import and of pip alike.
        is_sorted: it gets the longest texts first.
    """

    make: Callable[[Path, int], Provider]
    packages: tuple[str, ...]
    is_sorted: bool = False

    @property
    def obstacle(self) -> str | None:
        """The packages to install first; None if all are there."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"pip install {' '.join(self.packages)}" if missing else None


_OF_ONNX = ("onnxruntime", "onnx")
PEERS: dict[str, Peer] = {
    "transformers": Peer(Transformers, ("transformers",)),
    "transformers-sorted": Peer(Transformers, ("transformers",), is_sorted=True),
    "sentence-transformers": Peer(SentenceTransformers, ("sentence_transformers",)),
    "onnxruntime": Peer(OnnxRuntime, _OF_ONNX),
    "onnxruntime-sorted": Peer(OnnxRuntime, _OF_ONNX, is_sorted=True),
}


@dataclass
class OnFirstUse:
    """A provider that is made by its first call: that call checks it, so there it may fail."""

    make: Callable[[], Provider]

    @cached_property
    def provider(self) -> Provider:
        return self.make()

    def __call__(self, texts: list[str]) -> np.ndarray:
        return self.provider(texts)


def make_peers(names: Sequence[str], folder: Path, max_length: int) -> dict[str, Provider]:
    """The providers of these names; those of one class share a model."""
    classes = dict.fromkeys(PEERS[name].make for name in names)
    made = {make: OnFirstUse(partial(make, folder, max_length)) for make in classes}
    return {name: Sorted(made[PEERS[name].make]) if PEERS[name].is_sorted else made[PEERS[name].make] for name in names}
