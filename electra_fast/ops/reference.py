"""Every op in plain torch, one short function each: the oracle of the kernels, the fallback, and the documentation.

Shapes: T packed tokens, B sequences, H hidden size, E embedding size, F intermediate size, V vocabulary size, N masked
rows, A heads of size D. All functions are differentiable where it has meaning, and none writes into its inputs.
Random numbers of the sampling ops are arguments, so that a result can be repeated exactly. A dropout draws from torch's
generator or, with a `seed` [1] int64, the bits that the kernels draw from that seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from . import philox


# Activations are functions with names, not lambdas, so that a model can be pickled whatever its activation.
def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def gelu_10(x: Tensor) -> Tensor:
    return F.gelu(x).clamp(-10, 10)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


def identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_accurate": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_python_tanh": gelu_tanh,
    "gelu_10": gelu_10,
    "quick_gelu": quick_gelu,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "linear": identity,
    "mish": F.mish,
    "relu": F.relu,
    "relu2": relu_squared,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation_of(name: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function behind a config's `hidden_act`; raises ValueError for a name that is not known."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"the activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def is_erf_gelu(name: str | Callable[[Tensor], Tensor]) -> bool:
    """Tells whether a config's `hidden_act` is the erf-GELU by any name: fused kernels have no other activation."""
    return name is F.gelu or (isinstance(name, str) and ACTIVATIONS.get(name) is F.gelu)


def dropout(x: Tensor, p: float, seed: Tensor | None = None) -> Tensor:
    """Dropout of x [..., H]: zero with probability p, else x / (1 - p)."""
    if seed is None or p == 0:
        return F.dropout(x, p)
    rows = torch.arange(x[..., 0].numel(), device=x.device)
    keep = philox.keep_mask(seed, rows, x.shape[-1], p).view(x.shape)
    return torch.where(keep, x * philox.keep_scale(p), 0)


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

    Ids are [...] int64; `inputs_embeds [..., E]` takes the place of the word lookup. The word table's row `padding_idx`
    gets no gradient. Returns [..., E] or [..., H].
    """
    words = F.embedding(input_ids, word_table, padding_idx) if inputs_embeds is None else inputs_embeds
    x = words + F.embedding(token_type_ids, token_type_table) + F.embedding(position_ids, position_table)
    x = F.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, eps)
    x = dropout(x, dropout_p, seed)
    return x if project_weight is None else F.linear(x, project_weight, project_bias)


def attention(
    qkv: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    dropout_p: float = 0.0,
    causal: bool = False,
    seed: Tensor | None = None,
) -> Tensor:
    """Attention within each packed sequence: softmax(q k' / sqrt(D)) v.

    qkv: [T, 3, A, D], queries, keys and values of one GEMM; cu_seqlens: [B + 1] int32. Returns [T, A, D].
    """
    q, k, v = qkv.unbind(1)
    n_tokens, n_sequences = len(q), len(cu_seqlens) - 1
    if n_tokens == 0:
        return v
    is_seeded = seed is not None and dropout_p > 0
    if n_tokens == n_sequences * max_seqlen and not is_seeded:  # can be traced: it reads no lengths
        padded = [x.view(n_sequences, max_seqlen, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]
        out = F.scaled_dot_product_attention(*padded, dropout_p=dropout_p, is_causal=causal)
        return out.transpose(1, 2).flatten(0, 1)
    lengths, out, start = cu_seqlens.diff().tolist(), [], 0
    # Neighbours of the same length are attended at once: batches ordered by length have few lengths.
    runs = [(n, 1) for n in lengths] if is_seeded else [(n, len(list(run))) for n, run in groupby(lengths)]
    sizes = [n * n_rows for n, n_rows in runs]
    for (n, n_rows), *run in zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True):
        if n == 0:
            continue
        heads_first = [x.view(n_rows, n, *x.shape[1:]).transpose(1, 2) for x in run]
        if is_seeded:
            attended = _seeded_attention(*heads_first, start, dropout_p, causal, seed)
        else:
            attended = F.scaled_dot_product_attention(*heads_first, dropout_p=dropout_p, is_causal=causal)
        out.append(attended.transpose(1, 2).flatten(0, 1))
        start += n * n_rows
    return torch.cat(out)


def _seeded_attention(
    q: Tensor, k: Tensor, v: Tensor, start: int, dropout_p: float, causal: bool, seed: Tensor
) -> Tensor:
    """Attention within one sequence [1, A, S, D] that starts at token `start`.

    For dropout, the row of a probability is its query's token and the column is its key's place in the sequence.
    """
    n_heads, n = q.shape[1:3]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1), -math.inf)
    rows, heads = torch.arange(start, start + n, device=q.device), torch.arange(n_heads, device=q.device)
    keep = philox.keep_mask(seed, rows, n, dropout_p, heads)
    return torch.where(keep, scores.softmax(-1) * philox.keep_scale(dropout_p), 0) @ v


def padded_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float = 0.0) -> Tensor:
    """Attention over a padded batch with any mask, for calls that the packed form cannot express.

    q: [B, S, A, D]; k, v: [B, K, A, D]; mask: broadcastable to [B, A, S, K], boolean (True: attend) or floating
    (added to the scores). Returns [B, S, A, D].
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p).transpose(1, 2)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float = 0.0, head_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`padded_attention` and its probabilities [B, A, S, K] after dropout, multiplied by `head_mask`."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    if mask is not None and mask.dtype == torch.bool:
        # With the lowest number in place of -inf a row that sees nothing is uniform, as in transformers, and not NaN.
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, torch.finfo(scores.dtype).min)
    if mask is not None:
        scores = scores + mask
    probabilities = F.dropout(scores.softmax(-1), dropout_p)
    if head_mask is not None:
        probabilities = probabilities * head_mask
    return (probabilities @ v).transpose(1, 2), probabilities


