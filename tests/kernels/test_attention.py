"""attention: errors, bits of the dropout, what may not depend on the packing, contracts and refusals."""

import pytest
import torch
from electra_fast.kernels import attention as kernels

from electra_fast.ops import philox, reference
from electra_fast.ops.contracts import attention
from electra_fast.ops.testing import assert_within_budget, compare

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def make(lengths, n_heads, head_size, dtype, device):
    qkv = torch.randn(sum(lengths), 3, n_heads, head_size, device=device).to(dtype)
    ends = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    return {"qkv": qkv, "cu_seqlens": ends}


# Tiles of 16, 32, 64 and 128 in one program, then several blocks; the blocks of fp32 are smaller.
SHAPES = [
    ([5], 3, 16),
    ([3, 7, 1], 2, 24),
    ([17, 0, 33], 1, 64),
    ([40, 34], 1, 80),
]
SHAPES_16 = [([0, 17, 0, 128], 4, 16), ([129, 64, 150], 1, 64), ([130], 1, 128), ([300], 1, 64)]
SHAPES_32 = [([0, 17, 0, 70], 1, 64), ([35], 1, 128)]
CASES = [
    (dtype, *shape)
    for dtype in DTYPES
    for shape in SHAPES + (SHAPES_32 if dtype == torch.float32 else SHAPES_16)
]  # fmt: skip


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype, lengths, n_heads, head_size", CASES, ids=str)
def test_errors_are_within_the_budget(dtype, lengths, n_heads, head_size, causal, dropout_p, device):
    tensors = make(lengths, n_heads, head_size, dtype, device)
    assert_within_budget(
        attention.attention,
        reference.attention,
        tensors,
        max_seqlen=max(lengths),
        causal=causal,
        dropout_p=dropout_p,
        seed=torch.tensor([2**62 + 12345], device=device),
    )


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_token_attends_to_itself(dtype, causal, dropout_p, device):
    """Its score has no influence, so the gradients of query and key are zero: what is left there is the rounding of two
    equal sums of 64 products, and has no size of its own that it could be held against. So it is held against dv's."""

    def of_three(op):
        return lambda query, key, value, **options: op(torch.stack([query, key, value], 1), **options)

    n_heads, head_size = 16, 64
    tensors = {name: torch.randn(1, n_heads, head_size, device=device).to(dtype) for name in ("query", "key", "value")}
    errors = compare(
        of_three(attention.attention),
        of_three(reference.attention),
        tensors,
        cu_seqlens=torch.tensor([0, 1], dtype=torch.int32, device=device),
        max_seqlen=1,
        causal=causal,
        dropout_p=dropout_p,
        seed=torch.tensor([2**62 + 12345], device=device),
    )
    found = {error.name: error for error in errors}
    assert found["out"].is_within and found["dvalue"].is_within
    # `rounding` is half an ulp of the size; a sum of n products is off by about sqrt(n) of these, on either side.
    allowed = 2 * head_size**0.5 * found["dvalue"].rounding
    assert max(found["dquery"].kernel, found["dkey"].kernel) <= allowed


def test_errors_of_a_long_sequence(device):
    tensors = make([513], 1, 64, torch.bfloat16, device)
    seed = torch.tensor([7], device=device)
    assert_within_budget(
        attention.attention, reference.attention, tensors, max_seqlen=513, dropout_p=0.1, seed=seed, backward=False
    )


