"""The cases of `electra-fast bench ops`: inputs of every op at the shapes of a network, and the least work of the op.

The least work is counted by hand. Bytes: every input is read once and every result written once, in the forward and
again in the backward. What the backward cannot compute again from inputs and results alone is written and read once.
Operations: those of products of matrices, 2 for each multiplication and addition. Computing again is not counted but
for attention's scores, which nobody stores. So both are bounds, each for itself, and no program need reach both.

Shapes are the letters of `electra_fast.ops.reference`. Costs are in elements times `s`, the bytes of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...model.config import ElectraConfig
from ...model.modeling import ElectraForPreTraining
from ...pretraining.recipes import preset
from .case import BOTH, FORWARD, UPDATE, AttentionBlockCase, Case, Cost, Key, ListCase, MlmHeadCase
from .peers import adamw_peers, attention_peers

VOCAB_SIZE = 30522
LENGTHS = (128, 512)
DROPOUT, MASK_PROB = 0.1, 0.15
MASK_ID, FIRST_WORD_ID = 103, 1000
SIZELESS = ("mask_tokens", "place_samples", "clip")  # read nothing of a network
BY_LENGTH = ("attention", "attention_block", "mask_tokens")
LISTS = ("grad_norm", "adamw", "lamb")  # take lists of tensors


def case_keys(
    ops: tuple[str, ...], sizes: tuple[str, ...], tokens: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Key]:
    """The keys of all cases, size by size."""
    for size in sizes:
        for op in ops:
            if op in SIZELESS and size != sizes[0]:
                continue
            lengths = sorted({min(n, tokens) for n in LENGTHS}) if op in BY_LENGTH else [None]
            for length in lengths:
                n_tokens = tokens if length is None else tokens // length * length
                yield Key(op, None if op in SIZELESS else size, length, n_tokens, dtype, device)


def make_case(key: Key) -> Case:
    """The case with its inputs, the same ones in every process."""
    torch.manual_seed(0)
    config = preset(key.size or "base").discriminator_config(VOCAB_SIZE)
    return _MAKERS[key.op](key, config)


def _randn(key: Key, *shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, device=key.device)).to(key.dtype)


def _matrix(key: Key, n_out: int, n_in: int) -> Tensor:
    return _randn(key, n_out, n_in, scale=n_in**-0.5)


def _norm(key: Key, n: int) -> tuple[Tensor, Tensor]:
    return 1 + _randn(key, n, scale=0.1), _randn(key, n, scale=0.1)


def _word_ids(key: Key, n: int) -> Tensor:
    """Frequent and rare words as texts have them: the number of a word is log-uniform, its frequency 1 / number."""
    n_words = VOCAB_SIZE - FIRST_WORD_ID
    ranks = (n_words ** torch.rand(n, device=key.device)).long().clamp(max=n_words) - 1
    return FIRST_WORD_ID + torch.randperm(n_words, device=key.device)[ranks]


def _seed(key: Key) -> Tensor:
    return torch.tensor([20261121], device=key.device)


def _cu_seqlens(key: Key) -> Tensor:
    return torch.arange(0, key.tokens + 1, key.length, dtype=torch.int32, device=key.device)


def _n_masked(key: Key) -> int:
    return max(1, round(MASK_PROB * key.tokens))


def _embed_norm_project(key: Key, config: ElectraConfig) -> Case:
    e, h, v, t = config.embedding_size, config.hidden_size, config.vocab_size, key.tokens
    n_positions, n_types = config.max_position_embeddings, config.type_vocab_size
    ids = _word_ids(key, t)
    positions = torch.arange(t, device=key.device) % n_positions
    weight, bias = _norm(key, e)
    tensors = {
        "word_table": _randn(key, v, e),
        "position_table": _randn(key, n_positions, e),
        "token_type_table": _randn(key, n_types, e),
        "norm_weight": weight,
        "norm_bias": bias,
    }
    if e != h:
        tensors |= {"project_weight": _matrix(key, h, e), "project_bias": _randn(key, h)}
    options = {
        "input_ids": ids,
        "token_type_ids": torch.zeros_like(ids),
        "position_ids": positions,
        "eps": config.layer_norm_eps,
        "padding_idx": config.pad_token_id,
        "dropout_p": DROPOUT,
    }
    s = key.dtype.itemsize
    rows = (ids.unique().numel() + min(t, n_positions) + n_types) * e * s + 3 * 8 * t  # the rows that are read, and ids
    parameters = (2 * e + (h * e + h if e != h else 0)) * s
    product = 2 * t * e * h if e != h else 0
    forward = rows + parameters + t * h * s
    # The backward reads the same again, the gradient of the result, and writes those of whole tables.
    backward = forward + parameters + (v + n_positions + n_types) * e * s
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + backward, 3 * product)}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)})


def _attention(key: Key, config: ElectraConfig) -> Case:
    a, d, t, n = config.num_attention_heads, config.head_size, key.tokens, key.length
    options = {"cu_seqlens": _cu_seqlens(key), "max_seqlen": n, "dropout_p": DROPOUT}
    element, product = t * a * d * key.dtype.itemsize, 2 * t * n * a * d
    # The backward reads q, k, v, the result, its gradient and a number a row, and writes three gradients; it computes
    # the scores again, as nobody stores them, and four further products.
    costs = {
        FORWARD: Cost(4 * element, 2 * product),
        BOTH: Cost((4 + 8) * element + 2 * 4 * t * a, (2 + 5) * product),
    }
    tensors = {"qkv": _randn(key, t, 3, a, d)}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)}, peers=attention_peers())


def _attention_block(key: Key, config: ElectraConfig) -> Case:
    a, h, t, n = config.num_attention_heads, config.hidden_size, key.tokens, key.length
    tensors = {"hidden": _randn(key, t, h), "qkv_weight": _matrix(key, 3 * h, h), "qkv_bias": _randn(key, 3 * h)}
    tensors |= {"out_weight": _matrix(key, h, h), "out_bias": _randn(key, h)}
    tensors |= dict(zip(("norm_weight", "norm_bias"), _norm(key, h), strict=True))
    s, products, scores = key.dtype.itemsize, 2 * t * 4 * h * h, 2 * t * n * h
    element, parameters = t * h * s, (4 * h * h + 6 * h) * s
    # The backward reads the input, the result's gradient, and what was stored: queries, keys, values, attention's
    # result, the sum before the norm, and a number a row for each head and two for the norm.
    both = (2 + 2 * 5 + 3) * element + 3 * parameters + 2 * 4 * t * (a + 2)
    costs = {FORWARD: Cost(2 * element + parameters, products + 2 * scores)}
    costs[BOTH] = Cost(both, 3 * products + (2 + 5) * scores)
    options = {"cu_seqlens": _cu_seqlens(key), "max_seqlen": n, "n_heads": a, "eps": config.layer_norm_eps}
    options |= {"attention_p": DROPOUT, "hidden_p": DROPOUT}
    on_device = {"attention_seed": _seed(key), "output_seed": _seed(key)}
    return AttentionBlockCase(key, tensors, options, costs, on_device=on_device)


def _dropout_add_norm(key: Key, config: ElectraConfig) -> Case:
    h, t = config.hidden_size, key.tokens
    weight, bias = _norm(key, h)
    tensors = {"x": _randn(key, t, h), "residual": _randn(key, t, h), "weight": weight, "bias": bias}
    rows, parameters = t * h * key.dtype.itemsize, 2 * h * key.dtype.itemsize
    # The backward needs the sum, and mean and deviation of each row in fp32.
    both = (3 + 1 + 4) * rows + 3 * parameters + 2 * 2 * 4 * t
    costs = {FORWARD: Cost(3 * rows + parameters), BOTH: Cost(both)}
    options = {"eps": config.layer_norm_eps, "dropout_p": DROPOUT}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)})


def _linear_gelu(key: Key, config: ElectraConfig) -> Case:
    h, f, t, s = config.hidden_size, config.intermediate_size, key.tokens, key.dtype.itemsize
    tensors = {"x": _randn(key, t, h), "weight": _matrix(key, f, h), "bias": _randn(key, f)}
    parameters, product = (f * h + f) * s, 2 * t * f * h
    forward = (t * h + t * f) * s + parameters
    # The backward also needs the input of the GELU.
    backward = (2 * t * f + 2 * t * h) * s + 2 * parameters
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + t * f * s + backward, 3 * product)}
    return Case(key, tensors, {}, costs)


def _feed_forward_block(key: Key, config: ElectraConfig) -> Case:
    h, f, t, s = config.hidden_size, config.intermediate_size, key.tokens, key.dtype.itemsize
    norm_weight, norm_bias = _norm(key, h)
    tensors = {
        "hidden": _randn(key, t, h),
        "inner_weight": _matrix(key, f, h),
        "inner_bias": _randn(key, f),
        "outer_weight": _matrix(key, h, f),
        "outer_bias": _randn(key, h),
        "norm_weight": norm_weight,
        "norm_bias": norm_bias,
    }
    rows, parameters, product = t * h * s, (2 * f * h + f + 3 * h) * s, 2 * 2 * t * f * h
    forward = 2 * rows + parameters
    # The backward needs both inputs of nonlinear functions, and mean and deviation of each row in fp32. It reads these,
    # hidden and the gradient of the result, and writes that of hidden.
    kept = t * f * s + rows + 2 * 4 * t
    backward = kept + 3 * rows + 2 * parameters
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + kept + backward, 3 * product)}
    options = {"eps": config.layer_norm_eps, "dropout_p": DROPOUT}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)})


def _rtd_head(key: Key, config: ElectraConfig) -> Case:
    h, t, s = config.hidden_size, key.tokens, key.dtype.itemsize
    tensors = {
        "hidden": _randn(key, t, h),
        "dense_weight": _matrix(key, h, h),
        "dense_bias": _randn(key, h),
        "prediction_weight": _matrix(key, 1, h),
        "prediction_bias": _randn(key, 1),
    }
    labels = torch.rand(t, device=key.device) < MASK_PROB / 2
    parameters, product = (h * h + 2 * h + 1) * s, 2 * t * h * h + 2 * t * h
    forward = t * h * s + t * s + t + 4 + parameters  # hidden, logits, labels, loss
    # The backward also needs the input of the GELU. It reads that, hidden, logits and labels.
    backward = 3 * t * h * s + t * s + t + 2 * parameters
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + t * h * s + backward, 3 * product)}
    return Case(key, tensors, {"labels": labels}, costs)


def _mlm_head(key: Key, config: ElectraConfig) -> Case:
    e, v, n, s = config.embedding_size, config.vocab_size, _n_masked(key), key.dtype.itemsize
    tensors = {"hidden": _randn(key, n, e), "weight": _matrix(key, v, e), "bias": _randn(key, v)}
    options = {"labels": _word_ids(key, n), "uniform": torch.rand(n, device=key.device)}
    read, product = (n * e + v * e + v) * s, 2 * n * e * v
    forward = read + (8 + 4 + 4 + 1 + 8) * n  # labels, uniform, losses, is_correct, samples
    # Logits are never stored: the backward reads the same again, labels, losses' gradients and a number a row.
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + 2 * read + (8 + 4 + 2 * 4) * n, 3 * product)}
    return MlmHeadCase(key, tensors, options, costs)


def _masked_mean(key: Key, config: ElectraConfig) -> Case:
    n = _n_masked(key)
    options = {"counts": torch.arange(n, device=key.device) < n - n // 50}
    costs = {FORWARD: Cost((4 + 1) * n), BOTH: Cost((4 + 1 + 1 + 4) * n)}
    return Case(key, {"values": torch.rand(n, device=key.device)}, options, costs)


def _mask_tokens(key: Key, config: ElectraConfig) -> Case:
    t, cu_seqlens = key.tokens, _cu_seqlens(key)
    n_slots = int(MASK_PROB * t) + len(cu_seqlens) - 1
    candidates = torch.ones(t, dtype=torch.bool, device=key.device)
    candidates[cu_seqlens[:-1].long()] = candidates[cu_seqlens[1:].long() - 1] = False  # [CLS] and [SEP]
    options = {
        "input_ids": _word_ids(key, t),
        "cu_seqlens": cu_seqlens,
        "candidates": candidates,
        "uniform": torch.rand(2, t, device=key.device),
        "n_slots": n_slots,
        "mask_token_id": MASK_ID,
        "mask_prob": MASK_PROB,
    }
    n_bytes = (8 + 1 + 2 * 4 + 8) * t + 4 * len(cu_seqlens) + (8 + 8 + 1) * n_slots
    return Case(key, {}, options, {FORWARD: Cost(n_bytes)}, is_recordable=False)


def _place_samples(key: Key, config: ElectraConfig) -> Case:
    t, n = key.tokens, _n_masked(key)
    options = {
        "input_ids": _word_ids(key, t),
        "positions": torch.randperm(t, device=key.device)[:n],
        "samples": _word_ids(key, n),
        "is_used": torch.arange(n, device=key.device) < n - n // 50,
    }
    return Case(key, {}, options, {FORWARD: Cost((8 + 8 + 1) * t + (8 + 8 + 1) * n)})


def _shapes(config: ElectraConfig) -> list[torch.Size]:
    """The shapes of all parameters of a discriminator."""
    with torch.device("meta"):
        return [p.shape for p in ElectraForPreTraining(config).parameters()]


def _grad_norm(key: Key, config: ElectraConfig) -> Case:
    grads = [_randn(key, *shape, scale=1e-3) for shape in _shapes(config)]
    n_bytes = sum(x.nbytes for x in grads) + 4
    return ListCase(key, {}, {}, {FORWARD: Cost(n_bytes)}, lists={"grads": grads})


def _clip(key: Key, config: ElectraConfig) -> Case:
    norm, loss_scale = (torch.tensor(x, device=key.device) for x in (3.7, 2.0**16))
    counts = [torch.zeros((), dtype=torch.int64, device=key.device) for _ in range(4)]
    options = {"counts": counts, "max_norm": 1.0, "loss_scale": loss_scale}
    return Case(key, {"norm": norm}, options, {FORWARD: Cost(4 + 4 + 4 + 4 + 1 + 16 * len(counts))})


def _optimizer(key: Key, config: ElectraConfig) -> ListCase:
    shapes = _shapes(config)
    masters = [0.02 * torch.randn(shape, device=key.device) for shape in shapes]
    lists = {
        "params": masters if key.dtype == torch.float32 else [x.to(key.dtype) for x in masters],
        "masters": masters,
        "grads": [_randn(key, *shape, scale=1e-3) for shape in shapes],
        "exp_avgs": [1e-3 * torch.randn(shape, device=key.device) for shape in shapes],
        "exp_avg_sqs": [1e-6 * torch.rand(shape, device=key.device) + 1e-8 for shape in shapes],
    }
    scalars = {"lr": 1e-4, "step": 10, "grad_scale": 1.0}
    options = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.01, **scalars}
    # A captured training step has its scalars on the device.
    on_device = {name: torch.tensor(value, device=key.device) for name, value in scalars.items()}
    return ListCase(key, {}, options, {}, on_device=on_device, lists=lists)


def _n_elements(case: ListCase) -> tuple[int, int]:
    """(elements of all tensors, bytes of an element's gradient, and of its parameter unless that is the master)."""
    s = case.key.dtype.itemsize
    return sum(x.numel() for x in case.lists["grads"]), s if case.key.dtype == torch.float32 else 2 * s


def _adamw(key: Key, config: ElectraConfig) -> Case:
    case = _optimizer(key, config)
    n, low = _n_elements(case)
    case.costs[UPDATE] = Cost(n * (low + 2 * 3 * 4))  # master and two moments are read and written
    case.peers = adamw_peers()
    return case


def _lamb(key: Key, config: ElectraConfig) -> Case:
    case = _optimizer(key, config)
    n, low = _n_elements(case)
    # LAMB does what AdamW does, and reads moments and master again: norms are known only after a first pass.
    case.costs[UPDATE] = Cost(n * (low + 2 * 3 * 4 + 3 * 4))
    return case


_MAKERS: dict[str, Callable[[Key, ElectraConfig], Case]] = {
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
    "adamw": _adamw,
    "lamb": _lamb,
}
