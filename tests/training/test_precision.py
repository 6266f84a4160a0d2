"""Parameters below fp32 with fp32 masters."""

import platform
import warnings

import pytest
import torch

from electra_fast.model.precision import default_precision, warn_if_slow
from electra_fast.training.distributed import join
from electra_fast.training.optim import LAMB, AdamW
from electra_fast.training.precision import LossScale, chosen_precision, lower_precision


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
    torch.testing.assert_close(optimizer.master_of(model.weight), torch.full((1, 4), 0.99), rtol=0, atol=1e-5)
    assert model.weight.dtype == torch.bfloat16


def test_the_loss_scale_falls_with_bad_steps_and_rises_after_good_ones():
    scale = LossScale(torch.device("cpu"), 8.0, interval=3)
    seen = []
    for is_finite in (False, True, True, True, True, False):
        scale.update(torch.tensor(is_finite))
        seen.append(float(scale.value))
    assert seen == [4, 4, 4, 8, 8, 4]


def test_a_step_in_fp16_that_is_not_finite_is_left_out_and_halves_the_scale():
    model = torch.nn.Linear(4, 1, bias=False)
    optimizer = AdamW(model.parameters(), lr=0.1)
    lower_precision(optimizer, torch.float16)
    optimizer.loss_scale = LossScale(torch.device("cpu"), 1024.0)
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, float("inf"))
    optimizer.step()
    assert torch.equal(model.weight, before)
    assert float(optimizer.loss_scale.value) == 512
    model.weight.grad = torch.full_like(model.weight, 512.0)
    optimizer.step()
    assert not torch.equal(model.weight, before)
    assert float(optimizer.grad_norm) == pytest.approx(2.0)


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


@pytest.mark.parametrize("has_bf16, warned", [(True, ["fp16"]), (False, ["bf16", "fp16"])])
def test_a_precision_that_is_slow_on_this_cpu_is_told(has_bf16, warned, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    for name in ("_is_amx_tile_supported", "_is_amx_fp16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    warn_if_slow.cache_clear()
    told = []
    with join("cpu") as world:
        for asked in (None, "fp32", "bf16", "fp16"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert chosen_precision(asked, world) == (asked or "fp32")
            told += [asked for warning in caught if "does not multiply" in str(warning.message)]
    warn_if_slow.cache_clear()
    assert told == warned
