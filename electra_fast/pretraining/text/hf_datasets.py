"""Hugging Face datasets as sources of documents; they need the package `datasets`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .documents import cut_documents

_BATCH = 1000


@dataclass(frozen=True)
class SavedDataset:
    """A directory written by `datasets.Dataset.save_to_disk`; if it has several splits, the one named "train"."""

    path: Path
    name: str
    text_key: str

    def documents(self) -> Iterator[str]:
        yield from _texts(self._load(), str(self.path), self.text_key)

    def identity(self) -> bytes:
        return self._load()._fingerprint.encode()

    def reading(self) -> str:
        return self.text_key

    def files(self) -> list[Path]:
        return [Path(file["filename"]) for file in self._load().cache_files]

    def _load(self) -> Any:
        try:
            dataset = _datasets().load_from_disk(self.path)
        except ValueError as error:
            raise ValueError(f"{self.path} must be what save_to_disk wrote, got: {error}") from error
        if isinstance(dataset, dict):
            if "train" not in dataset:
                raise ValueError(f"{self.path} must have a split named train, got {', '.join(dataset)}")
            dataset = dataset["train"]
        return dataset


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hub, streamed over the network again in every epoch."""

    name: str
    dataset: str
    config: str | None
    split: str
    text_key: str

    @classmethod
    def parse(cls, spec: str, text_key: str) -> HubDataset:
        """Parses `hf:NAME[:CONFIG[:SPLIT]]`; CONFIG may be empty, and SPLIT is train by default."""
        _, dataset, *rest = spec.split(":")
        if not dataset or len(rest) > 2:
            raise ValueError(f"a dataset on the Hub must be given as hf:NAME[:CONFIG[:SPLIT]], got {spec!r}")
        config, split = (*rest, "", "")[:2]
        _datasets()  # reports a missing package before anything else is done
        return cls(spec, dataset, config or None, split or "train", text_key)

    def documents(self) -> Iterator[str]:
        dataset = _datasets().load_dataset(self.dataset, self.config, split=self.split, streaming=True)
        yield from _texts(dataset, self.name, self.text_key)

    def identity(self) -> bytes:
        return hashlib.blake2b(self.name.encode()).digest()

    def reading(self) -> str:
        return self.text_key

    def files(self) -> list[Path]:
        return []


def _texts(dataset: Any, name: str, text_key: str) -> Iterator[str]:
    for batch in dataset.iter(_BATCH):
        if text_key not in batch:
            raise ValueError(f"{name} must have a column {text_key!r} of texts, got {', '.join(batch)}")
        for text in batch[text_key]:
            if not isinstance(text, str):
                raise ValueError(f"the column {text_key!r} of {name} must hold text, got {type(text).__name__}")
            yield from cut_documents(text.splitlines(keepends=True), False)


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "Hugging Face datasets need the package `datasets`: pip install 'electra_fast[datasets]'"
        ) from error
    return datasets
