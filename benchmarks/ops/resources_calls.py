"""The calls of every op at the shapes of a network: resources.py compiles what they launch.

Tokens are few, for block sizes depend on widths and never on the number of tokens. Values are all zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...model.config import ElectraConfig
from ...ops.registry import OPS
from ...pretraining.recipes import preset
from .case import RATES

VOCAB_SIZE = 30522
LENGTHS = (64, 128, 512)  # tokens of a sequence

Calls = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Inputs:
    """Makes tensors for one network and dtype; floating ones ask for gradients."""

    config: ElectraConfig
    dtype: torch.dtype
    n_tokens: int

    @property
    def n_slots(self) -> int:
        return max(1, self.n_tokens // 8)

    @property
    def seed(self) -> Tensor:
        """A model draws all its seeds at once: most lie where addresses are no multiples of 16 bytes."""
        return torch.zeros(self.n_tokens, dtype=torch.int64)[-1:]

    def floats(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, requires_grad=True)

    def ids(self, n: int | None = None) -> Tensor:
        return torch.zeros(n or self.n_tokens, dtype=torch.int64)

    def cu_seqlens(self, length: int) -> Tensor:
        return torch.arange(0, self.n_tokens + 1, length, dtype=torch.int32)


def networks(size: str) -> dict[str, ElectraConfig]:
    """The two networks of a preset, with BERT's vocabulary."""
    recipe = preset(size)
    return {size: recipe.discriminator_config(VOCAB_SIZE), f"{size} gen.": recipe.generator_config(VOCAB_SIZE)}


def run(op: str, config: ElectraConfig, dtype: torch.dtype, n_tokens: int = 512) -> None:
    """Makes all calls of an op on its kernels: in training, with dropout and a backward, and in inference."""
    for kwargs in CALLS[op](Inputs(config, dtype, n_tokens)):
        out = OPS[op].triton(**kwargs)
        outs = [x for x in (out if isinstance(out, tuple) else (out,)) if x is not None and x.requires_grad]
        torch.autograd.backward(outs, [torch.ones_like(x) for x in outs])
        kwargs |= {name: 0.0 for name in RATES if name in kwargs}
        with torch.no_grad():
            OPS[op].triton(**kwargs)


def _embed_norm_project(inputs: Inputs) -> Calls:
    config = inputs.config
    e, h = config.embedding_size, config.hidden_size
    call = dict(
        input_ids=inputs.ids(),
        token_type_ids=inputs.ids(),
        position_ids=inputs.ids(),
        word_table=inputs.floats(config.vocab_size, e),
        position_table=inputs.floats(config.max_position_embeddings, e),
        token_type_table=inputs.floats(config.type_vocab_size, e),
        norm_weight=inputs.floats(e),
        norm_bias=inputs.floats(e),
        eps=config.layer_norm_eps,
        padding_idx=0,
        dropout_p=config.hidden_dropout_prob,
        seed=inputs.seed,
    )
    if e != h:
        call |= dict(project_weight=inputs.floats(h, e), project_bias=inputs.floats(h))
    yield call | dict(input_ids=None, inputs_embeds=inputs.floats(inputs.n_tokens, e))
    yield call


def _attention(inputs: Inputs) -> Calls:
    config = inputs.config
    for length, causal in product(LENGTHS, (False, True)):
        yield dict(
            qkv=inputs.floats(inputs.n_tokens, 3, config.num_attention_heads, config.head_size),
            cu_seqlens=inputs.cu_seqlens(length),
            max_seqlen=length,
            dropout_p=config.attention_probs_dropout_prob,
            causal=causal,
            seed=inputs.seed,
        )


def _attention_block(inputs: Inputs) -> Calls:
    config, h = inputs.config, inputs.config.hidden_size
    for length in LENGTHS:
        yield dict(
            hidden=inputs.floats(inputs.n_tokens, h),
            qkv_weights=[inputs.floats(h, h) for _ in range(3)],
            qkv_biases=[inputs.floats(h) for _ in range(3)],
            out_weight=inputs.floats(h, h),
            out_bias=inputs.floats(h),
            norm_weight=inputs.floats(h),
            norm_bias=inputs.floats(h),
            eps=config.layer_norm_eps,
            cu_seqlens=inputs.cu_seqlens(length),
            max_seqlen=length,
            n_heads=config.num_attention_heads,
            attention_p=config.attention_probs_dropout_prob,
            hidden_p=config.hidden_dropout_prob,
            attention_seed=inputs.seed,
            output_seed=inputs.seed,
        )


def _dropout_add_norm(inputs: Inputs) -> Calls:
    config, h = inputs.config, inputs.config.hidden_size
    rows, parameters = (inputs.floats(inputs.n_tokens, h) for _ in range(2)), (inputs.floats(h) for _ in range(2))
    call = dict(zip(("x", "residual", "weight", "bias"), (*rows, *parameters), strict=True))
    yield call | dict(eps=config.layer_norm_eps, dropout_p=config.hidden_dropout_prob, seed=inputs.seed)