@pytest.mark.parametrize("dropout_p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("length", [23, 140])
def test_dropout_draws_the_bits_of_the_reference(length, dropout_p, device):
    """Equal scores, and values that tell the keys apart: a key's weight is in its own dimension of the output."""
    n_heads, start = 2, 9
    tensors = make([start, length], n_heads, 64, torch.float16, device)
    qkv = tensors["qkv"].zero_()
    seed = torch.tensor([987654321 << 20], device=device)
    for first in range(0, length, 64):
        qkv[start:, 2].zero_()
        n_dims = min(64, length - first)
        qkv[start + first : start + first + n_dims, 2] = torch.eye(n_dims, 64, device=device)[:, None].half()
        out = attention.attention(**tensors, max_seqlen=length, dropout_p=dropout_p, seed=seed)
        rows, heads = torch.arange(start, start + length, device=device), torch.arange(n_heads, device=device)
        keep = philox.keep_mask(seed, rows, length, dropout_p, heads)[:, :, first : first + n_dims]
        assert torch.equal(out[start:, :, :n_dims] > 0, keep.transpose(0, 1))
        expected = torch.tensor(philox.keep_scale(dropout_p) / length, device=device).half()
        assert torch.allclose(out[start:, :, :n_dims][keep.transpose(0, 1)], expected, rtol=2e-3)


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(
    "lengths, head_size, dtype",
    [([5, 0, 17, 33], 24, torch.bfloat16), ([140, 0, 3, 129], 64, torch.bfloat16), ([17, 0, 33], 64, torch.float32)],
    ids=["short", "long", "fp32"],
)
def test_sums_of_the_gradients_are_those_over_the_tokens(lengths, head_size, dtype, causal, device):
    tensors, seed = make(lengths, 2, head_size, dtype, device), torch.tensor([5], device=device)
    max_seqlen = max(lengths) + 60  # blocks past the end of all sequences write zeros
    out, *saved = kernels.attention_fwd(*tensors.values(), max_seqlen, seed, 0.1, causal, True)
    dout, (qkv, cu_seqlens) = torch.randn(out.shape, device=device).to(dtype), tensors.values()
    dqkv, sums = kernels.attention_grads(dout, qkv, out, *saved, cu_seqlens, max_seqlen, 0.1, causal)
    expected, found = dqkv.double().sum(0), sums.double().sum(0)
    # The summands are rounded to the dtype, the sums are not.
    allowed = 8 * torch.finfo(dtype).eps * dqkv.double().square().sum(0).sqrt().max() + 1e-6
    assert not found[1].any() and expected[1].abs().max() <= 2 * allowed
    assert (found - expected)[[0, 2]].abs().max() <= allowed


def test_dropping_everything_gives_zeros(device):
    for length in (9, 130):
        tensors = make([length], 1, 64, torch.bfloat16, device)
        qkv = tensors["qkv"].requires_grad_()
        out = attention.attention(**tensors, max_seqlen=length, dropout_p=1.0)
        out.sum().backward()
        assert not out.any() and not qkv.grad.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [9, 70, 130])
