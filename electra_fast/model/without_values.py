"""Models whose parameters get no first values, since others are about to be loaded."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode


class WithoutValues(TorchFunctionMode):
    """Leaves out what torch does in place, such as drawing first values, while a model is made.

    On "meta" there would be none to draw, but torch imports its compiler to do so: half a second, 150 MB, and Triton,
    whose LLVM aborts a process that has TensorFlow's.
    """

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.startswith("_"):  # in place, as all of torch.nn.init are
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
