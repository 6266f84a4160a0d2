"""Who follows a call beside autograd: what may not be read or skipped while somebody does."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_recorded() -> bool:
    """Tells whether a graph is being recorded for other batches too: lengths read now would be frozen into it."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def is_watched() -> bool:
    """Tells whether somebody sees the calls that go through torch's dispatcher: a mode, or the profiler."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch.autograd._profiler_enabled()


def is_followed() -> bool:
    """Tells whether a compiler, an exporter or a function transform follows: none knows where a tensor lies."""
    return (
        torch.compiler.is_compiling()  # first, for a compiler evaluates it, and reads none of the others
        or is_recorded()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
