"""Parameters below fp32 with fp32 masters."""

import pytest
import torch

from electra_fast.training.optim import LAMB, AdamW
from electra_fast.training.precision import default_precision, lower_precision, precise_weights


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.GELU(), torch.nn.Linear(30, 1))


@pytest.mark.parametrize("optimizer_class", [AdamW, LAMB])
def test_masters_are_the_weights_before_rounding(optimizer_class):
    model = network()
    precise = [p.detach().clone() for p in model.parameters()]
    optimizer = optimizer_class(model.parameters(), lr=1e-2)
    lower_precision(optimizer, torch.bfloat16)
    for p, master in zip(model.parameters(), precise, strict=True):
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, master.bfloat16())
        assert torch.equal(optimizer.master_of(p), master)


def test_small_updates_are_not_lost():
    """An update far below bf16's resolution adds up in the masters: a hundred of them move the parameter."""
    model = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    optimizer = AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, bias_correction=True)
    lower_precision(optimizer, torch.bfloat16)
    for _ in range(100):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert torch.allclose(model.weight.float(), torch.tensor(0.99), atol=2**-8)
    with precise_weights(optimizer):
        torch.testing.assert_close(model.weight.detach(), torch.full((1, 4), 0.99), rtol=0, atol=1e-5)
    assert model.weight.dtype == torch.bfloat16


def test_precise_weights_give_the_memory_back():
    model = network()
    optimizer = AdamW(model.parameters())
    lower_precision(optimizer, torch.bfloat16)
    addresses = [p.data_ptr() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="on purpose"), precise_weights(optimizer):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        raise RuntimeError("on purpose")
    assert [p.data_ptr() for p in model.parameters()] == addresses


def test_training_in_bf16_follows_fp32():
    inputs, targets = torch.randn(64, 20), torch.randn(64, 1)

    def losses(dtype):
        model = network()
        optimizer = AdamW(model.parameters(), lr=1e-2, max_grad_norm=None)
        lower_precision(optimizer, dtype)
        history = []
        for _ in range(60):
            loss = (model(inputs.to(dtype)).float() - targets).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            history.append(loss.item())
        return history

    precise, rounded = losses(torch.float32), losses(torch.bfloat16)
    assert precise[-1] < 0.5 * precise[0]
    assert abs(rounded[-1] - precise[-1]) < 0.05


def test_the_default_goes_by_the_device():
    assert default_precision(torch.device("cuda")) == "bf16"
    assert default_precision(torch.device("cpu")) == "fp32"
