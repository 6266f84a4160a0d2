"""`attn_implementation="electra_fast"`: our packed attention in any transformers model that uses its interface.

The mask that the models hand to every layer is a PackedBatch, made once per forward, as flex_attention's is a
BlockMask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, bidirectional_mask_function, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .. import ops
from ..model.arguments import packed_already
from ..model.packing import PackedBatch

NAME = "electra_fast"

# Keywords of other attentions that would change the result.
_REFUSED = ("head_mask", "position_bias", "sliding_window", "softcap", "s_aux")


def register() -> None:
    """Makes the name known to transformers; calling it again is harmless. Models that do not ask for it stay as is."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, packed_mask)


def packed_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Any = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: Any = None,
    **_: Any,
) -> PackedBatch | None:
    """The real tokens of a 2-D mask [B, S], None where there is no padding; the signature is transformers'.

    Raises ValueError for anything but attention to all tokens or to the earlier ones.
    """
    if mask_function not in (bidirectional_mask_function, causal_mask_function):
        name = getattr(mask_function, "__qualname__", mask_function)
        raise ValueError(f"attn_implementation={NAME!r} serves full and causal attention, got the mask {name}")
    if attention_mask is None:
        return None
    if attention_mask.shape != (batch_size, q_length) or kv_length != q_length:
        raise ValueError(
            f"attn_implementation={NAME!r} serves no caches and no cross-attention: expected a mask "
            f"{[batch_size, q_length]}, got {list(attention_mask.shape)} for {kv_length} keys"
        )
    return PackedBatch.from_mask(attention_mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PackedBatch | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Computes softmax(scaling q k') v over real tokens, with dropout; the signature is transformers'.

    query, key, value: [B, A, S, D]. Returns ([B, S, A, D], None), with zeros at padding. Sequences that are packed into
    one row, by `cu_seq_lens_q` and `max_length_q` or by `position_ids` that start again, are attended one by one.

    Raises:
        ValueError: masks of 4 dimensions, key-value caches, cross-attention, grouped queries, and keywords that
            change the scores.
    """
    given = [name for name in _REFUSED if options.get(name) is not None]
    if given:
        raise ValueError(f"attn_implementation={NAME!r} does not serve {', '.join(given)}; use 'sdpa' or 'eager'")
    if not query.shape == key.shape == value.shape:
        shapes = " and ".join(str(list(x.shape)) for x in (query, key, value))
        raise ValueError(
            f"attn_implementation={NAME!r} serves no caches, no cross-attention and no grouped queries: expected "
            f"queries, keys and values of one shape, got {shapes}"
        )
    if not isinstance(attention_mask, PackedBatch | None):
        raise ValueError(
            f"attn_implementation={NAME!r} takes attention masks [batch, length], got one of "
            f"{list(attention_mask.shape)}; use 'sdpa' or 'eager'"
        )
    batch_size, _, length, head_size = query.shape
    packed = packed_already((batch_size, length), attention_mask, options.get("position_ids"), options)
    packed = packed or attention_mask or PackedBatch.full(batch_size, length, query.device)
    if scaling is not None and scaling != head_size**-0.5:
        query = query * (scaling * head_size**0.5)
    qkv = packed.pack(torch.stack([x.transpose(1, 2) for x in (query, key, value)], dim=2))  # [T, 3, A, D]
    bound = ops.select("auto", head_size)
    seed = bound.draw_seeds(1, query.device) if dropout > 0 else None
    is_causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    attended = bound.attention(qkv, packed.cu_seqlens, packed.max_seqlen, dropout, is_causal, seed)
    return packed.unpack(attended), None
