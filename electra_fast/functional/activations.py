"""Activations by their names in a config, as formulas over a backend's operations; the names are torch's classes'."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any


def _gelu(ops: ModuleType, x: Any) -> Any:
    return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))


def _gelu_tanh(ops: ModuleType, x: Any) -> Any:
    return 0.5 * x * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def _clip(ops: ModuleType, x: Any, low: float, high: float) -> Any:
    return ops.minimum(ops.maximum(x, low), high)


def _silu(ops: ModuleType, x: Any) -> Any:
    return x * ops.sigmoid(x)


ACTIVATIONS: dict[str, Callable[[ModuleType, Any], Any]] = {
    "gelu": _gelu,
    "gelu_python": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "gelu_10": lambda ops, x: _clip(ops, _gelu(ops, x), -10, 10),
    "quick_gelu": lambda ops, x: x * ops.sigmoid(1.702 * x),
    "hardswish": lambda ops, x: x * _clip(ops, x + 3, 0, 6) / 6,
    "leaky_relu": lambda ops, x: ops.maximum(x, 0.01 * x),
    "linear": lambda ops, x: x,
    "mish": lambda ops, x: x * ops.tanh(ops.softplus(x)),
    "relu": lambda ops, x: ops.maximum(x, 0),
    "relu2": lambda ops, x: ops.maximum(x, 0) * ops.maximum(x, 0),
    "relu6": lambda ops, x: _clip(ops, x, 0, 6),
    "sigmoid": lambda ops, x: ops.sigmoid(x),
    "silu": _silu,
    "swish": _silu,
    "tanh": lambda ops, x: ops.tanh(x),
}


def activate(ops: ModuleType, name: str | Callable[[Any], Any] | None, x: Any) -> Any:
    """Applies a config's activation, a name or a function on the backend's arrays; None is none.

    Raises:
        ValueError: a name that is not known.
    """
    if name is None:
        return x
    if callable(name):
        return name(x)
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name](ops, x)
