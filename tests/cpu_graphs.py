"""CUDA graphs on a CPU: a stand-in for the hardware, so that the code that records and replays can be run.

A recording is the list of the ops that torch dispatched in it, with their arguments. A replay computes them again, into
the memory that they had: Python does not run again, numbers are those of the recording, and only tensors may change.
Like a real one, a recording leaves no trace but Python's, and what it allocates holds garbage until the first replay.
"""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from electra_fast import ops
from electra_fast.pretraining import loop as pretraining_loop

# What waits for the device, or needs to know on the host how many elements there are.
_HOST_READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}


class _Graph(TorchDispatchMode):
    """A recording; the stand-in for torch.cuda.CUDAGraph."""

    recording = None

    def __init__(self):
        super().__init__()
        self._calls, self._outer, self._own = [], {}, {}

    def replay(self):
        with torch.no_grad():
            for function, args, kwargs, out in self._calls:
                again = function(*args, **kwargs)
                for old, new in zip(_tensors(out), _tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    @contextmanager
    def record(self):
        generator, _Graph.recording = torch.get_rng_state(), self
        with self:
            yield
        _Graph.recording = None
        torch.set_rng_state(generator)
        with torch.no_grad():
            for tensor, before in self._outer.values():
                tensor.copy_(before)
            for tensor in self._own.values():
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        is_sized = func._schema.name != "aten::repeat_interleave" or kwargs.get("output_size") is not None
        assert is_sized and func._schema.name not in _HOST_READS, f"{func} in a recording"
        for declared, value in zip(func._schema.arguments, args, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                self._keep(value)
        given = {x.untyped_storage().data_ptr() for x in _tensors((args, kwargs))}
        out = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, out))
        self._own |= {id(x): x for x in _tensors(out) if x.untyped_storage().data_ptr() not in given}
        return out

    def _keep(self, written):
        for x in _tensors(written):
            if id(x) not in self._own and id(x) not in self._outer:
                self._outer[id(x)] = x, x.detach().clone()

    @staticmethod
    def launch(function):
        """An op whose kernels on a GPU read nothing on the host, though its reference does."""

        def call(*args, **kwargs):
            graph = _Graph.recording
            if graph is None:
                return function(*args, **kwargs)
            with _disable_current_modes():
                graph._keep(args)
                out = function(*args, **kwargs)
            graph._calls.append((function, args, kwargs, out))
            graph._own |= {id(x): x for x in _tensors(out)}
            return out

        return call


def _tensors(values):
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


class _Stream:
    def wait_stream(self, other):
        pass


def _record(graph, pool=None, capture_error_mode="global"):
    assert capture_error_mode == "thread_local", "a checkpoint's thread may use the device meanwhile"
    return graph.record()


@contextmanager
def cpu_graphs():
    """Steps are recorded and replayed on the CPU, by impl="torch"; yields a list of the recordings."""
    graphs, select = [], ops.select

    def new_graph():
        graphs.append(_Graph())
        return graphs[-1]

    def launched(impl="auto", *args, **kwargs):
        found = select(impl, *args, **kwargs)
        names = ("mask_tokens", "place_samples", "grad_norm", "adamw", "lamb")
        return replace(found, **{name: _Graph.launch(getattr(found, name)) for name in names})

    stand_ins = {
        "CUDAGraph": new_graph,
        "graph": _record,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": object,
    }
    with (
        patch.multiple(torch.cuda, **stand_ins),
        patch.object(ops, "select", launched),
        patch.object(pretraining_loop, "is_capturable", lambda *_: True),
    ):
        yield graphs
