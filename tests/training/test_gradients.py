"""Gradients of an update: where they lie, and those that some backwards do not give."""

import pytest
import torch
from torch import nn

from electra_fast.training.distributed import join
from electra_fast.training.gradients import FlatGradients, Gradients

KINDS = {"alone": Gradients, "flat": lambda model: FlatGradients(model, 1)}


class Parts(nn.Module):
    """Parameters that begin anywhere but at 16 bytes if they lie one after the other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Parameter(torch.randn(1))
        self.three = nn.Parameter(torch.randn(3).bfloat16())
        self.many = nn.Parameter(torch.randn(5, 7))
        self.five = nn.Parameter(torch.randn(5).bfloat16())
        self.frozen = nn.Parameter(torch.randn(2), requires_grad=False)


def backward(model, factor, names):
    sum(factor * getattr(model, name).float().square().sum() for name in names).backward()


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_backwards(kind):
    model = Parts()
    with join("cpu"):
        gradients = KINDS[kind](model)
        for factors in ((3,), (1, 2), (0.5, 2, 0.5)):
            gradients.clear()
            for i, factor in enumerate(factors):
                gradients.expect(i == len(factors) - 1)
                with gradients.collect():
                    backward(model, factor, ["one", "three", "many", "five"])
            gradients.finish()
            for p in (model.one, model.three, model.many, model.five):
                torch.testing.assert_close(p.grad, 6 * p.detach())
                assert p.grad.data_ptr() % 16 == 0 and p.grad.is_contiguous()
            assert model.frozen.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_backward_may_leave_out_parameters(kind):
    model = Parts()
    with join("cpu"):
        gradients = KINDS[kind](model)
        gradients.clear()
        for names in (["one", "three", "five"], ["many"], ["one", "five"]):
            with gradients.collect():
                backward(model, 1, names)
        gradients.finish()
    for name, n in {"one": 2, "three": 1, "many": 1, "five": 2}.items():
        p = getattr(model, name)
        torch.testing.assert_close(p.grad, 2 * n * p.detach())


def test_alone_a_parameter_without_a_gradient_has_none():
    model = Parts()
    gradients = Gradients(model)
    for names in (["one", "three"], ["many"]):
        gradients.clear()
        with gradients.collect():
            backward(model, 1, names)
        gradients.finish()
        assert [name for name, p in model.named_parameters() if p.grad is not None] == names


def test_several_processes_need_all_gradients():
    model = Parts()
    with join("cpu"):
        gradients = FlatGradients(model, 1)
        with gradients.collect():
            backward(model, 1, ["one", "three"])
        with pytest.raises(RuntimeError, match=r"expected a gradient in every update, .* for many and 1 others"):
            gradients.finish()


def test_alone_nothing_is_copied_or_added(monkeypatch):
    for name in ("_foreach_add_", "_foreach_copy_"):
        monkeypatch.setattr(torch, name, None)
    model = Parts()
    gradients, seen = Gradients(model), []
    model.many.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad))
    with gradients.collect():
        backward(model, 1, ["many"])
    gradients.finish()
    assert model.many.grad is seen[0]
