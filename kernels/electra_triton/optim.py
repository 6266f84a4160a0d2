"""AdamW, LAMB and the global norm of gradients over many tensors of any sizes, in one to three launches per dtype, and
as many again where some tensors begin between multiples of 16 bytes.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  u = (m / c1) / (sqrt(v / c2) + eps) + decay * p
    AdamW: p -= lr u;  LAMB: p -= lr r u,  r = |p| / |u| per tensor
    g is multiplied by grad_scale;  c is 1 - b^step, or 1 without bias correction

Tensors are cut into blocks of 2,048 elements, one program each. `owner` [C] int32 names the tensor of each block, and
follows from the sizes. `table` [2 + K, N] int64 has the tensors' sizes, first blocks and K rows of addresses; the
kernels cast these to pointers (in Triton's interpreter too). Among them are those of each tensor's lr and step, and one
more row has the bits of its decay: tensors that differ in these share a launch. Both are built on the host and kept on
the device by a `Cache`.

Bytes moved per parameter: AdamW moves 28, in fp32 (reads p, g, m, v; writes p, m, v) and in bf16 (reads g; reads and
writes master, m, v; writes p). LAMB moves 40: one pass updates the moments and sums p^2 and u^2, another computes u
again from the moments. Storing u in between would move as many bytes, and take memory. The norm reads g once.

Numerics: everything is in fp32; 1 - b^step is a series where it would cancel. lr, step and grad_scale are read on the
device, so that a CUDA graph replays with new values. If grad_scale is not finite, nothing is written. Sums are taken
per block, then over blocks in a fixed order.
"""

import dataclasses
import math
import struct
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device_cache import Cache

_BLOCK = 2048
_TRITON_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

# Rows of the table.
_SIZE, _FIRST_BLOCK, _GRAD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_EXP_AVG, _EXP_AVG_SQ, _MASTER, _PARAM = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)
_LR, _DECAY, _STEP = tl.constexpr(7), tl.constexpr(8), tl.constexpr(9)  # no row of steps without bias correction

# Places in the tuple that `_adam` returns; a rest is 1 - beta.
_BETA1, _BETA2, _REST1, _REST2 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
_LOG_BETA1, _LOG_BETA2, _EPS = tl.constexpr(4), tl.constexpr(5), tl.constexpr(6)


@triton.jit
def _locate(
    owner_ptr,  # [C] int32
    table_ptr,  # [2 + K, N] int64
    n_tensors,
    BLOCK: tl.constexpr,
):
    """Locates a program: its tensor, the first element of its block, and how many elements are left from there."""
    tensor = tl.load(owner_ptr + tl.program_id(0))
    first_block = tl.load(table_ptr + _FIRST_BLOCK * n_tensors + tensor)
    start = (tl.program_id(0) - first_block) * BLOCK
    return tensor, start, tl.load(table_ptr + _SIZE * n_tensors + tensor) - start


@triton.jit
def _pointers(
    table_ptr,
    ROW: tl.constexpr,
    tensor,
    start,
    n_tensors,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Pointers [BLOCK] into a tensor, whose address is in a row of the table."""
    base = tl.load(table_ptr + ROW * n_tensors + tensor).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        base = tl.multiple_of(base, 16)
    return base + start + tl.arange(0, BLOCK)


@triton.jit
def _state_pointers(table_ptr, tensor, start, n_tensors, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Pointers to exp_avg, exp_avg_sq and master; all three are fp32."""
    return (
        _pointers(table_ptr, _EXP_AVG, tensor, start, n_tensors, tl.float32, ALIGNED, BLOCK),
        _pointers(table_ptr, _EXP_AVG_SQ, tensor, start, n_tensors, tl.float32, ALIGNED, BLOCK),
        _pointers(table_ptr, _MASTER, tensor, start, n_tensors, tl.float32, ALIGNED, BLOCK),
    )


@triton.jit
def _scalar(table_ptr, ROW: tl.constexpr, tensor, n_tensors, DTYPE: tl.constexpr):
    """A tensor's scalar as fp32, whose address is in a row of the table."""
    return tl.load(tl.load(table_ptr + ROW * n_tensors + tensor).to(tl.pointer_type(DTYPE))).to(tl.float32)


@triton.jit
def _decay(table_ptr, tensor, n_tensors):
    return tl.load(table_ptr + _DECAY * n_tensors + tensor).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _load(pointers, n_left, MASKED: tl.constexpr, OTHER: tl.constexpr = 0.0):
    """Loads a block as fp32. Only a tensor's last block needs a mask; without one, each load is of 16 bytes."""
    if MASKED:
        return tl.load(pointers, mask=tl.arange(0, pointers.shape[0]) < n_left, other=OTHER).to(tl.float32)
    else:
        return tl.load(pointers).to(tl.float32)


@triton.jit
def _store(pointers, x, n_left, MASKED: tl.constexpr):
    mask = tl.arange(0, pointers.shape[0]) < n_left if MASKED else None
    tl.store(pointers, x, mask=mask)


@triton.jit
def _correction(log_beta, step):
    """Computes 1 - beta^step = -expm1(x), x = step log(beta); near 0 by its series, with a relative error of 2e-8."""
    x = log_beta * step
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7)))))
    return tl.where(x > -0.35, -x * series, 1 - tl.exp(x))


