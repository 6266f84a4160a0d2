"""Hooks of modules: who computes a module's result without calling it must know that nobody listens."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as all_modules

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


def has_global_hooks() -> bool:
    """Tells whether all modules have forward hooks."""
    return bool(all_modules._global_forward_hooks or all_modules._global_forward_pre_hooks)
