"""attention_block: errors, bits of both dropouts, which gradients are computed, second derivatives and refusals."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from electra_fast.ops import reference_blocks
from electra_fast.ops.contracts import attention_block as contract
from electra_fast.ops.testing import assert_within_budget

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PARTS = ("query", "key", "value")
EPS = 1e-12


def flat(op):
    """The op with a keyword for each tensor."""

    def attention_block(hidden, **given):
        weights, biases = ([given.pop(f"{part}_{kind}") for part in PARTS] for kind in ("weight", "bias"))
        return op(hidden, weights, biases, eps=EPS, **given)

    return attention_block


OURS, REFERENCE = flat(contract.attention_block), flat(reference_blocks.attention_block)


def make(lengths, n_heads, head_size, dtype, device):
    width = n_heads * head_size
    tensors = {"hidden": torch.randn(sum(lengths), width, device=device)}
    for name in (*PARTS, "out"):
        tensors[f"{name}_weight"] = torch.randn(width, width, device=device) / width**0.5
        tensors[f"{name}_bias"] = 0.1 * torch.randn(width, device=device)
    tensors["norm_weight"] = 1 + 0.1 * torch.randn(width, device=device)
    tensors["norm_bias"] = 0.1 * torch.randn(width, device=device)
    return {name: x.to(dtype) for name, x in tensors.items()}


def options(lengths, n_heads, device, p=0.1, causal=False):
    seeds = {
        "attention_seed": torch.tensor([2**62 + 12345], device=device),
        "output_seed": torch.tensor([77], device=device),
    }
    ends = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
    rates = {"attention_p": p, "hidden_p": p, "causal": causal}
    return {"cu_seqlens": ends, "max_seqlen": max(lengths, default=1), "n_heads": n_heads, **rates, **seeds}


def gradients(op, tensors, **given):
    leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
    out = op(**leaves, **given)
    out.backward(torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape).to(out.dtype))
    return {"out": out.detach(), **{name: x.grad for name, x in leaves.items()}}


# The widths of linear_norm's own kernel, and one beyond them; short sequences, and such as have several blocks.
@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(
    "lengths, n_heads, head_size", [([3, 0, 17, 1], 2, 24), ([140, 9], 1, 64), ([21], 5, 64)], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_are_within_the_budget(dtype, lengths, n_heads, head_size, causal, p, device):
    tensors = make(lengths, n_heads, head_size, dtype, device)
    assert_within_budget(OURS, REFERENCE, tensors, **options(lengths, n_heads, device, p, causal))


def test_the_gradient_of_the_keys_bias_is_zero(device):
    """It moves all scores of a query alike."""
    tensors = make([9, 4], 2, 16, torch.float64, device)
    exact = gradients(REFERENCE, tensors, **options([9, 4], 2, device))
    assert exact["key_bias"].abs().max() < 1e-15 < 1e-3 < exact["query_bias"].abs().max()
    ours = gradients(OURS, {name: x.bfloat16() for name, x in tensors.items()}, **options([9, 4], 2, device))
    assert not ours["key_bias"].any()


@pytest.mark.parametrize("lengths", [[60, 5], [140, 5]], ids=str)
def test_two_runs_with_one_seed_are_bit_equal(lengths, device):
    tensors = make(lengths, 2, 64, torch.bfloat16, device)
    one, other = (gradients(OURS, tensors, **options(lengths, 2, device)) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_without_a_backward_the_result_is_the_same(device):
    tensors = make([5, 30], 2, 16, torch.bfloat16, device)
    given = options([5, 30], 2, device)
    assert torch.equal(OURS(**tensors, **given), gradients(OURS, tensors, **given)["out"])


def test_dropouts_have_seeds_of_their_own_and_draw_them_from_torchs_generator(device):
    tensors, given = make([30], 2, 16, torch.float32, device), options([30], 2, device, 0.5)
    expected = OURS(**tensors, **given)
    for name in ("attention_seed", "output_seed"):
        assert not torch.equal(OURS(**tensors, **given | {name: given[name] + 1}), expected)
    del given["attention_seed"], given["output_seed"]
    outs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outs.append(OURS(**tensors, **given))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])


def test_gradients_of_parameters_side_by_side_are_views_of_one(device):
    tensors, given = make([5, 9], 2, 16, torch.float32, device), options([5, 9], 2, device)
    expected = gradients(OURS, tensors, **given)
    for kind in ("weight", "bias"):
        names = [f"{part}_{kind}" for part in PARTS]
        pieces = torch.cat([tensors[name] for name in names]).chunk(3)
        tensors |= {name: torch.nn.Parameter(piece) for name, piece in zip(names, pieces, strict=True)}
    OURS(**tensors, **given).backward(torch.linspace(-1, 1, 14 * 32, device=device).view(14, 32))
    for kind in ("weight", "bias"):
        grads = [tensors[f"{part}_{kind}"].grad for part in PARTS]
        assert len({x.untyped_storage().data_ptr() for x in grads}) == 1
        for part, grad in zip(PARTS, grads, strict=True):
            assert torch.equal(grad, expected[f"{part}_{kind}"])


NOT_FROZEN = [
    ("hidden",),
    ("query_weight",),
    ("value_bias",),
    ("out_weight", "out_bias"),
    ("norm_weight", "norm_bias"),
    ("hidden", "key_weight", "out_bias"),
]


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("asked", NOT_FROZEN, ids=" ".join)
def test_frozen_tensors_get_no_gradient_and_change_none(asked, p, device):
    tensors, given = make([5, 9], 2, 16, torch.float32, device), options([5, 9], 2, device, p)
    expected = gradients(OURS, tensors, **given)
    leaves = {name: x.clone().requires_grad_(name in asked) for name, x in tensors.items()}
    OURS(**leaves, **given).backward(torch.linspace(-1, 1, 14 * 32, device=device).view(14, 32))
    for name, x in leaves.items():
        assert (x.grad is not None) == (name in asked)
        assert x.grad is None or torch.equal(x.grad, expected[name]), name


def test_checkpointing_gives_the_same_bits(device):
    tensors, given = make([5, 30], 2, 16, torch.bfloat16, device), options([5, 30], 2, device)

    def checkpointed(**leaves):
        return checkpoint(OURS, use_reentrant=False, **leaves)

    expected, found = gradients(OURS, tensors, **given), gradients(checkpointed, tensors, **given)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_second_derivative_is_the_references_with_the_same_dropout(device):
    tensors, given = make([5, 9], 2, 16, torch.float32, device), options([5, 9], 2, device)
    results = []
    for op in (OURS, REFERENCE):
        leaves = {name: x.clone().requires_grad_() for name, x in tensors.items()}
        grads = torch.autograd.grad(op(**leaves, **given).sin().sum(), list(leaves.values()), create_graph=True)
        sum(x.square().sum() for x in grads).backward()
        results.append([x.grad for x in leaves.values()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lengths", [[], [0, 0]], ids=str)
def test_no_tokens(lengths, device):
    for p in (0.0, 0.1):
        found = gradients(OURS, make(lengths, 2, 16, torch.bfloat16, device), **options(lengths, 2, device, p))
        assert found.pop("out").shape == found.pop("hidden").shape == (0, 32)
        assert not any(x.any() for x in found.values())


@pytest.mark.parametrize("max_seqlen", [11, 129])
def test_contracts(max_seqlen, device):
    tensors, given = make([4, 11], 2, 16, torch.bfloat16, device), options([4, 11], 2, device)
    weight, bias = (torch.cat([tensors[f"{part}_{kind}"] for part in PARTS]) for kind in ("weight", "bias"))
    end = [tensors[name] for name in ("out_weight", "out_bias", "norm_weight", "norm_bias")]
    others = [given[name] for name in ("cu_seqlens", "attention_seed", "output_seed")]
    forward = (tensors["hidden"], weight, bias, *end, *others, max_seqlen, 2, EPS, 0.1, 0.1, False)
    torch.library.opcheck(contract.attention_block_fwd, (*forward, True))
    # Empty outputs share the null pointer, which test_schema takes for an alias.
    torch.library.opcheck(contract.attention_block_fwd, (*forward, False), test_utils="test_faketensor")
    y, *saved = contract.attention_block_fwd(*forward, True)
    backward = (y, tensors["hidden"], weight, end[0], end[2], others[0], others[2], *saved, max_seqlen, 0.1, 0.1, False)
    torch.library.opcheck(contract.attention_block_bwd, (*backward, [True] * 4))
    for wanted in ([False] * 4, [False, True, False, False]):
        torch.library.opcheck(contract.attention_block_bwd, (*backward, wanted), test_utils="test_faketensor")


def test_it_compiles_as_one_graph(device):
    tensors, given = make([5, 9], 2, 16, torch.float32, device), options([5, 9], 2, device)
    expected = gradients(OURS, tensors, **given)
    found = gradients(torch.compile(OURS, fullgraph=True, backend="aot_eager"), tensors, **given)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_refusals_name_the_tensor(device):
    tensors, given = make([3], 1, 16, torch.float32, device), options([3], 1, device)
    with pytest.raises(ValueError, match=r"attention_block: expected out_bias of torch.float32, as hidden is, got"):
        OURS(**tensors | {"out_bias": tensors["out_bias"].bfloat16()}, **given)
    with pytest.raises(ValueError, match="attention_block: the Triton kernels take a head size up to 128, got 129"):
        OURS(**make([3], 1, 129, torch.float32, device), **given)
    with pytest.raises(ValueError, match=r"contiguous cu_seqlens of torch.int32 on .*, got torch.int64"):
        OURS(**tensors, **given | {"cu_seqlens": given["cu_seqlens"].long()})
    with pytest.raises(ValueError, match=r"dropout_p must be between 0 and 1, got 1\.5"):
        OURS(**tensors, **given | {"hidden_p": 1.5})
