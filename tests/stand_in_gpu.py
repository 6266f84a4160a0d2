"""A stand-in for a GPU, whose tensors have shapes and no numbers: what a CUDA graph cannot record fails on it.

Tensors on torch's device "meta" pass for those of a GPU, so models take the path that they take there, through the
launchers to the launches; only the kernels do not run. In a recording these raise NotRecordable:

- a read by the host: `item()`, `tolist()`, `bool(tensor)`, `if tensor:`, a copy to the host;
- a shape that depends on data: `nonzero`, indexing by a mask, `unique`, and their like;
- a copy from the host that waits: `torch.tensor(number, device=...)`;
- a kernel that is given memory of the host.
"""

import importlib
import pkgutil
from contextlib import ExitStack, contextmanager
from functools import cache
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from electra_fast import kernels
from electra_fast.ops import registry

GPU = torch.device("meta")
_NOT_STATIC = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}
_INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class NotRecordable(AssertionError):
    """Something that a CUDA graph cannot record."""


class Recording(TorchDispatchMode):
    """Runs launchers where the dispatcher would ask for their shape rules, and raises NotRecordable.

    Attributes:
        launched: names of the kernels that were launched.
        is_on: whether it records.
    """

    def __init__(self):
        super().__init__()
        self.launched, self.is_on = [], False

    @contextmanager
    def recording(self):
        """Checks what is computed within."""
        self.is_on = True
        try:
            with _FromNumbers(), self:
                yield self
        finally:
            self.is_on = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "electra_fast":
            with self:  # torch switches a mode off while it handles an op
                outs = _launcher(func.name().removeprefix("electra_fast::"))(*args, **kwargs)
            for out, expected in zip(_listed(outs), _listed(func(*args, **kwargs)), strict=True):
                assert (out.shape, out.dtype) == (expected.shape, expected.dtype), f"the shape rule of {func}"
            return outs
        if _depends_on_numbers(func, args, kwargs):
            raise NotRecordable(f"{func}: the host waits for numbers, or a shape depends on them")
        if func in _COPIES:
            _check_copy(func, args, kwargs)
        return func(*args, **kwargs)

    def launch(self, kernel, args, kwargs):
        """Stands in for a launch."""
        if any(isinstance(x, Tensor) and x.device != GPU for x in (*args, *kwargs.values())):
            raise NotRecordable(f"{kernel.__name__} is given memory of the host")
        self.launched.append(kernel.__name__)


def _depends_on_numbers(func, args, kwargs):
    """Tells whether an op gives numbers to the host, or has a result whose shape depends on numbers."""
    if func in _INDEXING:
        return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    if func is torch.ops.aten.repeat_interleave.Tensor:
        return kwargs.get("output_size") is None
    return bool(_NOT_STATIC & set(func.tags))


def _check_copy(func, args, kwargs):
    """Lets no number out, and lets numbers in only where the host need not wait: from pinned memory."""
    if func is torch.ops.aten.copy_.default:
        (place, source), is_pinned = (x.device for x in args[:2]), args[2:] == (True,)
    else:
        source, is_pinned = args[0].device, kwargs.get("non_blocking", False)
        place = kwargs.get("device") or source
    if source != place and (source == GPU or not is_pinned):
        raise NotRecordable(f"{func} from {source} to {place}: the host waits")


class _FromNumbers(TorchFunctionMode):
    """Refuses tensors that are made from numbers of the host: no op of the dispatcher makes them on "meta"."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in _FROM_NUMBERS and out.device == GPU and not isinstance(args[-1], Tensor):
            raise NotRecordable(f"{func.__name__} of the host's numbers: the host waits for the copy")
        return out


def _listed(outs):
    return outs if isinstance(outs, tuple | list) else [outs]


@cache
def _launcher(name):
    """The launcher of an op, from whichever file of the kernels has it."""
    for module in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        found = getattr(importlib.import_module(module.name), name, None)
        if found is not None and found.__module__ == module.name:
            return found
    raise LookupError(f"no file of {kernels.__name__} has {name}")


@contextmanager
def stand_in_gpu():
    """Takes the device "meta" for a GPU; gives a `Recording`, whose `recording()` checks what is computed."""
    noted = Recording()

    def launch(kernel, *args, grid, warmup=False, **kwargs):
        noted.launch(kernel, args, kwargs)

    patches = (
        (Tensor, "is_cuda", property(lambda x: x.device == GPU)),
        (registry, "obstacle", lambda: None),
        (torch.cuda, "is_current_stream_capturing", lambda: noted.is_on),
        (torch.cuda, "get_device_properties", lambda device: SimpleNamespace(multi_processor_count=132)),
        (InterpretedFunction, "run", launch),
        (JITFunction, "run", launch),
    )
    registry._bind.cache_clear()
    try:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(mock.patch.object(*patch))
            yield noted
    finally:
        registry._bind.cache_clear()
