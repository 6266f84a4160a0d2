"""The op `mlm_head` in C++ (csrc/cpu), forward and backward; what C++ cannot serve goes to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...processor import fastest_allowed
from .. import cpu, reference
from .cpu_library import CpuOp, Shapes, addresses, hold, room_for_gradients, wanted_only
from .library import run_by


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    n_rows, width = tensors[0].shape if tensors[0].dim() == 2 else (-1, -1)
    vocabulary = len(tensors[2])
    return (n_rows, width), (vocabulary, width), (vocabulary,)


def _room(hidden: Tensor, vocabulary: int, uniform: Tensor | None, save: bool) -> tuple[Tensor, ...]:
    n_rows, width = hidden.shape
    samples = hidden.new_empty(0 if uniform is None else n_rows, dtype=torch.int64)
    n_saved = cpu.extension.mlm_head_saved((n_rows, width, vocabulary), fastest_allowed()) if save else 0
    return hidden.new_empty(n_rows), hidden.new_empty(n_rows, dtype=torch.bool), samples, cpu.room(hidden, n_saved)


def _described(hidden, parameters, labels):
    """A call's arguments as both functions of C++ begin with them."""
    weight, _ = parameters
    sizes = len(hidden), hidden.shape[1], len(weight)
    return sizes, hidden.data_ptr(), *addresses(parameters), labels.data_ptr()


def _launch_forward(hidden, parameters, labels, uniform, temperature, never_label, save):
    cpu.share_threads()
    results = _room(hidden, len(parameters[0]), uniform, save)
    cpu.extension.mlm_head_forward(
        *_described(hidden, parameters, labels),
        *addresses([uniform]),
        temperature,
        never_label,
        *addresses((*results[:-1], results[-1] if save else None)),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return results


@run_by(
    _launch_forward,
    "mlm_head_cpu_fwd(Tensor hidden, Tensor[] parameters, Tensor labels, Tensor? uniform, float temperature, "
    "bool never_label, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
)
def mlm_head_cpu_fwd(hidden, parameters, labels, uniform, temperature, never_label, save):
    return _room(hidden, len(parameters[0]), uniform, save)


def _launch_backward(dlosses, saved, hidden, parameters, labels, uniform, temperature, never_label, wanted):
    cpu.share_threads()
    grads = room_for_gradients((hidden, *parameters), wanted)
    cpu.extension.mlm_head_backward(
        *_described(hidden, parameters, labels),
        saved.data_ptr(),
        dlosses.data_ptr(),
        *addresses(grads),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "mlm_head_cpu_bwd(Tensor dlosses, Tensor saved, Tensor hidden, Tensor[] parameters, Tensor labels, "
    "Tensor? uniform, float temperature, bool never_label, bool[] wanted) -> Tensor[]",
)
def mlm_head_cpu_bwd(dlosses, saved, hidden, parameters, *call):
    return wanted_only(room_for_gradients((hidden, *parameters), call[-1]))


def _reference(tensors, others, options):
    labels, uniform = others
    return reference.mlm_head(*tensors, labels, uniform, *options)[0]


IN_CPP = CpuOp(
    mlm_head_cpu_fwd,
    mlm_head_cpu_bwd,
    (_launch_forward, _launch_backward),
    _reference,
    ("hidden", "weight", "bias"),
    _shapes,
)


def mlm_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    uniform: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    never_label: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`reference.mlm_head`; hidden: [N, E].

    Raises:
        IndexError: a label that is not in the vocabulary.
    """
    tensors = hidden, weight, bias
    held, others = hold(tensors), [None if x is None else x.detach() for x in (labels, uniform)]
    if IN_CPP.why_not(held, others) is not None or _unfit(*others, len(hidden)):
        return reference.mlm_head(*tensors, *others, temperature, never_label)
    losses, is_correct, samples = IN_CPP(tensors, held, others, (float(temperature), never_label))
    return losses, is_correct, None if uniform is None else samples


def _unfit(labels: Tensor, uniform: Tensor | None, n_rows: int) -> str | None:
    """What is wrong with labels and random numbers that C++ is to read by their addresses; or None."""
    reason = cpu.unfit(labels, torch.int64, (n_rows,))
    return reason or (None if uniform is None else cpu.unfit(uniform, torch.float32, (n_rows,)))
