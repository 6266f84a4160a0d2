"""The op `embed_norm_project` in C++ (csrc/cpu) but for its product; what C++ cannot serve goes to the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...processor import fastest_allowed
from .. import cpu, reference
from .cpu_library import (
    CpuOp,
    Shapes,
    addresses,
    dropout_seeds,
    hold,
    room_for_gradients,
    threshold,
    wanted_only,
)
from .library import run_by

_NAMES = ("the word table", "the position table", "the token type table")
_NAMES += ("the LayerNorm's weight", "the LayerNorm's bias")


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    width = tensors[0].shape[-1]
    return *((table.shape[0], width) for table in tensors[:3]), (width,), (width,)


def _room(words: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    return cpu.room(words, len(input_ids), words.shape[1]), words.new_empty(2, len(input_ids))


def _described(words, parameters, input_ids, token_type_ids, position_ids, eps, dropout_p, padding_idx, seed):
    """A call's arguments as both functions of C++ begin with them; tables in their order: words, types, positions."""
    positions, types, *norm = parameters
    tables = words, types, positions
    return (
        (len(input_ids), words.shape[1]),
        addresses(tables),
        [len(table) for table in tables],
        addresses((input_ids, token_type_ids, position_ids)),
        addresses(norm),
        eps,
        (threshold(dropout_p), seed),
    )


def _launch_forward(words, parameters, *call):
    cpu.share_threads()
    call = call[:-1]  # statistics are few, so they are made whether a backward follows or not
    out, statistics = _room(words, call[0])
    cpu.extension.embedding_forward(
        *_described(words, parameters, *call),
        out.data_ptr(),
        statistics.data_ptr(),
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return out, statistics


@run_by(
    _launch_forward,
    "embed_norm_cpu_fwd(Tensor words, Tensor[] parameters, Tensor input_ids, Tensor token_type_ids, "
    "Tensor position_ids, float eps, float dropout_p, int padding_idx, int seed, bool save) -> (Tensor, Tensor)",
)
def embed_norm_cpu_fwd(words, parameters, input_ids, *call):
    return _room(words, input_ids)


def _launch_backward(dout, statistics, words, parameters, *call):
    cpu.share_threads()
    *call, wanted = call
    grads = room_for_gradients((words, *parameters), wanted)
    of_words, of_positions, of_types, *of_norm = addresses(grads)
    cpu.extension.embedding_backward(
        *_described(words, parameters, *call),
        dout.data_ptr(),
        statistics.data_ptr(),
        (of_words, of_types, of_positions),
        of_norm,
        call[-2],
        torch.get_num_threads(),
        fastest_allowed(),
    )
    return wanted_only(grads)


@run_by(
    _launch_backward,
    "embed_norm_cpu_bwd(Tensor dout, Tensor statistics, Tensor words, Tensor[] parameters, Tensor input_ids, "
    "Tensor token_type_ids, Tensor position_ids, float eps, float dropout_p, int padding_idx, int seed, "
    "bool[] wanted) -> Tensor[]",
)
def embed_norm_cpu_bwd(dout, statistics, words, parameters, *call):
    return wanted_only(room_for_gradients((words, *parameters), call[-1]))


def _reference(tensors, others, options):
    words, positions, types, *norm = tensors
    eps, dropout_p, padding_idx, seed = options
    padding_idx, seed = None if padding_idx < 0 else padding_idx, torch.tensor([seed])
    return reference.embed_norm_project(
        *others, words, positions, types, *norm, eps, padding_idx=padding_idx, dropout_p=dropout_p, seed=seed
    )


IN_CPP = CpuOp(embed_norm_cpu_fwd, embed_norm_cpu_bwd, (_launch_forward, _launch_backward), _reference, _NAMES, _shapes)


def embed_norm_project(
    input_ids: Tensor | None,
    token_type_ids: Tensor,
    position_ids: Tensor,
    word_table: Tensor,
    position_table: Tensor,
    token_type_table: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    project_weight: Tensor | None = None,
    project_bias: Tensor | None = None,
    inputs_embeds: Tensor | None = None,
    padding_idx: int | None = None,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """`reference.embed_norm_project`; the product is torch's.

    Raises:
        IndexError: an id that is not in its table.
        ValueError: a rate of dropout that is none.
    """
    tensors = word_table, position_table, token_type_table, norm_weight, norm_bias
    ids = input_ids, token_type_ids, position_ids
    held = hold(tensors)
    if (
        inputs_embeds is not None
        or IN_CPP.why_not(held, (*ids, seed)) is not None
        or any(x.dtype != torch.int64 or x.shape != input_ids.shape for x in ids)
    ):
        return reference.embed_norm_project(
            *ids, *tensors, eps, project_weight, project_bias, inputs_embeds, padding_idx, dropout_p, seed
        )
    flat = [x.contiguous().flatten() for x in ids]
    (seed,) = dropout_seeds((dropout_p,), (seed,))
    # As in torch, a negative index counts from the end.
    padding = -1 if padding_idx is None else padding_idx % len(word_table)
    (embedded,) = IN_CPP(tensors, held, flat, (eps, dropout_p, padding, seed))
    embedded = embedded.view(*input_ids.shape, word_table.shape[1])
    return embedded if project_weight is None else F.linear(embedded, project_weight, project_bias)
