"""The op `rtd_head` in C++ (csrc/cpu) but for its loss; what C++ cannot serve goes to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...processor import fastest_allowed
from .. import cpu, reference
from .cpu_library import CpuOp, Shapes, addresses, hold, room_for_gradients, room_to_save, wanted_only
from .library import run_by

_NAMES = ("hidden", "the dense weight", "the dense bias", "the prediction's weight", "the prediction's bias")


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    n_tokens, width = tensors[0].shape
    return (n_tokens, width), (width, width), (width,), (1, width), (1,)


def _room(hidden: Tensor, save: bool) -> tuple[Tensor, Tensor]:
    n_tokens, width = hidden.shape
    if not save:
        return hidden.new_empty(n_tokens), hidden.new_empty(0)
    n_columns = cpu.extension.rtd_head_saved(width, fastest_allowed())
    return hidden.new_empty(n_tokens), room_to_save(hidden, n_columns)


def _launch_forward(hidden, parameters, save):
    cpu.share_threads()
    logits, saved = _room(hidden, save)
    cpu.extension.rtd_head_forward(
        hidden.shape,
        hidden.data_ptr(),
        addresses(parameters),
        logits.data_ptr(),
        saved.data_ptr(),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return logits, saved


@run_by(_launch_forward, "rtd_logits_cpu_fwd(Tensor hidden, Tensor[] parameters, bool save) -> (Tensor, Tensor)")
def rtd_logits_cpu_fwd(hidden, parameters, save):
    return _room(hidden, save)


def _launch_backward(dlogits, saved, hidden, parameters, wanted):
    cpu.share_threads()
    grads = room_for_gradients((hidden, *parameters), wanted)
    cpu.extension.rtd_head_backward(
        hidden.shape,
        hidden.data_ptr(),
        addresses(parameters),
        dlogits.data_ptr(),
        saved.data_ptr(),
        addresses(grads),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "rtd_logits_cpu_bwd(Tensor dlogits, Tensor saved, Tensor hidden, Tensor[] parameters, bool[] wanted) -> Tensor[]",
)
def rtd_logits_cpu_bwd(dlogits, saved, hidden, parameters, wanted):
    return wanted_only(room_for_gradients((hidden, *parameters), wanted))


def _reference(tensors, others, options):
    return reference.rtd_head(*tensors)[1]


IN_CPP = CpuOp(rtd_logits_cpu_fwd, rtd_logits_cpu_bwd, (_launch_forward, _launch_backward), _reference, _NAMES, _shapes)


def rtd_head(
    hidden: Tensor,
    dense_weight: Tensor,
    dense_bias: Tensor,
    prediction_weight: Tensor,
    prediction_bias: Tensor,
    labels: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """`reference.rtd_head`; the loss is torch's."""
    parameters = dense_weight, dense_bias, prediction_weight, prediction_bias
    rows = hidden.reshape(-1, hidden.shape[-1]) if hidden.dim() != 2 else hidden
    held = hold((rows, *parameters))
    if IN_CPP.why_not(held, (labels,)) is not None:
        return reference.rtd_head(hidden, *parameters, labels)
    logits = IN_CPP((rows, *parameters), held, (), ())[0].view(hidden.shape[:-1])
    if labels is not None and labels.dtype == torch.bool:  # all of them count
        return F.binary_cross_entropy_with_logits(logits, labels.float()), logits
    return None if labels is None else reference.rtd_loss(logits, labels), logits
