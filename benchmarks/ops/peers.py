"""The best public kernels that ops are timed beside, each with the signature of the op's reference."""

from __future__ import annotations

from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.adamw import adamw

from .case import Provider


def attention_peers() -> tuple[Provider, ...]:
    """The peers of `attention` that this torch has."""
    flash = Provider("sdpa flash", flash_sdpa)
    if not find_spec("torch.nn.attention.varlen"):
        return (flash,)
    return flash, Provider("varlen_attn, dropout 0", varlen, has_dropout=False)


def adamw_peers() -> tuple[Provider, ...]:
    """The peers of `adamw`."""
    return (Provider("AdamW fused", FusedAdamW(), is_fp32=True),)


def flash_sdpa(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float = 0.0) -> Tensor:
    """torch's flash attention on a batch whose sequences all have `max_seqlen` tokens."""
    q, k, v = (x.unflatten(0, (-1, max_seqlen)).transpose(1, 2) for x in qkv.unbind(1))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    return out.transpose(1, 2).flatten(0, 1)


def varlen(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float) -> Tensor:
    """torch's flash attention on packed sequences, without dropout, which it does not have."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(*qkv.unbind(1), cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)


class FusedAdamW:
    """torch.optim.AdamW(fused=True) on the masters, with its steps counted on the device."""

    def __init__(self) -> None:
        self.steps: Tensor | None = None

    def __call__(
        self, params, masters, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step, grad_scale
    ) -> None:
        if self.steps is None or len(self.steps) != len(masters):
            self.steps = torch.empty(len(masters), device=masters[0].device)
        adamw(
            masters,
            grads,
            exp_avgs,
            exp_avg_sqs,
            max_exp_avg_sqs=[],
            state_steps=list(self.steps.fill_(step - 1).unbind()),
            fused=True,
            capturable=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
        )
