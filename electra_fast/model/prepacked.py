"""Parameters whose values the C++ encoder alone holds, in the order in which it reads them (`prepack_weights`)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class PrepackedParameter(nn.Parameter):
    """A parameter that tells its shape, dtype and device; its values are elsewhere.

    `detach()` copies them from there, so a state dict has them. A copy or a pickle is a plain parameter. Whatever else
    torch would do with the values raises RuntimeError.

    Args:
        parameter: the one whose place this takes. If something else keeps it, such as an optimizer, `plain` is it.
        read: writes the values to a tensor.
        itemsize: bytes that a value takes where it is. Below four it is rounded, and there is no way back.
    """

    _read: Callable[[Tensor], None]
    _itemsize: int
    _original: weakref.ref[nn.Parameter]

    def __new__(cls, parameter: nn.Parameter, read: Callable[[Tensor], None], itemsize: int) -> PrepackedParameter:
        with torch.inference_mode(False):
            nothing = torch.empty((), dtype=parameter.dtype, device="cpu").expand(parameter.shape)
            made = super().__new__(cls, nothing, parameter.requires_grad)
        made._read, made._itemsize, made._original = read, itemsize, weakref.ref(parameter)
        return made

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function not in _TOLD:
            raise RuntimeError(
                f"{getattr(function, '__name__', function)} needs a weight that is prepacked for inference on a CPU: "
                f"call the model's unpack_weights() first"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs or {})

    def detach(self) -> Tensor:
        """The values, a plain tensor; raises ValueError if they are rounded."""
        original = self._original()
        if original is not None:
            return original.detach()
        if self._itemsize < self.dtype.itemsize:
            raise ValueError("prepacked weights in eight bits have no way back to fp32: load the model again")
        with torch.inference_mode(False):
            values = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        self._read(values)
        return values

    def plain(self) -> nn.Parameter:
        """The plain parameter of these values; raises ValueError if they are rounded."""
        original = self._original()
        if original is None:
            with torch.inference_mode(False):
                original = nn.Parameter(self.detach())
        return original.requires_grad_(self.requires_grad)

    @property
    def nbytes(self) -> int:
        return self.numel() * self._itemsize

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        if id(self) not in memo:
            memo[id(self)] = nn.Parameter(self.detach().clone(), self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: int) -> Any:
        return nn.Parameter(self.detach(), self.requires_grad).__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return f"PrepackedParameter({list(self.shape)}, {self.dtype})"


# What torch tells of a tensor without its values.
_TOLD = {
    *(
        getattr(Tensor, name).__get__
        for name in ("device", "dtype", "grad", "grad_fn", "is_cpu", "is_cuda", "is_leaf", "is_meta", "itemsize")
        + ("is_sparse", "layout", "ndim", "requires_grad", "shape")
    ),
    *(getattr(Tensor, name) for name in ("dim", "element_size", "is_complex", "is_floating_point", "numel", "size")),
    *(torch.is_complex, torch.is_floating_point, torch.numel),
    *(Tensor.requires_grad.__set__, Tensor.requires_grad_),
}


def unpack(model: nn.Module) -> None:
    """Gives a model plain parameters in the place of prepacked ones.

    Raises:
        ValueError: values that are rounded; nothing is changed then.
    """
    places = [
        (part._parameters, name, parameter)
        for part in model.modules()
        for name, parameter in part._parameters.items()
        if type(parameter) is PrepackedParameter
    ]
    plain = {id(parameter): parameter.plain() for *_, parameter in places}  # one may be in two places
    for parameters, name, parameter in places:
        parameters[name] = plain[id(parameter)]