def _linear_gelu(inputs: Inputs) -> Calls:
    h = inputs.config.hidden_size
    for width in (inputs.config.intermediate_size, inputs.config.embedding_size):  # a layer's, the generator head's
        yield dict(x=inputs.floats(inputs.n_tokens, h), weight=inputs.floats(width, h), bias=inputs.floats(width))


def _feed_forward_block(inputs: Inputs) -> Calls:
    config, h, f = inputs.config, inputs.config.hidden_size, inputs.config.intermediate_size
    yield dict(
        hidden=inputs.floats(inputs.n_tokens, h),
        inner_weight=inputs.floats(f, h),
        inner_bias=inputs.floats(f),
        outer_weight=inputs.floats(h, f),
        outer_bias=inputs.floats(h),
        norm_weight=inputs.floats(h),
        norm_bias=inputs.floats(h),
        eps=config.layer_norm_eps,
        dropout_p=config.hidden_dropout_prob,
        seed=inputs.seed,
    )


def _rtd_head(inputs: Inputs) -> Calls:
    h = inputs.config.hidden_size
    for labels in (torch.zeros(inputs.n_tokens, dtype=torch.bool), inputs.ids(), None):
        yield dict(
            hidden=inputs.floats(inputs.n_tokens, h),
            dense_weight=inputs.floats(h, h),
            dense_bias=inputs.floats(h),
            prediction_weight=inputs.floats(1, h),
            prediction_bias=inputs.floats(1),
            labels=labels,
        )


def _mlm_head(inputs: Inputs) -> Calls:
    e, v = inputs.config.embedding_size, inputs.config.vocab_size
    call = dict(hidden=inputs.floats(inputs.n_slots, e), weight=inputs.floats(v, e), bias=inputs.floats(v))
    call |= dict(labels=inputs.ids(inputs.n_slots))
    yield call
    yield call | dict(uniform=torch.zeros(inputs.n_slots))
    yield call | dict(uniform=torch.zeros(inputs.n_slots), temperature=2.0, never_label=True)


def _masked_mean(inputs: Inputs) -> Calls:
    counts = torch.ones(inputs.n_slots, dtype=torch.bool)
    yield dict(values=torch.zeros(inputs.n_slots, requires_grad=True), counts=counts)
    yield dict(values=counts, counts=counts)


def _mask_tokens(inputs: Inputs) -> Calls:
    for length, replacement in product(LENGTHS, (False, True)):
        yield dict(
            input_ids=inputs.ids(),
            cu_seqlens=inputs.cu_seqlens(length),
            candidates=torch.ones(inputs.n_tokens, dtype=torch.bool),
            uniform=torch.zeros(2, inputs.n_tokens),
            n_slots=inputs.n_slots,
            mask_token_id=103,
            replacement=replacement,
        )


def _place_samples(inputs: Inputs) -> Calls:
    slots = dict(positions=inputs.ids(inputs.n_slots), samples=inputs.ids(inputs.n_slots))
    yield dict(input_ids=inputs.ids(), is_used=torch.ones(inputs.n_slots, dtype=torch.bool)) | slots


def _some_tensors(inputs: Inputs, offset: int) -> list[Tensor]:
    """A matrix and a vector; with an offset their addresses are no multiples of 16 bytes."""
    h = inputs.config.hidden_size
    return [torch.zeros(h * h + offset, dtype=inputs.dtype)[offset:].view(h, h), torch.zeros(h, dtype=inputs.dtype)]


def _grad_norm(inputs: Inputs) -> Calls:
    for offset in (0, 1):
        yield dict(grads=_some_tensors(inputs, offset))


def _clip(inputs: Inputs) -> Calls:
    for max_norm, loss_scale in product((1.0, None), (torch.ones(()), None)):
        counts = [torch.zeros((), dtype=torch.int64) for _ in range(4)]
        yield dict(norm=torch.ones(()), counts=counts, max_norm=max_norm, loss_scale=loss_scale)


def _optimizer(inputs: Inputs) -> Calls:
    numbers = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01)
    on_device = dict(lr=torch.tensor(1e-3), step=torch.tensor(1), grad_scale=torch.tensor(1.0))
    for offset, more in product((0, 1), ({}, on_device)):
        params = _some_tensors(inputs, offset)
        masters = params if inputs.dtype == torch.float32 else [p.float() for p in params]
        lists = dict(params=params, masters=masters, grads=_some_tensors(inputs, offset))
        lists |= {name: [torch.zeros_like(p) for p in masters] for name in ("exp_avgs", "exp_avg_sqs")}
        yield lists | numbers | more


CALLS: dict[str, Callable[[Inputs], Calls]] = {
    "embed_norm_project": _embed_norm_project,
    "attention": _attention,
    "attention_block": _attention_block,
    "dropout_add_norm": _dropout_add_norm,
    "linear_gelu": _linear_gelu,
    "feed_forward_block": _feed_forward_block,
    "rtd_head": _rtd_head,
    "mlm_head": _mlm_head,
    "masked_mean": _masked_mean,
    "mask_tokens": _mask_tokens,
    "place_samples": _place_samples,
    "grad_norm": _grad_norm,
    "clip": _clip,
    "adamw": _optimizer,
    "lamb": _optimizer,
}
