"""Bulk inference that travels between processes: a model's name and options, which become the model where it computes.

`electra_fast.integrations.ray` and `spark` run these functions on tables; anything else that pickles its work, such as
multiprocessing, may call them as they are. A child that is forked after torch has used several threads may hang in
torch: multiprocessing should start its children by "spawn".
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar
from uuid import uuid4

import numpy as np

from ..ops import Impl
from ..parquet import arrow_type, text_list, vector_array
from .batching import BATCH_TOKENS
from .bulk import kind_of
from .embed import EmbeddingNetwork, load_embedder
from .pooling import Pooling

if TYPE_CHECKING:
    import pyarrow

_Network = TypeVar("_Network")

# So many functions that came from other processes keep their models here: a query may have several.
_KEPT = 4
_loading = Lock()


@dataclass(frozen=True)
class Portable(ABC, Generic[_Network]):
    """A function of many texts. Pickled it is its options; each process loads the model once, for all copies of it.

    Attributes:
        model: a directory or a name on the Hub. A directory of the first process goes by its absolute path.
        batch_tokens: number of tokens to compute at once.
        device: "auto" is CUDA where there is one.
    """

    model: str | os.PathLike
    _: KW_ONLY
    batch_tokens: int = BATCH_TOKENS
    device: str = "auto"
    impl: Impl = "auto"
    _key: str = field(default_factory=lambda: uuid4().hex, init=False, repr=False, compare=False)

    column: ClassVar[str]
    """The name of the column that has the results, beside the texts."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | os.PathLike):
            raise TypeError(f"model must be a directory or a name on the Hub, got {kind_of(self.model)}")
        if os.path.isdir(self.model):  # another process may have another working directory
            object.__setattr__(self, "model", os.path.abspath(self.model))

    def load(self) -> _Network:
        """The model, loaded at the first call."""
        with _loading:
            if "network" not in vars(self):
                vars(self)["network"] = self._load()
            return vars(self)["network"]

    @abstractmethod
    def _load(self) -> _Network:
        """Loads the model."""

    @abstractmethod
    def arrow_type(self) -> pyarrow.DataType:
        """The type of a result in a table; it is known without the model's weights."""

    @abstractmethod
    def of_table(self, table: pyarrow.Table) -> pyarrow.Array:
        """The results of a table's rows, one for each; null is the empty text.

        Raises:
            ValueError: another number of columns, or a column of another type.
        """

    def _options(self) -> dict[str, Any]:
        return {option.name: getattr(self, option.name) for option in fields(self) if option.init}

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (type(self), self._key, tuple(self._options().items()))


@lru_cache(maxsize=_KEPT)
def _received(kind: type[Portable], key: str, options: tuple[tuple[str, Any], ...]) -> Portable:
    """The one copy in this process of a function that was made in another, by the key that it got there.

    Functions are not told apart by their options: a directory may have got another model since.
    """
    copy = kind(**dict(options))
    object.__setattr__(copy, "_key", key)
    return copy


@dataclass(frozen=True, kw_only=True)
class Embedder(Portable[EmbeddingNetwork]):
    """What `embed` computes, by name and options; these and the errors are those of `load_embedder`."""

    pooling: Pooling | None = None
    normalize: bool = False
    prompt: str | None = None
    prompt_name: str | None = None
    max_length: int | None = None
    dtype: str | None = None

    column: ClassVar[str] = "embedding"

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        """The vectors of texts, fp32 [texts, size]."""
        return self.load()(texts)

    def arrow_type(self) -> pyarrow.DataType:
        return arrow_type([np.float32])

    def of_table(self, table: pyarrow.Table) -> pyarrow.Array:
        if table.num_columns != 1:
            raise ValueError(f"vectors are of one column of texts, got {table.num_columns}")
        return vector_array(self(text_list(table.column(0), *table.column_names)))

    def _load(self) -> EmbeddingNetwork:
        options = self._options()
        return load_embedder(options.pop("model"), **options)
