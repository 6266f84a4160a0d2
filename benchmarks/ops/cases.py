"""What `electra-fast bench ops` runs: inputs of every op at the shapes of a network, the least work, and peers.

The least work is counted by hand. Bytes: every input is read once and every result written once, in the forward and
again in the backward, and what the backward cannot compute again from inputs and results alone is written and read
once. Operations: those of products of matrices, 2 each multiplication and addition. Computing again is not counted, but
for attention's scores, which nobody stores. So both are bounds, each for itself, and no program need reach both.

Shapes are the letters of `electra_fast.ops.reference`. Costs are in elements times `s`, the bytes of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.adamw import adamw as torch_adamw

from ...model.config import ElectraConfig
from ...model.modeling import ElectraForPreTraining
from ...ops.registry import OPS
from ...ops.testing import Error, compare
from ...pretraining.recipes import preset

VOCAB_SIZE = 30522
LENGTHS = (128, 512)
DROPOUT, MASK_PROB = 0.1, 0.15
MASK_ID, FIRST_WORD_ID = 103, 1000
FORWARD, BOTH, UPDATE = "forward", "forward+backward", "update"
SIZELESS = ("mask_tokens", "place_samples")  # of token ids alone, whatever the network
LISTS = ("grad_norm", "adamw", "lamb")  # of many tensors


@dataclass(frozen=True)
class Cost:
    """The least that must be moved and computed."""

    n_bytes: int
    n_flops: int = 0


@dataclass(frozen=True)
class Provider:
    """One implementation of an op.

    Attributes:
        name: in tables and rows.
        function: with the signature of the reference, but that peers need not take what is left at its default.
        is_seeded: its dropouts take seeds, and its scalars may lie on the device; else it draws its own random bits,
            and is checked without dropout.
        has_dropout: it can drop out at all.
        is_recordable: in a CUDA graph.
        is_fp32: an optimizer that takes gradients in fp32 and trains the masters only.
    """

    name: str
    function: Callable
    is_seeded: bool = False
    has_dropout: bool = True
    is_recordable: bool = True
    is_fp32: bool = False


@dataclass(frozen=True)
class Key:
    """Names a case, small enough for another process. `size` and `length` are None where nothing depends on them."""

    op: str
    size: str | None
    length: int | None
    tokens: int
    dtype: torch.dtype
    device: torch.device

    @property
    def name(self) -> str:
        return " ".join(str(part) for part in (self.op, self.size, self.length) if part is not None)


@dataclass
class Case:
    """One op at one shape.

    Attributes:
        tensors: the inputs that have gradients, by the names of the reference's parameters.
        options: all other arguments; dropout as in training.
        costs: of each direction that there is.
        on_device: arguments of seeded providers instead of, or besides, `options`.
        peers: further implementations.
        is_recordable: the reference, in a CUDA graph.
    """

    key: Key
    tensors: dict[str, Tensor]
    options: dict[str, Any]
    costs: dict[str, Cost]
    on_device: dict[str, Any] = field(default_factory=dict)
    peers: tuple[Provider, ...] = ()
    is_recordable: bool = True

    def arguments(self, provider: Provider, direction: str) -> dict[str, Any]:
        """What is timed: no dropout in a forward alone, which is inference."""
        options = self.options | (self.on_device if provider.is_seeded else {})
        if "dropout_p" in options and (direction == FORWARD or not provider.has_dropout):
            options["dropout_p"] = 0.0
        return options

    def run(self, provider: Provider, direction: str) -> Callable[[], object]:
        """What is timed."""
        function, options = provider.function, self.arguments(provider, direction)
        if direction == FORWARD:

            def forward() -> object:
                with torch.no_grad():
                    return function(**self.tensors, **options)

            return forward

        inputs = {name: x.detach().requires_grad_() for name, x in self.tensors.items()}

        def result() -> Tensor:
            out = function(**inputs, **options)
            return out if isinstance(out, Tensor) else out[0]  # of several, the first is the loss

        grad = torch.randn_like(result())
        return lambda: torch.autograd.grad(result(), list(inputs.values()), grad)

    def errors(self, provider: Provider, direction: str) -> list[Error]:
        """Against the reference in fp64; with the same dropout where the provider is seeded, else without any."""
        options = self.arguments(provider, direction)
        if "dropout_p" in options and not provider.is_seeded:
            options["dropout_p"] = 0.0
        with torch.set_grad_enabled(direction == BOTH):
            return self._errors(provider.function, direction == BOTH, options)

    def _errors(self, function: Callable, backward: bool, options: dict[str, Any]) -> list[Error]:
        return compare(function, OPS[self.key.op].torch, self.tensors, backward, **options)


class MlmHeadCase(Case):
    """Losses are compared as everywhere. Samples are not: with logits that are rounded, another word than in fp64 is
    drawn at every border between two words. So it is measured how far the random number is from the words' share."""

    def _errors(self, function: Callable, backward: bool, options: dict[str, Any]) -> list[Error]:
        reference = OPS[self.key.op].torch
        losses = [lambda f=f, **kwargs: f(**kwargs)[0] for f in (function, reference)]
        with torch.no_grad():
            ours, eager = (self._misplaced(f(**self.tensors, **options)[2]) for f in (function, reference))
        samples = Error("samples", ours, eager, rounding=2**-20)
        return [*compare(*losses, self.tensors, backward, **options), samples]

    def _misplaced(self, samples: Tensor) -> float:
        hidden, weight, bias = (x.double() for x in self.tensors.values())
        if not bool(((samples >= 0) & (samples < len(bias))).all()):
            return math.inf
        shares = F.linear(hidden, weight, bias).softmax(-1)
        upper = shares.cumsum(-1).gather(1, samples[:, None])
        lower, uniform = upper - shares.gather(1, samples[:, None]), self.options["uniform"][:, None]
        return float(((lower - uniform).clamp(min=0) + (uniform - upper).clamp(min=0)).square().mean().sqrt())


