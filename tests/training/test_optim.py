"""The optimizer against the paper's update and torch's own; the schedule against its definition."""

import copy

import pytest
import torch

from electra_fast.training.optim import AdamW, decay_groups
from electra_fast.training.schedule import warmup_decay


def parameters(n=3):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(4, n, dtype=torch.float64)) for n in range(1, n + 1)]


def give_gradients(params, step, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = scale * torch.randn(p.shape, generator=generator, dtype=p.dtype)


def test_the_update_is_the_originals():
    (p,) = params = parameters(1)
    expected, m, v = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
    optimizer = AdamW(params, lr=0.1, weight_decay=0.02, max_grad_norm=None)
    for step in range(4):
        give_gradients(params, step)
        m, v = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2
        expected = expected - 0.1 * (m / (v.sqrt() + 1e-6) + 0.02 * expected)
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-12)


def test_with_bias_correction_it_is_torchs_adamw():
    ours, theirs = parameters(), parameters()
    optimizers = [
        AdamW(ours, lr=0.1, eps=1e-8, weight_decay=0.02, bias_correction=True, max_grad_norm=None),
        torch.optim.AdamW(theirs, lr=0.1, eps=1e-8, weight_decay=0.02),
    ]
    for step in range(5):
        for params, optimizer in zip((ours, theirs), optimizers, strict=True):
            give_gradients(params, step)
            optimizer.step()
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_all_gradients_are_clipped_together(scale):
    ours, theirs = parameters(), parameters()
    first = AdamW([{"params": ours[:1]}, {"params": ours[1:]}], lr=0.1, max_grad_norm=1.0)
    second = AdamW(theirs, lr=0.1, max_grad_norm=None)
    give_gradients(ours, 0, scale)
    give_gradients(theirs, 0, scale)
    norm = torch.stack([p.grad.norm() for p in theirs]).norm()
    for p in theirs:
        p.grad /= max(1.0, norm.item())
    first.step(), second.step()
    torch.testing.assert_close(first.grad_norm, norm)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_state_survives_saving():
    ours, theirs = parameters(), parameters()
    first, second = AdamW(ours, bias_correction=True), AdamW(theirs, bias_correction=True)
    for step in range(3):
        give_gradients(ours, step)
        first.step()
    for x, y in zip(theirs, ours, strict=True):
        x.data.copy_(y.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for params, optimizer in ((ours, first), (theirs, second)):
        give_gradients(params, 9)
        optimizer.step()
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y)


def test_norms_and_biases_do_not_decay():
    layer = torch.nn.Module()
    layer.dense, layer.LayerNorm = torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)
    layer.tied = layer.dense
    decayed, kept = decay_groups(layer, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert kept["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(layer.dense.weight)]
    assert {id(p) for p in kept["params"]} == {id(p) for p in (layer.dense.bias, *layer.LayerNorm.parameters())}


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(lr=-1), "lr"), (dict(betas=(0.9, 1.0)), "betas"), (dict(max_grad_norm=0), "max_grad_norm")],
)
def test_settings_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        AdamW(parameters(), **options)


@pytest.mark.parametrize(
    ("step", "progress", "warmup", "expected"),
    [
        (0, 0.0, 10, 0.0),
        (5, 0.05, 10, 0.475),
        (10, 0.1, 10, 0.9),
        (50, 0.5, 10, 0.5),
        (100, 1.0, 10, 0.0),
        (0, 0.0, 0, 1.0),
    ],
)
def test_warm_up_and_decay_are_multiplied(step, progress, warmup, expected):
    assert warmup_decay(step, progress, warmup) == pytest.approx(expected)
