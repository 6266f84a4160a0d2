"""The first half of a layer: y = LayerNorm(hidden + dropout(attention(hidden) out' + c)).

    qkv = hidden W' + b;  attended = attention(qkv);  s = hidden + dropout(attended out' + c);  y = LayerNorm(s)
    ds, dx = backward of `norm`;  dattended = dx out;  dqkv = backward of `attention`;  dhidden = ds + dqkv W
    dout = dx' attended;  dW = dqkv' hidden;  db = sum of dqkv over the tokens;  dc = sum of dx over them

Shapes: hidden, attended, s, y, dx [T, H]; W [3H, H] and b [3H], of queries, keys and values; qkv [T, 3, A, D]; out
[H, H]; c [H].

Fused: nothing is read a second time for a sum. The gradients of both biases come from the kernels that hold dx and dqkv
in registers; the residual's gradient is what the last product adds to; one launch completes the gradients of all four
vectors. So the backward moves 13 T H elements beside those of `norm` and `attention`, where eager torch moves 19 T H.

Numerics: products accumulate in fp32, fp32 inputs without tf32.
"""

from torch import Tensor

from .attention import attention_fwd, attention_grads
from .launch import matmul
from .linear_norm import linear_norm_fwd
from .norm import dropout_add_norm_partial_bwd
from .partial_sums import sum_partials


def attention_block_fwd(
    hidden: Tensor, qkv_weight: Tensor, qkv_bias: Tensor, out_weight: Tensor, out_bias: Tensor, norm_weight: Tensor,
    norm_bias: Tensor, cu_seqlens: Tensor, attention_seed: Tensor | None, output_seed: Tensor | None, max_seqlen: int,
    n_heads: int, eps: float, attention_p: float, hidden_p: float, causal: bool, save: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Computes hidden [T, H] -> (y [T, H], qkv [T, 3, A, D], attended [T, A, D], lse, dropped, sum, mean, rstd).

    All but y are for the backward, and empty without `save`.
    """
    qkv = matmul(hidden, qkv_weight.T, qkv_bias).unflatten(1, (3, n_heads, hidden.shape[1] // n_heads))
    attended, lse, dropped = attention_fwd(qkv, cu_seqlens, max_seqlen, attention_seed, attention_p, causal, save)
    y, *saved = linear_norm_fwd(
        attended.flatten(1), out_weight, out_bias, hidden, norm_weight, norm_bias, output_seed, eps, hidden_p, save
    )
    if not save:
        qkv, attended = hidden.new_empty(0), hidden.new_empty(0)
    return y, qkv, attended, lse, dropped, *saved


def attention_block_bwd(
    dy: Tensor, hidden: Tensor, qkv_weight: Tensor, out_weight: Tensor, norm_weight: Tensor, cu_seqlens: Tensor,
    output_seed: Tensor | None, qkv: Tensor, attended: Tensor, lse: Tensor, dropped: Tensor, summed: Tensor,
    mean: Tensor, rstd: Tensor, max_seqlen: int, attention_p: float, hidden_p: float, causal: bool, wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes dy [T, H] -> gradients of hidden, of qkv_weight, of out_weight, and of all vectors as [6 H].

    `wanted` says of hidden, qkv_weight, qkv_bias and out_weight whether somebody wants the gradient; those of tensors
    that nobody wants are empty. The vectors are norm_weight, norm_bias, out_bias and qkv_bias, and without the last
    [3 H] where none of the first three is wanted.
    """
    wants_hidden, wants_qkv, _, wants_out = wanted
    dx, dhidden, sums_of_rows = dropout_add_norm_partial_bwd(dy, summed, mean, rstd, norm_weight, output_seed, hidden_p)
    dqkv, sums_of_dqkv = None, None
    if any(wanted[:3]):
        dattended = matmul(dx, out_weight).view(attended.shape)
        dqkv, sums_of_dqkv = attention_grads(
            dattended, qkv, attended, lse, dropped, cu_seqlens, max_seqlen, attention_p, causal
        )
        dqkv, sums_of_dqkv = dqkv.flatten(1), sums_of_dqkv.flatten(1)
    dout_weight = matmul(dx.T, attended.flatten(1)) if wants_out else dy.new_empty(0)
    dqkv_weight = matmul(dqkv.T, hidden) if wants_qkv else dy.new_empty(0)
    # In place, so after the others: without dropout dx is the same tensor.
    dhidden = matmul(dqkv, qkv_weight, dhidden, out=dhidden) if wants_hidden else dy.new_empty(0)
    return dhidden, dqkv_weight, dout_weight, sum_partials(norm_weight.dtype, sums_of_rows, sums_of_dqkv)