@dataclass
class ListCase(Case):
    """An op of many tensors, in place where it returns nothing.

    Attributes:
        lists: the arguments that are lists.
    """

    lists: dict[str, list[Tensor]] = field(default_factory=dict)

    def run(self, provider: Provider, direction: str) -> Callable[[], object]:
        lists, options = self._lists_of(provider, self.lists), self.arguments(provider, direction)

        def update() -> object:
            with torch.no_grad():
                return provider.function(**lists, **options)

        return update

    @staticmethod
    def _lists_of(provider: Provider, lists: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
        return lists | {"grads": [x.float() for x in lists["grads"]]} if provider.is_fp32 else lists

    def errors(self, provider: Provider, direction: str) -> list[Error]:
        """One tensor of each shape."""
        shapes = [x.shape for x in self.lists["grads"]]
        chosen = [shapes.index(shape) for shape in dict.fromkeys(shapes)]
        tensors = {f"{name}_{i}": values[i] for name, values in self.lists.items() for i in chosen}
        compared = [name for name in self.lists if name != "grads"]
        if provider.is_fp32 or self.key.dtype == torch.float32:  # then the masters are the parameters
            compared = [name for name in compared if name != "params"]

        def results(function: Callable, convert: bool) -> Callable[..., tuple[Tensor, ...]]:
            def run(**flat: Tensor) -> tuple[Tensor, ...]:
                lists = {name: [flat[f"{name}_{i}"].clone() for i in chosen] for name in self.lists}
                if "masters" in lists and self.key.dtype == torch.float32:
                    lists["masters"] = lists["params"]
                arguments = self._lists_of(provider, lists) if convert else lists
                out = function(**arguments, **self.arguments(provider, direction))
                return tuple(x for name in compared for x in lists[name]) if out is None else (out,)

            return run

        with torch.no_grad():
            reference = OPS[self.key.op].torch
            return compare(results(provider.function, True), results(reference, False), tensors, backward=False)


def keys(
    ops: tuple[str, ...], sizes: tuple[str, ...], tokens: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Key]:
    """All cases, size by size."""
    for size in sizes:
        for op in ops:
            if op in SIZELESS and size != sizes[0]:
                continue
            lengths = sorted({min(n, tokens) for n in LENGTHS}) if op in ("attention", "mask_tokens") else [None]
            for length in lengths:
                n_tokens = tokens if length is None else tokens // length * length
                yield Key(op, None if op in SIZELESS else size, length, n_tokens, dtype, device)


def make(key: Key) -> Case:
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
    rows = (ids.unique().numel() + min(t, n_positions) + n_types) * e * s + 3 * 8 * t  # those that are read, and ids
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
    peers = [Provider("sdpa flash", flash_sdpa)]
    if find_spec("torch.nn.attention.varlen"):
        peers.append(Provider("varlen_attn, dropout 0", varlen, has_dropout=False))
    tensors = {"qkv": _randn(key, t, 3, a, d)}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)}, peers=tuple(peers))


def flash_sdpa(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float = 0.0) -> Tensor:
    """torch's flash attention on a batch whose sequences all have `max_seqlen` tokens."""
    q, k, v = (x.unflatten(0, (-1, max_seqlen)).transpose(1, 2) for x in qkv.unbind(1))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    return out.transpose(1, 2).flatten(0, 1)


