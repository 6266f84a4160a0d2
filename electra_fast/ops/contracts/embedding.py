"""The op `embed_norm_project` on the kernels of `electra_fast.kernels.embedding`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .library import define, dropout_seed, needs_grad, on_device, operands


@define(
    "embed_norm_project_fwd(Tensor? ids, Tensor types, Tensor positions, Tensor words, Tensor position_table, "
    "Tensor type_table, Tensor weight, Tensor bias, Tensor? project_weight, Tensor? project_bias, Tensor? seed, "
    "float eps, float dropout_p, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
    module="embedding",
)
def embed_norm_project_fwd(
    ids, types, positions, words, position_table, type_table, weight, bias, project_weight, project_bias, seed, eps,
    dropout_p, save,
):  # fmt: skip
    (n_tokens,), projects = types.shape, project_weight is not None
    statistics = words.new_empty(n_tokens if save else 0, dtype=torch.float32)
    rows = words.new_empty((n_tokens, words.shape[1]))
    nothing = words.new_empty(0)
    out = words.new_empty((n_tokens, project_weight.shape[0])) if projects else torch.empty_like(rows)
    return out, rows if projects and save else nothing, statistics, torch.empty_like(statistics)


@define(
    "embed_norm_project_bwd(Tensor dout, Tensor? ids, Tensor types, Tensor positions, Tensor words, "
    "Tensor position_table, Tensor type_table, Tensor weight, Tensor? project_weight, Tensor rows, Tensor mean, "
    "Tensor rstd, Tensor? seed, float dropout_p, int padding_idx) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    module="embedding",
)
def embed_norm_project_bwd(
    dout, ids, types, positions, words, position_table, type_table, weight, project_weight, rows, mean, rstd, seed,
    dropout_p, padding_idx,
):  # fmt: skip
    n_rows, e = position_table.shape[0] + type_table.shape[0], words.shape[1]
    if ids is None:
        dtables, dwords = words.new_empty((n_rows, e)), torch.empty_like(words)
    else:
        dtables, dwords = words.new_empty((n_rows + words.shape[0], e)), words.new_empty(0)
    shapes = ((0,), (0,)) if project_weight is None else (project_weight.shape, project_weight.shape[:1])
    return dtables, dwords, words.new_empty((2, e)), *(words.new_empty(shape) for shape in shapes)


class _EmbedNormProject(Function):
    @staticmethod
    def forward(ctx: Any, *args):
        out, rows, mean, rstd = embed_norm_project_fwd(*args[:-1], True)
        *operands, _bias, project_weight, _project_bias, seed, _eps, ctx.dropout_p, ctx.padding_idx = args
        ctx.save_for_backward(*operands, project_weight, rows, mean, rstd, seed)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout):
        ids, _, _, _, position_table, type_table, _, project_weight, *_ = ctx.saved_tensors
        dtables, dwords, (dweight, dbias), dproject_weight, dproject_bias = embed_norm_project_bwd(
            dout.contiguous(), *ctx.saved_tensors, ctx.dropout_p, ctx.padding_idx
        )
        n_positions, n_types = len(position_table), len(type_table)
        dpositions, dtypes, dids = dtables.tensor_split([n_positions, n_positions + n_types])
        if ids is not None:
            dwords = dids
        dproject = (None, None) if project_weight is None else (dproject_weight, dproject_bias)
        return None, None, None, dwords, dpositions, dtypes, dweight, dbias, *dproject, *(None,) * 4


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
    """dropout(LayerNorm(word[ids] + type[types] + position[positions])), projected E -> H where a projection is given.

    Ids are [...] int32 or int64; `inputs_embeds [..., E]` takes the place of the word lookup. The word table's row
    `padding_idx` gets no gradient. Returns [..., E] or [..., H].
    """
    op, e = "embed_norm_project", word_table.shape[1]
    *tables_and_norm, project_weight, project_bias, inputs_embeds = operands(
        op,
        word_table=word_table,
        position_table=position_table,
        token_type_table=token_type_table,
        norm_weight=norm_weight,
        norm_bias=norm_bias,
        project_weight=project_weight,
        project_bias=project_bias,
        inputs_embeds=inputs_embeds,
    )
    if inputs_embeds is not None:
        input_ids, shape = None, inputs_embeds.shape[:-1]
        tables_and_norm[0] = inputs_embeds.reshape(-1, e)
    else:
        shape = input_ids.shape
    indices = {"input_ids": input_ids, "token_type_ids": token_type_ids, "position_ids": position_ids}
    for name, ids in indices.items():
        if ids is not None:
            on_device(op, name, ids, word_table.device)
            indices[name] = ids.expand(shape).reshape(-1).contiguous()
    tensors = [None if x is None else x.contiguous() for x in (*tables_and_norm, project_weight, project_bias)]
    args = (*indices.values(), *tensors, dropout_seed(dropout_p, seed, word_table.device), eps, dropout_p)
    if needs_grad(*tensors):
        out = _EmbedNormProject.apply(*args, -1 if padding_idx is None else padding_idx % len(word_table))
    else:
        out = embed_norm_project_fwd(*args, False)[0]
    return out.view(*shape, out.shape[-1])