def test_scores_far_below_zero(dtype, length, device):
    """What lies outside of a sequence counts as zero, and must not."""
    tensors = make([length], 1, 64, dtype, device)
    tensors["qkv"][:, 0], tensors["qkv"][:, 1] = 6, -6
    tensors["qkv"][:, 1, :, 0] += torch.arange(length, device=device)[:, None] / 8
    results = []
    for op, x in ((attention.attention, tensors["qkv"]), (reference.attention, tensors["qkv"].double())):
        x.requires_grad_()
        out = op(x, tensors["cu_seqlens"], length)
        out.sin().sum().backward()
        results.append((out.double(), x.grad.double()))
    for ours, exact in zip(*results, strict=True):
        torch.testing.assert_close(ours, exact, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("max_seqlen", [40, 150])
def test_a_sequence_is_the_same_alone_and_packed(max_seqlen, device):
    tensors = make([21, 40, 7], 2, 64, torch.bfloat16, device)
    alone = {
        "qkv": tensors["qkv"][21:61].clone(),
        "cu_seqlens": torch.tensor([0, 40], dtype=torch.int32, device=device),
    }
    results = []
    for inputs in (tensors, alone):
        qkv = inputs["qkv"].requires_grad_()
        out = attention.attention(inputs["qkv"], inputs["cu_seqlens"], max_seqlen)
        out.sin().sum().backward()
        results.append((out, qkv.grad))
    for packed, single in zip(*results, strict=True):
        assert torch.equal(packed[21:61], single)


@pytest.mark.parametrize("length", [60, 140])
def test_two_runs_with_one_seed_are_bit_equal(length, device):
    def run():
        torch.manual_seed(3)
        tensors = make([length, 5], 2, 64, torch.bfloat16, device)
        qkv = tensors["qkv"].requires_grad_()
        out = attention.attention(**tensors, max_seqlen=length, dropout_p=0.1)
        out.sin().sum().backward()
        return out, qkv.grad

    for one, other in zip(run(), run(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("length", [20, 140])
def test_strided_inputs_give_the_same_as_contiguous_ones(length, device):
    tensors = make([length], 2, 16, torch.bfloat16, device)
    qkv = tensors["qkv"]
    layouts = [
        torch.cat([qkv, qkv], dim=-1)[..., :16],
        qkv.transpose(0, 2).contiguous().transpose(0, 2),
        qkv.transpose(2, 3).contiguous().transpose(2, 3),
    ]
    results = []
    for x in (qkv, *layouts):
        x = x.detach().requires_grad_()
        out = attention.attention(x, tensors["cu_seqlens"], length)
        out.transpose(0, 1).sin().sum().backward()
        results.append((out, x.grad))
    for out, grad in results[1:]:
        assert torch.equal(out, results[0][0]) and torch.equal(grad, results[0][1])


@pytest.mark.parametrize("lengths", [[], [0, 0]], ids=str)
def test_no_tokens(lengths, device):
    tensors = make(lengths, 2, 64, torch.bfloat16, device)
    qkv = tensors["qkv"].requires_grad_()
    for max_seqlen in (1, 200):
        out = attention.attention(**tensors, max_seqlen=max_seqlen)
        out.sum().backward()
        assert out.shape == (0, 2, 64) and qkv.grad.shape == qkv.shape


@pytest.mark.parametrize("max_seqlen", [11, 129])
def test_contracts(max_seqlen, device):
    tensors = make([4, 11], 2, 16, torch.bfloat16, device)
    seed = torch.tensor([1], device=device)
    options = (max_seqlen, seed, 0.1, False)
    torch.library.opcheck(attention.attention_fwd, (*tensors.values(), *options, True))
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    torch.library.opcheck(attention.attention_fwd, (*tensors.values(), *options, False), test_utils="test_faketensor")
    out, *saved = attention.attention_fwd(*tensors.values(), *options, True)
    arguments = (out, tensors["qkv"], out.clone(), *saved, tensors["cu_seqlens"], max_seqlen, 0.1, False)
    torch.library.opcheck(attention.attention_bwd, arguments)


def test_refusals_name_the_tensor(device):
    tensors = make([3], 1, 64, torch.float32, device)
    with pytest.raises(ValueError, match="head size up to 128, got 129"):
        attention.attention(**tensors | {"qkv": torch.zeros(3, 3, 1, 129, device=device)}, max_seqlen=3)
    with pytest.raises(ValueError, match=r"contiguous cu_seqlens of torch.int32 on .*, got torch.int64"):
        attention.attention(**tensors | {"cu_seqlens": tensors["cu_seqlens"].long()}, max_seqlen=3)
    with pytest.raises(ValueError, match=r"contiguous cu_seqlens of torch.int32 on .*, got torch.int32 on meta"):
        attention.attention(**tensors | {"cu_seqlens": tensors["cu_seqlens"].to("meta")}, max_seqlen=3)
    with pytest.raises(ValueError, match=r"contiguous cu_seqlens .* with stride \(2,\)"):
        attention.attention(**tensors | {"cu_seqlens": tensors["cu_seqlens"].repeat(2)[::2]}, max_seqlen=3)
    with pytest.raises(ValueError, match=r"float32, bfloat16 and float16, got qkv of torch.float64"):
        attention.attention(**tensors | {"qkv": tensors["qkv"].double()}, max_seqlen=3)
    with pytest.raises(ValueError, match=r"dropout_p must be between 0 and 1, got -0.1"):
        attention.attention(**tensors, max_seqlen=3, dropout_p=-0.1)
