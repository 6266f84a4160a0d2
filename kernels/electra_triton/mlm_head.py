"""The vocabulary head of masked rows: cross-entropy and one exact sample per row, without logits in memory.

    logits = hidden weight' + bias;  loss = lse(logits) - logits[label];  is_correct = logits[label] >= max(logits)
    sample = the first token whose cumulative softmax(logits / temperature) is above a uniform number
    dlogits = (softmax(logits) - onehot(label)) dloss
    dhidden = dlogits weight;  dweight = dlogits' hidden;  dbias = sum of dlogits over the rows

Shapes: hidden [N, E]; weight [V, E]; bias [V]; labels, uniform, losses, samples, lse [N]; S = V / 64 strips of tokens.

Fused: the logits stay in the registers of the GEMM that computes them. For every row and strip of 64 tokens it writes
their maximum and the sum of their exponentials: V / 8 bytes per row, twice that where samples have a distribution of
their own (a temperature, or the label left out). A second kernel, one program per row, completes the log-sum-exp and
inverts the cumulative sum in two steps: over strips, then over the tokens of one strip, whose logits it computes again
from 64 rows of weight. So the exact softmax takes one random number per row, where Gumbel noise takes V.

The backward computes the logits again, a chunk of the vocabulary at a time: dlogits in the inputs' dtype, 40 MB or
1024 columns. From them the vendor's GEMMs make dweight and add to dhidden. Each program sums dbias over a block of
rows, [N / BLOCK_ROWS, V], as a product of ones with its tile, and one sum completes it: no atomics, the same bits in
every run.

Memory beside inputs and outputs: V / 8 bytes per row forward (V / 4 if samples have their own distribution), where fp32
logits are 4 V, so 1 / 32 of them (1 / 16). Backward: 40 MB for dlogits, or 1024 columns where these are more, V / 32
bytes per row for dbias, 4 E for dhidden; where V is 30,522, no tensor of many rows is a twentieth of the logits. Eager
torch in bf16 holds 6 V bytes of logits forward, and in the backward their softmax and three gradients of their size.

Numerics: logits accumulate in fp32, fp32 inputs without tf32, and are never rounded to the inputs' dtype; the label's
logit and the maximum come from the same product, so that is_correct is exact. A label that is not in the vocabulary has
a loss and gradients of NaN. dbias sums dlogits as they are stored. A sample is never beyond V, never a token without
mass, never the label where that is left out, whatever rounding does to the cumulative sums.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import matmul, matmul_fp32, power_of_two
from .linear import product, tile, tile_sizes
from .partial_sums import sum_partials

STRIP = 64
BLOCK_COLS = 128  # two programs per SM: one computes a product while the other is at its exponentials
# Bytes of dlogits at a time, which two GEMMs should read from the 50 MB of Hopper's L2. A chunk takes three launches of
# 1.3 us. For 2,432 rows of BERT's vocabulary, 150 MB in bf16, this makes four chunks; eight of half the size would take
# 16 us more, in which HBM gives a quarter of what the GEMMs read. How much misses L2, only a GPU says.
WORKSPACE = 40 * 2**20
LEAST_COLUMNS = 1024  # enough for a GEMM


@triton.jit
def load_or_1(number_ptr):
    """A number on the device, which a CUDA graph reads at each replay; 1 where there is none."""
    if number_ptr is None:
        return 1.0
    else:
        return tl.load(number_ptr)


@triton.jit
def max_and_sum(scores, ROWS: tl.constexpr, STRIPS: tl.constexpr, STRIP: tl.constexpr):
    """The maximum of each strip and the sum of its exponentials below it: [ROWS, STRIPS * STRIP] -> [ROWS, STRIPS]."""
    scores = tl.reshape(scores, (ROWS, STRIPS, STRIP))
    # The maximum is finite even if every score is -inf, since -inf - -inf is NaN.
    maximum = tl.maximum(tl.max(scores, axis=2), -3.0e38)
    return maximum, tl.sum(tl.exp(scores - maximum[:, :, None]), axis=2)


@triton.jit
def invert(masses, target, SIZE: tl.constexpr):
    """The first of SIZE entries where the cumulative sum is above the target; the last with mass where none is."""
    entries = tl.arange(0, SIZE)
    is_above = (tl.cumsum(masses, axis=0) > target) & (masses > 0)
    first = tl.min(tl.where(is_above, entries, SIZE), axis=0)
    return tl.minimum(first, tl.max(tl.where(masses > 0, entries, 0), axis=0))


@triton.jit(do_not_specialize=["n_rows"])
def mlm_head_strips_kernel(
    hidden_ptr,  # [N, E]
    weight_ptr,  # [V, E]
    bias_ptr,  # [V]
    labels_ptr,  # [N]
    label_logits_ptr,  # [N] fp32
    maxima_ptr,  # [N, S] fp32
    sums_ptr,  # [N, S] fp32
    sample_maxima_ptr,  # [N, S] fp32, written where HAS_OWN_MASSES
    sample_sums_ptr,  # [N, S] fp32, written where HAS_OWN_MASSES
    inverse_temperature_ptr,  # [] fp32, or None for 1
    n_rows,
    V: tl.constexpr,
    E: tl.constexpr,
    STRIP: tl.constexpr,
    HAS_OWN_MASSES: tl.constexpr,
    NEVER_LABEL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    N_STRIPS: tl.constexpr = (V + STRIP - 1) // STRIP
    STRIPS: tl.constexpr = BLOCK_COLS // STRIP
    row_block, col_block = tile(tl.program_id(0), n_rows, V, BLOCK_ROWS, BLOCK_COLS)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = col_block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    row_mask = rows < n_rows
    # Read before the product: read after it, sm_100 takes 180 registers, and one program fills an SM.
    inverse_temperature = load_or_1(inverse_temperature_ptr)
    logits = product(hidden_ptr, weight_ptr, rows, cols, n_rows, V, E, BLOCK_ROWS, BLOCK_COLS, BLOCK_K)
    # Tokens beyond the end have a bias of -inf, and so no mass.
    logits += tl.load(bias_ptr + cols, mask=cols < V, other=float("-inf")).to(tl.float32)[None, :]

    strips = col_block * STRIPS + tl.arange(0, STRIPS)
    mask = row_mask[:, None] & (strips < N_STRIPS)[None, :]
    offsets = rows.to(tl.int64)[:, None] * N_STRIPS + strips[None, :]
    maximum, total = max_and_sum(logits, BLOCK_ROWS, STRIPS, STRIP)
    tl.store(maxima_ptr + offsets, maximum, mask=mask)
    tl.store(sums_ptr + offsets, total, mask=mask)

    labels = tl.load(labels_ptr + rows, mask=row_mask, other=-1).to(tl.int32)
    is_label = cols[None, :] == labels[:, None]
    is_here = row_mask & (labels // BLOCK_COLS == col_block)
    tl.store(label_logits_ptr + rows, tl.sum(tl.where(is_label, logits, 0.0), axis=1), mask=is_here)
    if HAS_OWN_MASSES:
        scores = logits * inverse_temperature
        if NEVER_LABEL:
            scores = tl.where(is_label, float("-inf"), scores)
        maximum, total = max_and_sum(scores, BLOCK_ROWS, STRIPS, STRIP)
        tl.store(sample_maxima_ptr + offsets, maximum, mask=mask)
        tl.store(sample_sums_ptr + offsets, total, mask=mask)


@triton.jit
def strip_masses(maxima_ptr, sums_ptr, row, N_STRIPS: tl.constexpr, BLOCK_STRIPS: tl.constexpr):
    """The maximum of a row, and the sums of exponentials below it of each strip, [BLOCK_STRIPS]."""
    strips = tl.arange(0, BLOCK_STRIPS)
    maxima = tl.load(maxima_ptr + row * N_STRIPS + strips, mask=strips < N_STRIPS, other=float("-inf"))
    sums = tl.load(sums_ptr + row * N_STRIPS + strips, mask=strips < N_STRIPS, other=0.0)
    maximum = tl.max(maxima, axis=0)
    return maximum, sums * tl.exp(maxima - maximum)


@triton.jit
def mlm_head_rows_kernel(
    hidden_ptr,  # [N, E]
    weight_ptr,  # [V, E]
    bias_ptr,  # [V]
    labels_ptr,  # [N] int64
    uniform_ptr,  # [N] fp32, read where HAS_SAMPLES
    label_logits_ptr,  # [N] fp32
    maxima_ptr,  # [N, S] fp32
    sums_ptr,  # [N, S] fp32
    sample_maxima_ptr,  # [N, S] fp32, read where HAS_OWN_MASSES
    sample_sums_ptr,  # [N, S] fp32, read where HAS_OWN_MASSES
    losses_ptr,  # [N] fp32
    is_correct_ptr,  # [N] bool
    samples_ptr,  # [N] int64, written where HAS_SAMPLES
    lse_ptr,  # [N] fp32
    inverse_temperature_ptr,  # [] fp32, or None for 1
    V: tl.constexpr,
    E: tl.constexpr,
    STRIP: tl.constexpr,
    HAS_SAMPLES: tl.constexpr,
    HAS_OWN_MASSES: tl.constexpr,
    NEVER_LABEL: tl.constexpr,
    BLOCK_STRIPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    N_STRIPS: tl.constexpr = (V + STRIP - 1) // STRIP
    row = tl.program_id(0).to(tl.int64)
    maximum, masses = strip_masses(maxima_ptr, sums_ptr, row, N_STRIPS, BLOCK_STRIPS)
    lse = maximum + tl.log(tl.sum(masses, axis=0))
    # A label that is not in the vocabulary has no logit: its loss and, by lse, its gradients are NaN.
    label = tl.load(labels_ptr + row)
    has_logit = (label >= 0) & (label < V)
    lse = tl.where(has_logit, lse, float("nan"))
    label_logit = tl.load(label_logits_ptr + row, mask=has_logit, other=float("nan"))
    tl.store(lse_ptr + row, lse)
    tl.store(losses_ptr + row, lse - label_logit)
    tl.store(is_correct_ptr + row, label_logit >= maximum)

    if HAS_SAMPLES:
        if HAS_OWN_MASSES:
            maximum, masses = strip_masses(sample_maxima_ptr, sample_sums_ptr, row, N_STRIPS, BLOCK_STRIPS)
        target = tl.load(uniform_ptr + row) * tl.sum(masses, axis=0)
        strip = invert(masses, target, BLOCK_STRIPS)
        # The rest of the target lies within the strip, as a part of its mass.
        strips = tl.arange(0, BLOCK_STRIPS)
        target -= tl.sum(tl.where(strips < strip, masses, 0.0), axis=0)
        target /= tl.sum(tl.where(strips == strip, masses, 0.0), axis=0)

        cols, inner = strip * STRIP + tl.arange(0, STRIP), tl.arange(0, BLOCK_K)
        weight_ptrs = weight_ptr + tl.minimum(cols, V - 1).to(tl.int64)[:, None] * E + inner[None, :]
        products = tl.zeros((STRIP, BLOCK_K), dtype=tl.float32)
        for first in range(0, E, BLOCK_K):
            mask = inner < E - first
            hidden = tl.load(hidden_ptr + row * E + first + inner, mask=mask, other=0.0).to(tl.float32)
            weight = tl.load(weight_ptrs + first, mask=mask[None, :], other=0.0).to(tl.float32)
            products += hidden[None, :] * weight
        scores = tl.sum(products, axis=1) + tl.load(bias_ptr + cols, mask=cols < V, other=float("-inf")).to(tl.float32)
        scores *= load_or_1(inverse_temperature_ptr)
        if NEVER_LABEL:
            scores = tl.where(cols == label, float("-inf"), scores)
        masses = tl.exp(scores - tl.max(scores, axis=0))
        token = strip * STRIP + invert(masses, target * tl.sum(masses, axis=0), STRIP)
        tl.store(samples_ptr + row, token.to(tl.int64))


@triton.jit(do_not_specialize=["n_rows"])
def mlm_head_bwd_kernel(
    dlosses_ptr,  # [N] fp32
    lse_ptr,  # [N] fp32
    hidden_ptr,  # [N, E]
    weight_ptr,  # [V, E]
    bias_ptr,  # [V]
    labels_ptr,  # [N]
    dlogits_ptr,  # [N in whole blocks, CHUNK]
    partial_ptr,  # [N / BLOCK_ROWS, V] fp32: gradient of bias, over a block of rows
    n_rows,
    first_col,
    V: tl.constexpr,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row_block, col_block = tile(tl.program_id(0), n_rows, CHUNK, BLOCK_ROWS, BLOCK_COLS)
    rows = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    chunk_cols = col_block * BLOCK_COLS + tl.arange(0, BLOCK_COLS)
    cols = first_col + chunk_cols
    row_mask, col_mask = rows < n_rows, cols < V
    logits = product(hidden_ptr, weight_ptr, rows, cols, n_rows, V, E, BLOCK_ROWS, BLOCK_COLS, BLOCK_K)
    logits += tl.load(bias_ptr + cols, mask=col_mask, other=float("-inf")).to(tl.float32)[None, :]

    labels = tl.load(labels_ptr + rows, mask=row_mask, other=-1).to(tl.int32)
    dlosses = tl.load(dlosses_ptr + rows, mask=row_mask, other=0.0)
    lse = tl.load(lse_ptr + rows, mask=row_mask, other=float("inf"))
    softmax = tl.exp(logits - lse[:, None])
    dlogits = tl.where(cols[None, :] == labels[:, None], softmax - 1.0, softmax) * dlosses[:, None]
    dlogits = dlogits.to(dlogits_ptr.dtype.element_ty)
    # There is room for whole blocks, and what lies beyond rows and vocabulary is zero: stores without a mask are wide.
    tl.store(dlogits_ptr + rows.to(tl.int64)[:, None] * CHUNK + chunk_cols[None, :], dlogits)
    # A product with ones sums over rows: shuffles between threads would take a third of the tile's time.
    sums = tl.dot(tl.full((16, BLOCK_ROWS), 1.0, dlogits.dtype), dlogits, input_precision="ieee")
    tl.store(partial_ptr + row_block.to(tl.int64) * V + cols, tl.max(sums, axis=0), mask=col_mask)


def mlm_head_fwd(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, uniform: Tensor | None,
    inverse_temperature: Tensor | None, never_label: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Computes hidden [N, E] -> (losses [N], is_correct [N], samples [N] or empty without `uniform`, lse [N])."""
    (n_rows, e), v = hidden.shape, len(bias)
    n_strips, sizes = triton.cdiv(v, STRIP), tile_sizes(BLOCK_COLS, e, hidden.dtype)
    has_samples = uniform is not None
    has_own_masses = has_samples and (inverse_temperature is not None or never_label)
    label_logits, losses, lse = (hidden.new_empty(n_rows, dtype=torch.float32) for _ in range(3))
    is_correct = hidden.new_empty(n_rows, dtype=torch.bool)
    samples = labels.new_empty(n_rows if has_samples else 0, dtype=torch.int64)
    # The statistics are separate tensors and not rows of one, so that their addresses are aligned whatever N is.
    n_statistics = 4 if has_own_masses else 2
    statistics = [hidden.new_empty((n_rows, n_strips), dtype=torch.float32) for _ in range(n_statistics)]
    statistics += [None] * (4 - n_statistics)
    flags = dict(V=v, E=e, STRIP=STRIP, HAS_OWN_MASSES=has_own_masses, NEVER_LABEL=never_label)
    if n_rows > 0:
        programs = triton.cdiv(n_rows, sizes["BLOCK_ROWS"]) * triton.cdiv(v, sizes["BLOCK_COLS"])
        mlm_head_strips_kernel[programs,](
            hidden, weight, bias, labels, label_logits, *statistics, inverse_temperature, n_rows, **flags, **sizes
        )
        mlm_head_rows_kernel[n_rows,](
            hidden, weight, bias, labels, uniform, label_logits, *statistics, losses, is_correct, samples, lse,
            inverse_temperature, HAS_SAMPLES=has_samples, BLOCK_STRIPS=power_of_two(n_strips),
            BLOCK_K=min(256 // hidden.itemsize, power_of_two(e)), num_warps=8, **flags,
        )  # fmt: skip
    return losses, is_correct, samples, lse


def mlm_head_bwd(
    dlosses: Tensor, lse: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes dlosses [N] -> gradients of hidden, weight and bias."""
    (n_rows, e), v = hidden.shape, len(bias)
    if n_rows == 0:
        return torch.zeros_like(hidden), torch.zeros_like(weight), torch.zeros_like(bias)
    sizes = tile_sizes(BLOCK_COLS, e, hidden.dtype)
    row_blocks = triton.cdiv(n_rows, sizes["BLOCK_ROWS"])
    # Chunks have equal width, except the last one: none is a remainder too small for a GEMM.
    n_chunks = triton.cdiv(v, chunk_columns(n_rows, hidden.element_size()))
    col_blocks = triton.cdiv(triton.cdiv(v, n_chunks), sizes["BLOCK_COLS"])
    chunk = col_blocks * sizes["BLOCK_COLS"]
    dlogits = hidden.new_empty((row_blocks * sizes["BLOCK_ROWS"], chunk))
    dhidden, dweight = None, torch.empty_like(weight)
    partial = hidden.new_empty((row_blocks, v), dtype=torch.float32)
    for first in range(0, v, chunk):
        mlm_head_bwd_kernel[row_blocks * col_blocks,](
            dlosses, lse, hidden, weight, bias, labels, dlogits, partial, n_rows, first, V=v, E=e, CHUNK=chunk, **sizes
        )
        tokens = slice(first, min(first + chunk, v))
        filled = dlogits[:n_rows, : tokens.stop - first]
        matmul(filled.T, hidden, out=dweight[tokens])
        dhidden = matmul_fp32(filled, weight[tokens], dhidden)
    return dhidden.to(hidden.dtype), dweight, sum_partials(bias.dtype, partial)


def chunk_columns(n_rows: int, element_size: int) -> int:
    """The most columns of dlogits at a time: what L2 holds, but enough for a GEMM."""
    return max(WORKSPACE // (n_rows * element_size), LEAST_COLUMNS)
