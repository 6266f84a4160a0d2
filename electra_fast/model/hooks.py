"""Modules that are not called: an op reads their parameters, as long as nobody can tell the difference.

A module that somebody replaced, derived from or listens to is called, as in any other model.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from torch.nn.utils.parametrize import is_parametrized

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_hooked(module: nn.Module) -> bool:
    """Tells whether a module has hooks, or a `forward` that is not its class's."""
    own = module.__dict__  # read at every call, so without a loop
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def is_heard_within(module: nn.Module) -> bool:
    """Tells whether a module or a part of it is hooked."""
    return is_hooked(module) or any(is_heard_within(x) for x in module._modules.values() if x is not None)


def has_global_hooks() -> bool:
    """Tells whether all modules have forward hooks."""
    return bool(all_modules._global_forward_hooks or all_modules._global_forward_pre_hooks)


def is_unheard(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Tells whether a module is of this very class, and nobody listens to it."""
    return type(module) is kind and not is_hooked(module) and not has_global_hooks()


def is_plain(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Tells whether a module is what our models are made of: of a class of torch's, with its usual options, unheard.

    A module with parametrized weights is plain: its formula is its class's.
    """
    if not _is_known(module, kind):
        return False
    if kind is nn.Embedding:
        return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse
    return kind is nn.Dropout or module.bias is not None


def weight_and_bias(module: nn.Module, kind: type[nn.Module]) -> tuple[Tensor, Tensor] | None:
    """What an op reads of a plain module; None for another one, which has to be called."""
    if not _is_known(module, kind):
        return None
    bias = module.bias  # read once: a module looks for its parameters slowly, and a parametrized one computes them
    return None if bias is None else (module.weight, bias)


def dropout_rate(dropout: nn.Module) -> float | None:
    """The rate that an op takes for a dropout, by the dropout's own mode; None for a module that has to be called."""
    if is_plain(dropout, nn.Dropout):
        return dropout.p if dropout.training else 0.0
    return 0.0 if type(dropout) is nn.Identity and not is_hooked(dropout) else None


def _is_known(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    is_known = type(module) is kind or (type(module).__bases__ == (kind,) and is_parametrized(module))
    return is_known and not is_hooked(module) and not has_global_hooks()
