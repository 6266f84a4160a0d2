"""The op `feed_forward_block` in C++ (csrc/cpu), forward and backward; where C++ cannot serve a call, the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...processor import fastest_allowed
from .. import cpu, reference_blocks
from .cpu_library import (
    CpuOp,
    Shapes,
    addresses,
    drawn,
    dropout_seeds,
    functions_for,
    hold,
    room_for_gradients,
    room_to_save,
    wanted_only,
)
from .library import run_by


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    n_tokens, width = tensors[0].shape
    inner = len(tensors[1])
    return {
        "hidden": (n_tokens, width),
        "the inner weight": (inner, width),
        "the outer weight": (width, inner),
        "the inner bias": (inner,),
        "the outer bias": (width,),
        "the LayerNorm's weight": (width,),
        "the LayerNorm's bias": (width,),
    }


def _room(hidden: Tensor, parameters: Sequence[Tensor], save: bool) -> tuple[Tensor, Tensor]:
    if not save:
        return torch.empty_like(hidden), hidden.new_empty(0)
    n_columns = functions_for(hidden).feed_forward_block_saved(hidden.shape[1], len(parameters[0]), fastest_allowed())
    return torch.empty_like(hidden), room_to_save(hidden, n_columns)


def _described(hidden, parameters, seed, eps, dropout_p):
    """A call's arguments as both functions of C++ begin with them."""
    places = addresses(parameters)
    sizes = (*hidden.shape, len(parameters[0]))
    return sizes, hidden.data_ptr(), places[:2], places[2:4], places[4:], eps, drawn(dropout_p, seed)


def _launch_forward(hidden, parameters, *call):
    cpu.share_threads()
    *call, save = call
    out, saved = _room(hidden, parameters, save)
    functions_for(hidden).feed_forward_block_forward(
        *_described(hidden, parameters, *call),
        out.data_ptr(),
        saved.data_ptr(),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return out, saved


@run_by(
    _launch_forward,
    "feed_forward_block_cpu_fwd(Tensor hidden, Tensor[] parameters, Tensor? seed, float eps, float dropout_p, "
    "bool save) -> (Tensor, Tensor)",
)
def feed_forward_block_cpu_fwd(hidden, parameters, seed, eps, dropout_p, save):
    return _room(hidden, parameters, save)


def _launch_backward(dout, saved, hidden, parameters, *call):
    cpu.share_threads()
    *call, wanted = call
    grads = room_for_gradients((hidden, *parameters), wanted)
    places = addresses(grads)
    functions_for(hidden).feed_forward_block_backward(
        *_described(hidden, parameters, *call),
        dout.data_ptr(),
        saved.data_ptr(),
        places[0],
        places[1:3],
        places[3:5],
        places[5:],
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "feed_forward_block_cpu_bwd(Tensor dout, Tensor saved, Tensor hidden, Tensor[] parameters, Tensor? seed, "
    "float eps, float dropout_p, bool[] wanted) -> Tensor[]",
)
def feed_forward_block_cpu_bwd(dout, saved, hidden, parameters, *call):
    return wanted_only(room_for_gradients((hidden, *parameters), call[-1]))


def _reference(tensors, others, options):
    hidden, inner_weight, outer_weight, inner_bias, outer_bias, *norm = tensors
    parameters = inner_weight, inner_bias, outer_weight, outer_bias, *norm
    return reference_blocks.feed_forward_block(hidden, *parameters, *options, *others)


IN_CPP = CpuOp(feed_forward_block_cpu_fwd, feed_forward_block_cpu_bwd, _reference, _shapes, has_bf16=True)


def feed_forward_block(
    hidden: Tensor,
    inner_weight: Tensor,
    inner_bias: Tensor,
    outer_weight: Tensor,
    outer_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(hidden + dropout(gelu(hidden inner' + b) outer' + c)); hidden: [..., H].

    Raises:
        ValueError: a rate of dropout that is none.
    """
    rows = hidden.flatten(0, -2)
    tensors = (rows, inner_weight, outer_weight, inner_bias, outer_bias, norm_weight, norm_bias)
    held = hold(tensors)
    if IN_CPP.why_not(held, (seed,)) is not None:
        return reference_blocks.feed_forward_block(
            hidden, inner_weight, inner_bias, outer_weight, outer_bias, norm_weight, norm_bias, eps, dropout_p, seed
        )
    seeds = dropout_seeds((dropout_p,), (seed,))
    return IN_CPP(tensors, held, seeds, (eps, dropout_p))[0].view(hidden.shape)
