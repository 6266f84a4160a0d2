"""The references of the two halves of a layer against their formulas, written out in fp64."""

import pytest
import torch
import torch.nn.functional as F
from block_cases import EPS, attention_case, both, feed_forward_case, gradients
from torch.autograd import gradcheck

from electra_fast.ops import reference, reference_blocks


def double(case):
    return {name: x.double() for name, x in case.tensors.items()}


def norm(x, given):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * given["norm_weight"] + given["norm_bias"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", [[5], [3, 7, 1], [4, 4], [2, 0, 3]], ids=str)
def test_the_first_half_is_its_formula(lengths, causal):
    case = attention_case(lengths, 2, 4, causal)
    given, start, rows = double(case), 0, []
    hidden = given["hidden"]
    for n in lengths:
        x = hidden[start : start + n]
        q, k, v = (
            (x @ given[f"{part}_weight"].T + given[f"{part}_bias"]).view(n, 2, 4).transpose(0, 1) for part in "qkv"
        )
        scores = q @ k.transpose(1, 2) / 2
        if causal:
            scores = scores + torch.full((n, n), -torch.inf, dtype=torch.float64).triu(1)
        rows.append((scores.softmax(-1) @ v).transpose(0, 1).reshape(n, 8))
        start += n
    expected = norm(hidden + torch.cat(rows) @ given["out_weight"].T + given["out_bias"], given)
    torch.testing.assert_close(case.reference(**given, **case.options), expected, rtol=0, atol=1e-12)


def test_the_second_half_is_its_formula():
    case = feed_forward_case(7, 8, 12)
    given = double(case)
    inner = given["hidden"] @ given["inner_weight"].T + given["inner_bias"]
    gelu = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    expected = norm(given["hidden"] + gelu @ given["outer_weight"].T + given["outer_bias"], given)
    torch.testing.assert_close(case.reference(**given), expected, rtol=0, atol=1e-12)


def test_another_activation_takes_gelus_place():
    given = double(feed_forward_case(7, 8, 12))
    inner = (given["hidden"] @ given["inner_weight"].T + given["inner_bias"]).relu()
    expected = norm(given["hidden"] + inner @ given["outer_weight"].T + given["outer_bias"], given)
    found = reference_blocks.feed_forward_block_with(F.relu, eps=EPS, **given)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "case", [attention_case([3, 0, 2], 2, 2), feed_forward_case(3, 4, 5)], ids=lambda case: case.op
)
def test_gradients(case):
    given = {name: x.double().requires_grad_() for name, x in case.tensors.items()}
    names = list(given)
    assert gradcheck(
        lambda *values: case.reference(**dict(zip(names, values, strict=True)), **case.options), tuple(given.values())
    )


@pytest.mark.parametrize("case", both(), ids=lambda case: case.op)
def test_dropout_is_that_of_the_ops_they_are_made_of(case):
    case = case.dropping(0.3)
    one, same = (gradients(case.reference, case.leaves(), **case.options) for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, same[name]), name
    plain = gradients(case.reference, case.leaves(), **case.dropping(0.0).options)
    assert not torch.allclose(plain["out"], one["out"], atol=1e-2)


def test_parameters_side_by_side_give_what_parameters_apart_give():
    case = attention_case([3, 4], 2, 4)
    apart, together = case.leaves(), case.leaves()
    for kind in ("weight", "bias"):
        names = [f"{part}_{kind}" for part in "qkv"]
        pieces = torch.cat([case.tensors[name] for name in names]).chunk(3)
        together |= {name: torch.nn.Parameter(piece) for name, piece in zip(names, pieces, strict=True)}
    expected, found = (gradients(case.reference, given, **case.options) for given in (apart, together))
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert reference.attention is reference_blocks.attention
