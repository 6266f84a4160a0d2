"""The C++ encoder (csrc/cpu) on numpy arrays, for inference with JAX and TensorFlow on a CPU.

A call takes a padded batch, drops the padding, and computes what is left on packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..model.cpu_encoder import obstacle, why_not_for
from ..ops import cpu
from ..processor import fastest_allowed

_KINDS = ("word", "token_type", "position")


@dataclass(frozen=True)
class Places:
    """The places of T real tokens in a padded batch [B, S].

    Attributes:
        mask: [B, S] bool.
        starts: [B + 1] int32, the first token of each row among the T; the last entry is T.
        indices: [T], places in the flattened [B * S]; None where nothing is padded.
    """

    mask: np.ndarray
    starts: np.ndarray
    indices: np.ndarray | None

    @classmethod
    def of(cls, shape: tuple[int, int], mask: np.ndarray | None) -> Places:
        """Makes the places of a batch; without a mask all tokens are real, with one those where it is not zero."""
        mask = np.ones(shape, bool) if mask is None else mask != 0
        starts = np.zeros(len(mask) + 1, np.int32)
        np.cumsum(mask.sum(1), out=starts[1:])
        return cls(mask, starts, None if mask.all() else np.flatnonzero(mask))

    def pack(self, padded: np.ndarray) -> np.ndarray:
        """Drops padding: [B or 1, S, ...] -> [T, ...]."""
        padded = np.broadcast_to(padded, (*self.mask.shape, *padded.shape[2:])).reshape(-1, *padded.shape[2:])
        return padded if self.indices is None else padded[self.indices]

    def unpack(self, packed: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Restores padding: [T, ...] -> [B, S, ...], with `fill` at padding positions."""
        if self.indices is None:
            return packed.reshape(*self.mask.shape, *packed.shape[1:])
        padded = np.full((self.mask.size, *packed.shape[1:]), fill, packed.dtype)
        padded[self.indices] = packed
        return padded.reshape(*self.mask.shape, *packed.shape[1:])


class NumpyEncoder:
    """Embeddings and encoder of a network, with a copy of its weights.

    Args:
        config: an ElectraConfig that `why_not` finds nothing against.
        params: the base model's parameters, fp32, in the layout of Flax (`parameters.py`). Tables are not copied: the
            memory that is given must not change.
    """

    def __init__(self, config: Any, params: dict[str, Any]):
        self._n_states, self._width, self._causal = config.num_hidden_layers + 1, config.hidden_size, config.is_decoder
        cpu.share_threads()
        self._encoder = cpu.extension.Encoder(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.embedding_size,
            config.layer_norm_eps,
            False,
            fastest_allowed(),
        )
        tables = (_Memory(params["embeddings"][f"{kind}_embeddings"]["embedding"]) for kind in _KINDS)
        self._tables = [(table, len(table.array)) for table in tables]
        projection = [params["embeddings_project"]] if "embeddings_project" in params else []
        self._encoder.set_embedding(_norm(params["embeddings"]["LayerNorm"]), _linears(*projection))
        for i in range(config.num_hidden_layers):
            layer = params["encoder"]["layer"][str(i)]
            attention = layer["attention"]
            self._encoder.add_layer(
                _linears(*(attention["self"][name] for name in ("query", "key", "value"))),
                _linears(attention["output"]["dense"]),
                _norm(attention["output"]["LayerNorm"]),
                _linears(layer["intermediate"]["dense"]),
                _linears(layer["output"]["dense"]),
                _norm(layer["output"]["LayerNorm"]),
            )

    def __call__(
        self,
        places: Places,
        input_ids: np.ndarray | None,
        token_type_ids: np.ndarray | None,
        position_ids: np.ndarray | None,
        embedded: np.ndarray | None = None,
        keep_states: bool = False,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Ids, types and positions [B, S], or `embedded` [B, S, H] -> (last hidden states [T, H], states).

        Types and positions that are not given are zeros, and 0, 1, 2, ... The states are those of the embeddings and
        of each layer, [T, H], with `keep_states`; otherwise the list is empty.

        Raises:
            IndexError: an id that is not in its table.
        """
        n_tokens = int(places.starts[-1])
        ids = ()
        if embedded is None:
            if position_ids is None:
                position_ids = np.arange(places.mask.shape[1])[None]
            types = np.zeros(n_tokens, np.int64) if token_type_ids is None else places.pack(token_type_ids)
            columns = places.pack(input_ids), types, places.pack(position_ids)
            ids = tuple(_Memory(column, np.int64) for column in columns)
        out = np.empty((n_tokens, self._width), np.float32)
        states = np.empty((self._n_states if keep_states else 0, n_tokens, self._width), np.float32)
        self._encoder.run(
            self._tables,
            _Memory(places.starts, np.int32),
            len(places.starts) - 1,
            ids,
            None if embedded is None else _Memory(places.pack(embedded)),
            n_tokens,
            self._causal,
            torch.get_num_threads(),
            _Memory(out),
            _Memory(states) if keep_states else None,
        )
        return out, list(states)


def why_not(config: Any) -> str | None:
    """The reason why a network of this config cannot be served in C++ on this machine; None if it can."""
    return why_not_for(config) or obstacle()


class _Memory:
    """An array as the C++ takes it: by the address of its numbers, which lie in a row."""

    def __init__(self, array: np.ndarray, dtype: type = np.float32):
        self.array = np.ascontiguousarray(array, dtype)

    def data_ptr(self) -> int:
        return self.array.__array_interface__["data"][0]


def _norm(params: dict[str, np.ndarray]) -> tuple[_Memory, _Memory]:
    return _Memory(params["scale"]), _Memory(params["bias"])


def _linears(*parts: dict[str, np.ndarray]) -> list[tuple[_Memory, _Memory, int]]:
    """(weight [O, I], bias, O) of dense layers, whose kernels are [I, O]."""
    return [(_Memory(part["kernel"].T), _Memory(part["bias"]), part["kernel"].shape[1]) for part in parts]
