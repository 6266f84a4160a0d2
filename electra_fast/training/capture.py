"""A training step as CUDA graphs: recorded once, replayed with new inputs.

The paper's small model runs about 530 kernels per step at 16,384 tokens, a few microseconds of work each: launching
them one by one from Python takes longer than computing. There is a recording of a batch's first forward and backward,
which drops the gradients of the step before; another of a further one, which adds to the first one's gradients; and one
of the optimizers. What several processes exchange runs between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..ops import Impl
from .gradients import Gradients
from .optim import Adam
from .options import Parallel
from .step import Step

_EAGER_UPDATES = 3


def is_capturable(device: torch.device, impl: Impl, parallel: Parallel) -> bool:
    """Tells whether steps can be recorded: on a GPU, by its kernels, without collectives in forward and backward."""
    # The reference of some ops reads sizes and numbers on the host.
    has_kernels = ops.choose("mask_tokens", ops.resolve(impl))[0] != "torch"
    return device.type == "cuda" and parallel == "ddp" and has_kernels


class CapturedStep(Step):
    """A `Step` that is replayed from recordings after a few eager updates.

    Every call is one real update: the first ones run eagerly and compile kernels, the next records. Shapes, dtypes and
    devices of the inputs must stay the same, and `compute` takes and returns tensors.
    """

    def __init__(self, compute: Callable[..., Any], optimizers: Sequence[Adam], gradients: Gradients):
        super().__init__(compute, optimizers, gradients)
        self._stream = torch.cuda.Stream()
        # Both recordings of forwards take the same memory: neither reads what the other left but the gradients.
        self._pool = torch.cuda.graph_pool_handle()
        self._recordings: dict[Callable, _Recording] = {}
        self._n_updates = 0

    def __call__(self, parts: Sequence[tuple]) -> Iterator[Any]:
        yield from super().__call__(parts)
        self._n_updates += 1

    def _run(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        # The optimizers' kernels read a list of the gradients' addresses. These are known once the backward is
        # recorded, and an eager update then makes the list.
        is_update = function == self._update
        if self._n_updates < _EAGER_UPDATES + is_update:
            return self._run_eagerly(function, *inputs)
        if function not in self._recordings:
            self._recordings[function] = _Recording(function, inputs, None if is_update else self._pool)
        return self._recordings[function](*inputs)

    def _run_eagerly(self, function: Callable[..., Any], *inputs: Tensor) -> Any:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return outputs


class _Recording:
    """A function of tensors as a CUDA graph."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[Tensor], pool: Any):
        self._inputs = [x.clone() for x in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on meanwhile, a checkpoint's and NCCL's: what they ask of the device is none of the graph's.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._outputs = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        for buffer, x in zip(self._inputs, inputs, strict=True):
            if buffer.shape != x.shape or buffer.dtype != x.dtype:
                raise ValueError(
                    f"a captured step takes inputs like its first, {tuple(buffer.shape)} of {buffer.dtype}, got "
                    f"{tuple(x.shape)} of {x.dtype}"
                )
            buffer.copy_(x)
        self._graph.replay()
        return self._outputs
