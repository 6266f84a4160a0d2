"""Inference by CUDA graphs: embeddings and encoder are recorded once per bucket of sizes, and replayed.

A small batch takes longer to launch than to compute: 100 kernels at 5 microseconds each are half a millisecond of
Python, whatever the GPU. A graph launches them at once, but has fixed shapes. So a batch is copied into the buffers of
the next larger bucket: tokens after the last sequence belong to none and are cut off again, and missing sequences are
empty. Token counts are bucketed in steps of an eighth, the longest sequence and the number of sequences by powers of
two; a bucket does not depend on single lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .packing import PackedBatch

_WARMUP_RUNS = 2


@dataclass(frozen=True)
class Bucket:
    """Sizes that a graph is recorded for."""

    n_tokens: int
    n_sequences: int
    max_seqlen: int

    @classmethod
    def of(cls, n_tokens: int, packed: PackedBatch) -> Bucket:
        """The smallest bucket that holds a batch."""
        step = max(16, _power_of_two(n_tokens) // 16)
        return cls(
            n_tokens=-(-n_tokens // step) * step,
            n_sequences=_power_of_two(len(packed.cu_seqlens) - 1),
            max_seqlen=max(16, _power_of_two(packed.max_seqlen)),
        )


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


class CapturedEncoder:
    """The graphs of one model, each recorded when its bucket is first needed.

    The graphs read the weights where they lie, so values may change; a model that was moved or cast is recorded anew.

    Args:
        max_tokens: the largest batch that is replayed. Larger ones keep the GPU busy without a graph.
    """

    def __init__(self, max_tokens: int):
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}")
        self.max_tokens = max_tokens
        self._records: dict[Bucket, _Record] = {}
        self._weights = 0
        self._pool: tuple[int, int] | None = None

    def __reduce__(self):
        # A copy of the model, or a pickle of it, records graphs of its own.
        return CapturedEncoder, (self.max_tokens,)

    # Buffers made in inference mode could not be written to outside of it.
    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(
        self, model: nn.Module, input_ids: Tensor, packed: PackedBatch, token_type_ids: Tensor, position_ids: Tensor
    ) -> Tensor:
        """Packed tokens [T] -> hidden states [T, H], as `model.encode_packed`.

        The `model` has that method, parameters and a `device`.
        """
        weights = next(model.parameters()).data_ptr()
        if weights != self._weights:
            self._records, self._weights = {}, weights
        bucket = Bucket.of(len(input_ids), packed)
        if bucket not in self._records:
            self._records[bucket] = _Record(bucket, model, self._record)
        return self._records[bucket](input_ids, packed.cu_seqlens, token_type_ids, position_ids)

    def _record(self, run: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Records `run`; returns its result and a function that computes it anew. All graphs share one memory pool."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARMUP_RUNS):  # compiles kernels and makes workspaces, which a recording cannot
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = run()
        self._pool = graph.pool()
        return out, graph.replay


class _Record:
    """The buffers of one bucket, and the recording that reads them."""

    def __init__(self, bucket: Bucket, model: nn.Module, record: Callable):
        device = model.device
        self._ids, self._types, self._positions = torch.zeros(3, bucket.n_tokens, dtype=torch.long, device=device)
        self._cu_seqlens = torch.zeros(bucket.n_sequences + 1, dtype=torch.int32, device=device)
        packed = PackedBatch.from_cu_seqlens(1, bucket.n_tokens, self._cu_seqlens, bucket.max_seqlen)
        self._hidden, self._replay = record(
            lambda: model.encode_packed(self._ids, packed, self._types, self._positions)
        )

    def __call__(self, ids: Tensor, cu_seqlens: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        n = len(ids)
        for buffer, values in ((self._ids, ids), (self._types, types), (self._positions, positions)):
            buffer[:n].copy_(values)
        self._cu_seqlens[: len(cu_seqlens)].copy_(cu_seqlens)
        self._cu_seqlens[len(cu_seqlens) :] = n
        self._replay()
        # The next replay of any graph writes over this memory.
        return self._hidden[:n].clone()