def varlen(qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, dropout_p: float) -> Tensor:
    """torch's flash attention on packed sequences, which knows no dropout."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(*qkv.unbind(1), cu_seqlens, cu_seqlens, max_seqlen, max_seqlen)


def _dropout_add_norm(key: Key, config: ElectraConfig) -> Case:
    h, t = config.hidden_size, key.tokens
    weight, bias = _norm(key, h)
    tensors = {"x": _randn(key, t, h), "residual": _randn(key, t, h), "weight": weight, "bias": bias}
    rows, parameters = t * h * key.dtype.itemsize, 2 * h * key.dtype.itemsize
    # What the backward needs: the sum, and mean and deviation of each row in fp32.
    both = (3 + 1 + 4) * rows + 3 * parameters + 2 * 2 * 4 * t
    costs = {FORWARD: Cost(3 * rows + parameters), BOTH: Cost(both)}
    options = {"eps": config.layer_norm_eps, "dropout_p": DROPOUT}
    return Case(key, tensors, options, costs, on_device={"seed": _seed(key)})


def _linear_gelu(key: Key, config: ElectraConfig) -> Case:
    h, f, t, s = config.hidden_size, config.intermediate_size, key.tokens, key.dtype.itemsize
    tensors = {"x": _randn(key, t, h), "weight": _matrix(key, f, h), "bias": _randn(key, f)}
    parameters, product = (f * h + f) * s, 2 * t * f * h
    forward = (t * h + t * f) * s + parameters
    # What the backward needs besides: the input of the GELU.
    backward = (2 * t * f + 2 * t * h) * s + 2 * parameters
    costs = {FORWARD: Cost(forward, product), BOTH: Cost(forward + t * f * s + backward, 3 * product)}
    return Case(key, tensors, {}, costs)


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
    # What the backward needs besides: the input of the GELU. It reads that, hidden, logits and labels.
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
    """Of all parameters of a discriminator."""
    with torch.device("meta"):
        return [p.shape for p in ElectraForPreTraining(config).parameters()]


def _grad_norm(key: Key, config: ElectraConfig) -> Case:
    grads = [_randn(key, *shape, scale=1e-3) for shape in _shapes(config)]
    n_bytes = sum(x.nbytes for x in grads) + 4
    return ListCase(key, {}, {}, {FORWARD: Cost(n_bytes)}, lists={"grads": grads})


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
    # On the device, as a captured training step has them.
    on_device = {name: torch.tensor(value, device=key.device) for name, value in scalars.items()}
    return ListCase(key, {}, options, {}, on_device=on_device, lists=lists)


def _n_elements(case: ListCase) -> tuple[int, int]:
    """Of all tensors, and the bytes of one of them in gradient, and in parameter where that is not its own master."""
    s = case.key.dtype.itemsize
    return sum(x.numel() for x in case.lists["grads"]), s if case.key.dtype == torch.float32 else 2 * s


def _adamw(key: Key, config: ElectraConfig) -> Case:
    case = _optimizer(key, config)
    n, low = _n_elements(case)
    case.costs[UPDATE] = Cost(n * (low + 2 * 3 * 4))  # master and two moments, read and written
    case.peers = (Provider("AdamW fused", FusedAdamW(), is_fp32=True),)
    return case


def _lamb(key: Key, config: ElectraConfig) -> Case:
    case = _optimizer(key, config)
    n, low = _n_elements(case)
    # As AdamW, and once more moments and master, as norms of whole tensors are known only after a first pass.
    case.costs[UPDATE] = Cost(n * (low + 2 * 3 * 4 + 3 * 4))
    return case


class FusedAdamW:
    """torch.optim.AdamW(fused=True) on the masters, with its steps counted on the device."""

    def __init__(self) -> None:
        self.steps: Tensor | None = None

    def __call__(
        self, params, masters, grads, exp_avgs, exp_avg_sqs, lr, beta1, beta2, eps, weight_decay, step, grad_scale
    ) -> None:
        if self.steps is None or len(self.steps) != len(masters):
            self.steps = torch.empty(len(masters), device=masters[0].device)
        torch_adamw(
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


_MAKERS: dict[str, Callable[[Key, ElectraConfig], Case]] = {
    "embed_norm_project": _embed_norm_project,
    "attention": _attention,
    "dropout_add_norm": _dropout_add_norm,
    "linear_gelu": _linear_gelu,
    "rtd_head": _rtd_head,
    "mlm_head": _mlm_head,
    "mask_tokens": _mask_tokens,
    "place_samples": _place_samples,
    "grad_norm": _grad_norm,
    "adamw": _adamw,
    "lamb": _lamb,
}
