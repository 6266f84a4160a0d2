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
    dropout_seeds,
    functions_for,
    hold,
    room_for_gradients,
    room_to_save,
    threshold,
    wanted_only,
)
from .library import run_by

_NAMES = ("hidden", "the inner weight", "the outer weight", "the inner bias", "the outer bias")
_NAMES += ("the LayerNorm's weight", "the LayerNorm's bias")


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    n_tokens, width = tensors[0].shape
    inner = tensors[1].shape[0]
    return (n_tokens, width), (inner, width), (width, inner), (inner,), (width,), (width,), (width,)


def _room(hidden: Tensor, parameters: Sequence[Tensor], save: bool) -> tuple[Tensor, Tensor]:
    if not save:
        return cpu.room(hidden, *hidden.shape), hidden.new_empty(0)
    n_columns = functions_for(hidden).feed_forward_block_saved(
        hidden.shape[1], parameters[0].shape[0], fastest_allowed()
    )
    return cpu.room(hidden, *hidden.shape), room_to_save(hidden, n_columns)


def _described(hidden, parameters, eps, dropout_p, seed):
    """A call's arguments as both functions of C++ begin with them."""
    places = addresses(parameters)
    sizes = (*hidden.shape, parameters[0].shape[0])
    return sizes, hidden.data_ptr(), places[:2], places[2:4], places[4:], eps, (threshold(dropout_p), seed)


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
    "feed_forward_block_cpu_fwd(Tensor hidden, Tensor[] parameters, float eps, float dropout_p, int seed, "
    "bool save) -> (Tensor, Tensor)",
)
def feed_forward_block_cpu_fwd(hidden, parameters, eps, dropout_p, seed, save):
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
    "feed_forward_block_cpu_bwd(Tensor dout, Tensor saved, Tensor hidden, Tensor[] parameters, "
    "float eps, float dropout_p, int seed, bool[] wanted) -> Tensor[]",
)
def feed_forward_block_cpu_bwd(dout, saved, hidden, parameters, *call):
    return wanted_only(room_for_gradients((hidden, *parameters), call[-1]))


def _reference(tensors, others, options):
    hidden, inner_weight, outer_weight, inner_bias, outer_bias, *norm = tensors
    parameters = inner_weight, inner_bias, outer_weight, outer_bias, *norm
    eps, dropout_p, seed = options
    return reference_blocks.feed_forward_block(hidden, *parameters, eps, dropout_p, torch.tensor([seed]))


IN_CPP = CpuOp(
    feed_forward_block_cpu_fwd,
    feed_forward_block_cpu_bwd,
    (_launch_forward, _launch_backward),
    _reference,
    _NAMES,
    _shapes,
    has_bf16=True,
)


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
    rows = hidden.flatten(0, -2) if hidden.dim() > 1 else hidden[None]
    tensors = (rows, inner_weight, outer_weight, inner_bias, outer_bias, norm_weight, norm_bias)
    held = hold(tensors)
    if IN_CPP.why_not(held, (seed,)) is not None:
        return reference_blocks.feed_forward_block(
            hidden, inner_weight, inner_bias, outer_weight, outer_bias, norm_weight, norm_bias, eps, dropout_p, seed
        )
    seeds = dropout_seeds((dropout_p,), (seed,))
    out = IN_CPP(tensors, held, (), (eps, dropout_p, *seeds))[0]
    return out if rows is hidden else out.view_as(hidden)