@triton.jit
def _corrections(table_ptr, tensor, n_tensors, adam, CORRECT: tl.constexpr):
    """The bias corrections, by which m and v are divided."""
    if CORRECT:
        step = _scalar(table_ptr, _STEP, tensor, n_tensors, tl.int64)
        return _correction(adam[_LOG_BETA1], step), _correction(adam[_LOG_BETA2], step)
    else:
        return 1.0, 1.0


@triton.jit
def _move_moments(grad_ptrs, exp_avg_ptrs, exp_avg_sq_ptrs, n_left, grad_scale, adam, MASKED: tl.constexpr):
    grad = _load(grad_ptrs, n_left, MASKED) * grad_scale
    m = adam[_BETA1] * _load(exp_avg_ptrs, n_left, MASKED) + adam[_REST1] * grad
    v = _load(exp_avg_sq_ptrs, n_left, MASKED, 1.0)  # 1 beyond the end, so that 0 / sqrt(v) is 0 there
    v = adam[_BETA2] * v + adam[_REST2] * grad * grad
    _store(exp_avg_ptrs, m, n_left, MASKED)
    _store(exp_avg_sq_ptrs, v, n_left, MASKED)
    return m, v


@triton.jit
def _update(p, m, v, corrections, decay, adam):
    m_correction, v_correction = corrections
    return m / m_correction / (tl.sqrt(v / v_correction) + adam[_EPS]) + decay * p


@triton.jit
def _store_weights(param_ptrs, master_ptrs, p, n_left, MASKED: tl.constexpr):
    _store(master_ptrs, p, n_left, MASKED)
    if param_ptrs.dtype.element_ty != tl.float32:  # an fp32 parameter is its own master
        _store(param_ptrs, p, n_left, MASKED)


@triton.jit
def _adamw_block(
    param_ptrs, grad_ptrs, state_ptrs, n_left, lr, grad_scale, corrections, decay, adam, MASKED: tl.constexpr
):
    exp_avg_ptrs, exp_avg_sq_ptrs, master_ptrs = state_ptrs
    p = _load(master_ptrs, n_left, MASKED)
    m, v = _move_moments(grad_ptrs, exp_avg_ptrs, exp_avg_sq_ptrs, n_left, grad_scale, adam, MASKED)
    _store_weights(param_ptrs, master_ptrs, p - lr * _update(p, m, v, corrections, decay, adam), n_left, MASKED)


@triton.jit
def _lamb_sums_block(grad_ptrs, state_ptrs, n_left, grad_scale, corrections, decay, adam, MASKED: tl.constexpr):
    exp_avg_ptrs, exp_avg_sq_ptrs, master_ptrs = state_ptrs
    p = _load(master_ptrs, n_left, MASKED)
    m, v = _move_moments(grad_ptrs, exp_avg_ptrs, exp_avg_sq_ptrs, n_left, grad_scale, adam, MASKED)
    update = _update(p, m, v, corrections, decay, adam)
    return tl.sum(p * p, axis=0), tl.sum(update * update, axis=0)


@triton.jit
def _lamb_apply_block(param_ptrs, state_ptrs, n_left, rate, corrections, decay, adam, MASKED: tl.constexpr):
    exp_avg_ptrs, exp_avg_sq_ptrs, master_ptrs = state_ptrs
    m, v = _load(exp_avg_ptrs, n_left, MASKED), _load(exp_avg_sq_ptrs, n_left, MASKED)
    p = _load(master_ptrs, n_left, MASKED)
    _store_weights(param_ptrs, master_ptrs, p - rate * _update(p, m, v, corrections, decay, adam), n_left, MASKED)


