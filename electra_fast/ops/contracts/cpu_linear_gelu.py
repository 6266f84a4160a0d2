"""The op `linear_gelu` in C++ (csrc/cpu), forward and backward; what C++ cannot serve goes to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...processor import fastest_allowed
from .. import cpu, reference
from .cpu_library import CpuOp, Shapes, addresses, hold, room_for_gradients, room_to_save, wanted_only
from .library import run_by


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    (n_rows, in_features), out_features = tensors[0].shape, len(tensors[2])
    return (n_rows, in_features), (out_features, in_features), (out_features,)


def _room(x: Tensor, out_features: int, save: bool) -> tuple[Tensor, Tensor]:
    out = cpu.room(x, len(x), out_features)
    if not save:
        return out, x.new_empty(0)
    return out, room_to_save(x, cpu.extension.linear_gelu_saved(x.shape[1], out_features, fastest_allowed()))


def _launch_forward(x, parameters, save):
    cpu.share_threads()
    out, saved = _room(x, len(parameters[0]), save)
    cpu.extension.linear_gelu_forward(
        (*x.shape, len(parameters[0])),
        x.data_ptr(),
        addresses(parameters),
        out.data_ptr(),
        saved.data_ptr() if save else 0,
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return out, saved


@run_by(_launch_forward, "linear_gelu_cpu_fwd(Tensor x, Tensor[] parameters, bool save) -> (Tensor, Tensor)")
def linear_gelu_cpu_fwd(x, parameters, save):
    return _room(x, len(parameters[0]), save)


def _launch_backward(dout, saved, x, parameters, wanted):
    cpu.share_threads()
    grads = room_for_gradients((x, *parameters), wanted)
    cpu.extension.linear_gelu_backward(
        (*x.shape, len(parameters[0])),
        x.data_ptr(),
        addresses(parameters),
        dout.data_ptr(),
        saved.data_ptr(),
        addresses(grads),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "linear_gelu_cpu_bwd(Tensor dout, Tensor saved, Tensor x, Tensor[] parameters, bool[] wanted) -> Tensor[]",
)
def linear_gelu_cpu_bwd(dout, saved, x, parameters, wanted):
    return wanted_only(room_for_gradients((x, *parameters), wanted))


def _reference(tensors, others, options):
    return reference.linear_gelu(*tensors)


IN_CPP = CpuOp(
    linear_gelu_cpu_fwd,
    linear_gelu_cpu_bwd,
    (_launch_forward, _launch_backward),
    _reference,
    ("x", "the weight", "the bias"),
    _shapes,
)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`reference.linear_gelu`: [..., H] -> [..., F]."""
    rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    tensors = rows, weight, bias
    held = hold(tensors)
    if IN_CPP.why_not(held, ()) is not None:
        return reference.linear_gelu(x, weight, bias)
    out = IN_CPP(tensors, held, (), ())[0]
    return out if rows is x else out.view(*x.shape[:-1], len(weight))
