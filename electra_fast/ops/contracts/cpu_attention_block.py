"""The op `attention_block` in C++ (csrc/cpu), forward and backward; what C++ cannot serve goes to the reference."""

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
    threshold,
    wanted_only,
)
from .library import run_by

_NAMES = ("hidden", *(f"the {part}'s weight" for part in ("query", "key", "value", "output")))
_NAMES += tuple(f"the {part}'s bias" for part in ("query", "key", "value", "output"))
_NAMES += ("the LayerNorm's weight", "the LayerNorm's bias")


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    n_tokens, width = tensors[0].shape if tensors[0].dim() == 2 else (-1, -1)
    return (n_tokens, width), *[(width, width)] * 4, *[(width,)] * 6


def _room(hidden: Tensor, read: Tensor | None, n_heads: int, save: bool) -> tuple[Tensor, Tensor]:
    n_tokens, width = hidden.shape
    n_rows = n_tokens if read is None else len(read)
    out = cpu.room(hidden, n_rows, width)
    if not save:
        return out, hidden.new_empty(0)
    of_token, of_row = functions_for(hidden).attention_block_saved(width, n_heads, fastest_allowed())
    return out, cpu.room(hidden, (n_tokens + 1) * of_token + (n_rows + 1) * of_row)


def _described(hidden, parameters, cu_seqlens, read, n_heads, eps, attention_p, hidden_p, causal, seeds):
    """A call's arguments as both functions of C++ begin with them."""
    places = addresses(parameters)
    return (
        (*hidden.shape, n_heads),
        cu_seqlens.tolist(),
        causal,
        hidden.data_ptr(),
        places[:4],
        places[4:8],
        places[8:],
        eps,
        ((threshold(attention_p), seeds[0]), (threshold(hidden_p), seeds[1])),
        None if read is None else read.tolist(),
    )


def _launch_forward(hidden, parameters, *call):
    cpu.share_threads()
    *call, save = call
    out, saved = _room(hidden, *call[1:3], save)
    functions_for(hidden).attention_block_forward(
        *_described(hidden, parameters, *call),
        out.data_ptr(),
        saved.data_ptr(),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return out, saved


@run_by(
    _launch_forward,
    "attention_block_cpu_fwd(Tensor hidden, Tensor[] parameters, Tensor cu_seqlens, Tensor? read, int n_heads, "
    "float eps, float attention_p, float hidden_p, bool causal, int[] seeds, bool save) -> (Tensor, Tensor)",
)
def attention_block_cpu_fwd(hidden, parameters, cu_seqlens, read, n_heads, *options):
    return _room(hidden, read, n_heads, options[-1])


def _launch_backward(dout, saved, hidden, parameters, *call):
    cpu.share_threads()
    *call, wanted = call
    grads = room_for_gradients((hidden, *parameters), wanted)
    places = addresses(grads)
    functions_for(hidden).attention_block_backward(
        *_described(hidden, parameters, *call),
        dout.data_ptr(),
        saved.data_ptr(),
        places[0],
        places[1:5],
        places[5:9],
        places[9:],
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "attention_block_cpu_bwd(Tensor dout, Tensor saved, Tensor hidden, Tensor[] parameters, Tensor cu_seqlens, "
    "Tensor? read, int n_heads, float eps, float attention_p, float hidden_p, bool causal, int[] seeds, bool[] wanted) "
    "-> Tensor[]",
)
def attention_block_cpu_bwd(dout, saved, hidden, parameters, *call):
    return wanted_only(room_for_gradients((hidden, *parameters), call[-1]))


def _reference(tensors, others, options):
    hidden, weights, biases, norm = tensors[0], tensors[1:5], tensors[5:9], tensors[9:]
    (cu_seqlens, read), (n_heads, eps, *rest, seeds) = others, options
    seeds = [torch.tensor([seed]) for seed in seeds]
    longest = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0
    return reference_blocks.attention_block(
        hidden, weights[:3], biases[:3], weights[3], biases[3], *norm, eps, cu_seqlens, longest, n_heads, *rest, *seeds,
        read,
    )  # fmt: skip


IN_CPP = CpuOp(
    attention_block_cpu_fwd,
    attention_block_cpu_bwd,
    (_launch_forward, _launch_backward),
    _reference,
    _NAMES,
    _shapes,
    has_bf16=True,
)


def attention_block(
    hidden: Tensor,
    qkv_weights: Sequence[Tensor],
    qkv_biases: Sequence[Tensor],
    out_weight: Tensor,
    out_bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    cu_seqlens: Tensor,
    max_seqlen: int,
    n_heads: int,
    attention_p: float = 0.0,
    hidden_p: float = 0.0,
    causal: bool = False,
    attention_seed: Tensor | None = None,
    output_seed: Tensor | None = None,
    read: Tensor | None = None,
) -> Tensor:
    """LayerNorm(hidden + dropout(attention(hidden) out' + b)); hidden: [T, H].

    Raises:
        IndexError: a token to read that is none.
        ValueError: a rate of dropout that is none, heads that do not divide the width, or a `cu_seqlens` that does not
            mark sequences.
    """
    tensors = (hidden, *qkv_weights, out_weight, *qkv_biases, out_bias, norm_weight, norm_bias)
    held = hold(tensors)
    if IN_CPP.why_not(held, (cu_seqlens, attention_seed, output_seed, read)) is not None:
        return reference_blocks.attention_block(
            hidden, qkv_weights, qkv_biases, out_weight, out_bias, norm_weight, norm_bias, eps, cu_seqlens, max_seqlen,
            n_heads, attention_p, hidden_p, causal, attention_seed, output_seed, read,
        )  # fmt: skip
    seeds = dropout_seeds((attention_p, hidden_p), (attention_seed, output_seed))
    return IN_CPP(tensors, held, (cu_seqlens, read), (n_heads, eps, attention_p, hidden_p, causal, seeds))[0]