def dropout_add_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """LayerNorm(residual + dropout(x)); all [..., H]."""
    return F.layer_norm(residual + dropout(x, dropout_p, seed), weight.shape, weight, bias, eps)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes erf-GELU(x weight' + bias): [..., H] -> [..., F]."""
    return linear_with(F.gelu, x, weight, bias)


def linear_with(activation: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear_gelu` with another activation."""
    return activation(F.linear(x, weight, bias))


def rtd_head(
    hidden: Tensor,
    dense_weight: Tensor,
    dense_bias: Tensor,
    prediction_weight: Tensor,
    prediction_bias: Tensor,
    labels: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """The replaced-token head: logit = gelu(hidden dense' + b) . prediction + c, and the mean binary cross-entropy.

    hidden: [..., H]; prediction_weight: [1, H]; labels: [...] bool or int, or None; above zero where the token was
    replaced, below zero where it does not count. Returns (loss, logits [...]); the loss is a scalar in fp32, the mean
    over the tokens that count, None without labels.
    """
    return rtd_head_with(F.gelu, hidden, dense_weight, dense_bias, prediction_weight, prediction_bias, labels)


def rtd_head_with(
    activation: Callable[[Tensor], Tensor],
    hidden: Tensor,
    dense_weight: Tensor,
    dense_bias: Tensor,
    prediction_weight: Tensor,
    prediction_bias: Tensor,
    labels: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """`rtd_head` with another activation."""
    gate = activation(F.linear(hidden, dense_weight, dense_bias))
    logits = F.linear(gate, prediction_weight, prediction_bias).squeeze(-1)
    return None if labels is None else rtd_loss(logits, labels), logits


def rtd_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean binary cross-entropy of the tokens that count; logits: [...]; labels as in `rtd_head`."""
    scores = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.binary_cross_entropy_with_logits(scores, (labels > 0).to(scores.dtype), reduction="none")
    counts = labels >= 0
    return (losses * counts).sum() / counts.sum()


def mlm_head(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    uniform: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    never_label: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vocabulary logits of the masked rows, their cross-entropy, and one exact sample per row.

    hidden: [N, E]; weight: [V, E]; bias: [V]; labels: [N] int64; uniform: [N] fp32 in [0, 1), one number per row, or
    None for no sample. A sample is drawn from softmax(logits / temperature) by inverting its cumulative sum;
    `never_label` leaves the true token out of it. A temperature that changes is a tensor [] on the device, which a CUDA
    graph reads at each replay. Returns (losses [N] fp32, is_correct [N] bool: no logit is above the label's, samples
    [N] int64 or None).
    """
    logits = F.linear(hidden, weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    is_correct = logits.gather(1, labels[:, None]).squeeze(1) >= logits.amax(-1)
    if uniform is None:
        return losses, is_correct, None
    with torch.no_grad():
        scores = logits / temperature
        if never_label:
            scores = scores.scatter(1, labels[:, None], -math.inf)
        cumulative = scores.softmax(-1).cumsum(-1)
        target = uniform[:, None].to(cumulative.dtype) * cumulative[:, -1:]
        samples = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=len(bias) - 1)
    return losses, is_correct, samples


def masked_mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values [N], fp32 or bool, that count, a scalar in fp32; 0 where none does. counts: [N] bool."""
    return values.masked_fill(~counts, 0).sum() / counts.sum().clamp(min=1)


def mask_tokens(
    input_ids: Tensor,
    cu_seqlens: Tensor,
    candidates: Tensor,
    uniform: Tensor,
    n_slots: int,
    mask_token_id: int,
    mask_prob: float = 0.15,
    mask_fraction: float = 0.85,
    replacement: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Chooses positions, writes [MASK] and records the targets, with shapes that do not depend on the draw.

    In a sequence of n tokens, max(1, round(mask_prob * n)) of its candidates are chosen (all, if there are fewer),
    without replacement unless asked. A chosen token becomes [MASK] with probability `mask_fraction`, otherwise it
    stays; it is predicted in both cases (google-research/electra, pretrain/pretrain_helpers.py).

    input_ids: [T] int64; candidates: [T] bool, the tokens that may be chosen; uniform: [2, T] fp32 in [0, 1). Returns
    (masked_ids [T], positions [n_slots] int64, labels [n_slots] int64, is_used [n_slots] bool). Unused slots come last,
    at position 0; if there are too few slots, the last sequences get none.
    """
    n_tokens, starts = len(input_ids), cu_seqlens[:-1].long()
    lengths = cu_seqlens.diff().long()
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=input_ids.device), lengths)
    n_candidates = torch.zeros_like(lengths).index_add_(0, sequence, candidates.long())
    n_chosen = (lengths * mask_prob).round().long().clamp(min=1).minimum(n_candidates)
    # Sequences keep their order; within each, candidates come first, in random order, and the first n_chosen are taken.
    order = uniform[0].masked_fill(~candidates, 2.0).argsort(stable=True)
    order = order[sequence[order].argsort(stable=True)]
    rank = torch.arange(n_tokens, device=input_ids.device) - starts[sequence]
    is_chosen = rank < n_chosen[sequence]
    if replacement:
        draw = (uniform[0] * n_candidates[sequence]).long().minimum(n_candidates[sequence] - 1).clamp(min=0)
        order = order[starts[sequence] + draw]
    chosen = order[is_chosen][:n_slots]
    positions = F.pad(chosen, (0, n_slots - len(chosen)))
    is_used = torch.arange(n_slots, device=input_ids.device) < len(chosen)
    written = chosen[uniform[1][chosen] < mask_fraction]
    masked_ids = input_ids.index_fill(0, written, mask_token_id)
    return masked_ids, positions, input_ids[positions], is_used


def place_samples(input_ids: Tensor, positions: Tensor, samples: Tensor, is_used: Tensor) -> tuple[Tensor, Tensor]:
    """Writes the generator's samples over the original ids.

    input_ids: [T] int64, the original text; positions, samples: [N] int64; is_used: [N] bool. The last of several
    samples for one position is taken. Returns (corrupted_ids [T], is_replaced [T] bool); a token that the generator
    guessed right counts as original.
    """
    slots = torch.arange(len(positions), device=positions.device).masked_fill(~is_used, -1)
    winner = torch.full_like(input_ids, -1).scatter_reduce(0, positions, slots, "amax")
    corrupted = torch.where(winner < 0, input_ids, samples[winner])
    return corrupted, corrupted != input_ids