@triton.jit(do_not_specialize=["n_tensors"])
def grad_norm_kernel(
    owner_ptr,  # [C] int32
    table_ptr,  # [3, N] int64: sizes, first blocks, gradients
    norm_ptr,  # [C] fp32: the norm of each block
    n_tensors,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tensor, start, n_left = _locate(owner_ptr, table_ptr, n_tensors, BLOCK)
    pointers = _pointers(table_ptr, _GRAD, tensor, start, n_tensors, DTYPE, ALIGNED, BLOCK)
    grad = _load(pointers, n_left, False) if n_left >= BLOCK else _load(pointers, n_left, True)
    tl.store(norm_ptr + tl.program_id(0), tl.sqrt(tl.sum(grad * grad, axis=0)))


@triton.jit(do_not_specialize=["n_tensors"])
def adamw_kernel(
    owner_ptr,  # [C] int32
    table_ptr,  # [9 or 10, N] int64
    grad_scale_ptr,  # []
    adam,  # scalars from _adam
    n_tensors,
    CORRECT: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tensor, start, n_left = _locate(owner_ptr, table_ptr, n_tensors, BLOCK)
    lr = _scalar(table_ptr, _LR, tensor, n_tensors, tl.float32)
    grad_scale = tl.load(grad_scale_ptr).to(tl.float32)
    decay = _decay(table_ptr, tensor, n_tensors)
    corrections = _corrections(table_ptr, tensor, n_tensors, adam, CORRECT)
    if tl.abs(grad_scale) < float("inf"):
        params = _pointers(table_ptr, _PARAM, tensor, start, n_tensors, DTYPE, ALIGNED, BLOCK)
        grads = _pointers(table_ptr, _GRAD, tensor, start, n_tensors, DTYPE, ALIGNED, BLOCK)
        state = _state_pointers(table_ptr, tensor, start, n_tensors, ALIGNED, BLOCK)
        if n_left >= BLOCK:
            _adamw_block(params, grads, state, n_left, lr, grad_scale, corrections, decay, adam, False)
        else:
            _adamw_block(params, grads, state, n_left, lr, grad_scale, corrections, decay, adam, True)


@triton.jit(do_not_specialize=["n_tensors"])
def lamb_sums_kernel(
    owner_ptr,  # [C] int32
    table_ptr,  # [9 or 10, N] int64
    grad_scale_ptr,  # []
    sum_ptr,  # [C, 2] fp32: sums of p^2 and u^2 over each block
    adam,  # scalars from _adam
    n_tensors,
    CORRECT: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tensor, start, n_left = _locate(owner_ptr, table_ptr, n_tensors, BLOCK)
    grad_scale = tl.load(grad_scale_ptr).to(tl.float32)
    decay = _decay(table_ptr, tensor, n_tensors)
    corrections = _corrections(table_ptr, tensor, n_tensors, adam, CORRECT)
    if tl.abs(grad_scale) < float("inf"):
        grads = _pointers(table_ptr, _GRAD, tensor, start, n_tensors, DTYPE, ALIGNED, BLOCK)
        state = _state_pointers(table_ptr, tensor, start, n_tensors, ALIGNED, BLOCK)
        if n_left >= BLOCK:
            p_sum, update_sum = _lamb_sums_block(grads, state, n_left, grad_scale, corrections, decay, adam, False)
        else:
            p_sum, update_sum = _lamb_sums_block(grads, state, n_left, grad_scale, corrections, decay, adam, True)
        tl.store(sum_ptr + 2 * tl.program_id(0), p_sum)
        tl.store(sum_ptr + 2 * tl.program_id(0) + 1, update_sum)


@triton.jit(do_not_specialize=["n_tensors"])
def lamb_ratio_kernel(
    table_ptr,  # [9 or 10, N] int64
    sum_ptr,  # [C, 2] fp32
    ratio_ptr,  # [N] fp32
    n_tensors,
    BLOCK: tl.constexpr,
    BLOCK_SUMS: tl.constexpr,
):
    tensor = tl.program_id(0)
    first_block = tl.load(table_ptr + _FIRST_BLOCK * n_tensors + tensor)
    n_blocks = tl.cdiv(tl.load(table_ptr + _SIZE * n_tensors + tensor), BLOCK)
    p_sum, update_sum = tl.zeros((BLOCK_SUMS,), dtype=tl.float32), tl.zeros((BLOCK_SUMS,), dtype=tl.float32)
    for first in range(0, n_blocks, BLOCK_SUMS):
        blocks = first + tl.arange(0, BLOCK_SUMS)
        sums = sum_ptr + 2 * (first_block + blocks)
        p_sum += tl.load(sums, mask=blocks < n_blocks, other=0.0)
        update_sum += tl.load(sums + 1, mask=blocks < n_blocks, other=0.0)
    p_norm, update_norm = tl.sqrt(tl.sum(p_sum, axis=0)), tl.sqrt(tl.sum(update_sum, axis=0))
    tl.store(ratio_ptr + tensor, tl.where((p_norm > 0) & (update_norm > 0), p_norm / update_norm, 1.0))


@triton.jit(do_not_specialize=["n_tensors"])
def lamb_apply_kernel(
    owner_ptr,  # [C] int32
    table_ptr,  # [9 or 10, N] int64
    grad_scale_ptr,  # []
    ratio_ptr,  # [N] fp32
    adam,  # scalars from _adam
    n_tensors,
    CORRECT: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    tensor, start, n_left = _locate(owner_ptr, table_ptr, n_tensors, BLOCK)
    rate = _scalar(table_ptr, _LR, tensor, n_tensors, tl.float32) * tl.load(ratio_ptr + tensor)
    decay = _decay(table_ptr, tensor, n_tensors)
    corrections = _corrections(table_ptr, tensor, n_tensors, adam, CORRECT)
    if tl.abs(tl.load(grad_scale_ptr).to(tl.float32)) < float("inf"):
        params = _pointers(table_ptr, _PARAM, tensor, start, n_tensors, DTYPE, ALIGNED, BLOCK)
        state = _state_pointers(table_ptr, tensor, start, n_tensors, ALIGNED, BLOCK)
        if n_left >= BLOCK:
            _lamb_apply_block(params, state, n_left, rate, corrections, decay, adam, False)
        else:
            _lamb_apply_block(params, state, n_left, rate, corrections, decay, adam, True)


_CACHE = Cache(64)


@dataclasses.dataclass(frozen=True)
class _Launch:
    """The arguments of a launch over tensors of one dtype: where they are, and the kernel's constants."""

    n_blocks: int
    n_tensors: int
    owner: Tensor
    table: Tensor
    constants: dict[str, Any]


def _launches(*lists: Sequence[Tensor], numbers: Sequence[Sequence[int]] = ()) -> Iterator[_Launch]:
    """One launch for each dtype of the first list, the gradients; `lists` are the table's rows of addresses, and
    `numbers` are its rows after them.

    Where something of a tensor begins between multiples of 16 bytes, as FSDP's gradients do, it is in a launch of its
    own: all others are read and written 16 bytes at a time.
    """
    alike: dict[tuple[torch.dtype, bool], list[tuple[Tensor, tuple[int, ...]]]] = {}
    for tensors, *words in zip(zip(*lists, strict=True), *numbers, strict=True):
        grad = tensors[0]
        if grad.numel() > 0:
            addresses = [x.data_ptr() for x in tensors]
            kind = grad.dtype, reduce(or_, addresses) % 16 == 0
            alike.setdefault(kind, []).append((grad, (*addresses, *words)))
    for (dtype, is_aligned), chosen in alike.items():
        device = chosen[0][0].device
        sizes = tuple(grad.numel() for grad, _ in chosen)
        rows = tuple(zip(*(column for _, column in chosen), strict=True))
        yield _Launch(
            sum(triton.cdiv(n, _BLOCK) for n in sizes),
            len(chosen),
            _CACHE.get(device, _owner, sizes),
            _CACHE.get(device, _table, sizes, rows),
            dict(DTYPE=_TRITON_DTYPES[dtype], ALIGNED=is_aligned, BLOCK=_BLOCK, num_warps=4),
        )


def _owner(sizes: tuple[int, ...]) -> Tensor:
    n_blocks = torch.tensor([triton.cdiv(n, _BLOCK) for n in sizes])
    return torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(n_blocks)


def _table(sizes: tuple[int, ...], rows: tuple[tuple[int, ...], ...]) -> Tensor:
    ends = list(accumulate(triton.cdiv(n, _BLOCK) for n in sizes))
    return torch.tensor([sizes, [0, *ends[:-1]], *rows])


def _adam(beta1: float, beta2: float, eps: float) -> tuple[float, ...]:
    """The scalars of Adam; differences and logarithms are computed in fp64."""
    logs = (math.log(beta) if beta > 0 else -math.inf for beta in (beta1, beta2))
    return beta1, beta2, 1 - beta1, 1 - beta2, *logs, eps


def _adam_launches(
    lists: Sequence[Sequence[Tensor]], lr: float | Tensor | Sequence[float | Tensor],
    weight_decay: float | Sequence[float], step: int | Tensor | Sequence[int | Tensor] | None,
) -> Iterator[_Launch]:  # fmt: skip
    """The launches of an update; what their tables point to lives as long as the iterator. lists: gradients first."""
    n_tensors = len(lists[0])
    if n_tensors == 0:
        return
    device = lists[0][0].device
    scalars = [_on_device(_of_each(lr, n_tensors), torch.float32, device)]
    if step is not None:
        scalars.append(_on_device(_of_each(step, n_tensors), torch.int64, device))
    rates, *counts = ([x.data_ptr() for x in row] for row in scalars)
    for launch in _launches(*lists, numbers=(rates, [_bits(x) for x in _of_each(weight_decay, n_tensors)], *counts)):
        yield dataclasses.replace(launch, constants=launch.constants | {"CORRECT": step is not None})


def _of_each(values: Any, n_tensors: int) -> Sequence[Any]:
    return values if isinstance(values, Sequence) else [values] * n_tensors


def _on_device(values: Sequence[float | Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Scalars on the device, those that are the same made once."""
    made = {id(x): _scalar_on(x, dtype, device) for x in {id(x): x for x in values}.values()}
    return [made[id(x)] for x in values]


def _scalar_on(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return value.to(device, dtype) if isinstance(value, Tensor) else torch.full((), value, dtype=dtype, device=device)


def _bits(x: float) -> int:
    """The bits of a number in fp32."""
    return struct.unpack("i", struct.pack("f", x))[0]


def grad_norm(grads: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all tensors together: [] fp32."""
    launches = list(_launches(grads))
    norms = grads[0].new_empty(sum(launch.n_blocks for launch in launches), dtype=torch.float32)
    for launch, part in zip(launches, norms.split([launch.n_blocks for launch in launches]), strict=True):
        grad_norm_kernel[launch.n_blocks,](launch.owner, launch.table, part, launch.n_tensors, **launch.constants)
    return torch.linalg.vector_norm(norms)


def adamw(
    params: Sequence[Tensor], masters: Sequence[Tensor], grads: Sequence[Tensor], exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor], lr: float | Tensor | Sequence[float | Tensor], beta1: float, beta2: float,
    eps: float, weight_decay: float | Sequence[float], step: int | Tensor | Sequence[int | Tensor] | None,
    grad_scale: float | Tensor,
) -> None:  # fmt: skip
    """One step of AdamW, in place; an fp32 parameter is its own master."""
    adam = _adam(beta1, beta2, eps)
    for launch in _adam_launches((grads, exp_avgs, exp_avg_sqs, masters, params), lr, weight_decay, step):
        scale = _scalar_on(grad_scale, torch.float32, launch.table.device)
        adamw_kernel[launch.n_blocks,](
            launch.owner, launch.table, scale, adam, launch.n_tensors, **launch.constants
        )  # fmt: skip


def lamb(
    params: Sequence[Tensor], masters: Sequence[Tensor], grads: Sequence[Tensor], exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor], lr: float | Tensor | Sequence[float | Tensor], beta1: float, beta2: float,
    eps: float, weight_decay: float | Sequence[float], step: int | Tensor | Sequence[int | Tensor] | None,
    grad_scale: float | Tensor,
) -> None:  # fmt: skip
    """One step of LAMB, in place: a step of AdamW with a rate for each tensor."""
    adam = _adam(beta1, beta2, eps)
    for launch in _adam_launches((grads, exp_avgs, exp_avg_sqs, masters, params), lr, weight_decay, step):
        device, n_tensors = launch.table.device, launch.n_tensors
        scale = _scalar_on(grad_scale, torch.float32, device)
        sums = torch.empty(launch.n_blocks, 2, dtype=torch.float32, device=device)
        ratios = torch.empty(n_tensors, dtype=torch.float32, device=device)
        lamb_sums_kernel[launch.n_blocks,](
            launch.owner, launch.table, scale, sums, adam, n_tensors, **launch.constants
        )  # fmt: skip
        lamb_ratio_kernel[n_tensors,](
            launch.table, sums, ratios, n_tensors, BLOCK=_BLOCK, BLOCK_SUMS=1024, num_warps=4
        )  # fmt: skip
        lamb_apply_kernel[launch.n_blocks,](
            launch.owner, launch.table, scale, ratios, adam, n_tensors, **launch.constants
        )  # fmt: skip
