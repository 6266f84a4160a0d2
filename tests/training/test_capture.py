"""Steps replayed from recordings beside eager ones, on a CPU with a stand-in for CUDA graphs."""

import pytest
import torch
import torch.nn.functional as F
from cpu_graphs import cpu_graphs
from torch import nn

from electra_fast.training.capture import CapturedStep, is_capturable
from electra_fast.training.distributed import join
from electra_fast.training.gradients import FlatGradients, Gradients
from electra_fast.training.optim import LAMB, AdamW
from electra_fast.training.precision import LossScale, lower_precision
from electra_fast.training.step import Step

N_UPDATES = 9


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.frozen = nn.Linear(6, 7), nn.Linear(7, 3), nn.Linear(6, 7)
        self.frozen.requires_grad_(False)
        self.divisor = torch.tensor(1.0)

    def forward(self, x):
        hidden = F.dropout(torch.tanh(self.first(x) + self.frozen(x)), 0.2)
        return self.second(hidden / self.divisor.to(hidden.dtype))


def trained(step_class, n_parts=1, optimizer=AdamW, dtype=torch.float32, is_decoupled=False, is_flat=False):
    """Weights, state and outputs of updates whose rate, divisor, inputs and dropout change; one is not finite."""
    network, outputs = Network(), []
    parts = [[network.first, network.frozen], [network.second]] if is_decoupled else [[network]]
    optimizers = [optimizer([p for x in part for p in x.parameters()], impl="torch") for part in parts]
    for each in optimizers:
        lower_precision(each, dtype)
    scale = LossScale(torch.device("cpu"), 64.0, interval=3) if dtype == torch.float16 else None
    for each in optimizers:
        each.loss_scale = scale

    def compute(x, target):
        loss = F.mse_loss(network(x.to(dtype)).float(), target)
        (loss if scale is None else loss * scale.value).backward()
        return {"loss": loss.detach()}

    step = step_class(compute, optimizers, FlatGradients(network, 1) if is_flat else Gradients(network))
    source = torch.Generator().manual_seed(1)
    for i in range(N_UPDATES):
        for each in optimizers:
            each.param_groups[0]["lr"] = 0.1 / (i + 1)
        network.divisor.fill_(1 + 0.1 * i)
        torch.manual_seed(i)
        data = [
            (torch.randn(5, 6, generator=source), torch.randn(5, 3, generator=source) * (1e30 if i == 6 else 1))
            for _ in range(n_parts)
        ]
        for output in step(data):
            outputs.append(output["loss"].clone())
    state = {name: x.detach() for name, x in network.named_parameters()}
    for each in optimizers:
        for p, of in each.state.items():
            state |= {f"{tuple(p.shape)}.{name}": x for name, x in of.items()}
    state |= {} if scale is None else {"scale": scale.value, "n_good": scale.n_good}
    norms = [each.grad_norm for each in optimizers]
    return {**state, "outputs": torch.stack(outputs), "norms": torch.stack(norms)}


CASES = {
    "plain": {},
    "two parts": {"n_parts": 2},
    "three parts": {"n_parts": 3},
    "decoupled": {"is_decoupled": True},
    "lamb": {"optimizer": LAMB},
    "bf16": {"dtype": torch.bfloat16},
    "fp16 with a loss scale": {"dtype": torch.float16, "n_parts": 2},
    "fp16, decoupled": {"dtype": torch.float16, "is_decoupled": True},
    "flat": {"is_flat": True},
    "flat, three parts, decoupled": {"is_flat": True, "n_parts": 3, "is_decoupled": True},
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_are_the_eager_ones(case):
    options = CASES[case]
    with join("cpu"):
        expected = trained(Step, **options)
        with cpu_graphs() as graphs:
            found = trained(CapturedStep, **options)
    assert len(graphs) == 2 + (options.get("n_parts", 1) > 1)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x, rtol=0, atol=0, equal_nan=True, msg=name)
    assert all(x.isfinite().all() for name, x in found.items() if name != "outputs")
    assert not found["outputs"].isfinite().all()  # those of the update that is left out


@pytest.mark.parametrize("factor", [1.0, torch.inf])
def test_two_optimizers_share_a_loss_scale(factor):
    """An update in which one of them leaves its gradients out halves the scale, once, and the other one's is right."""
    layers, scale = [nn.Linear(2, 1, bias=False) for _ in range(2)], LossScale(torch.device("cpu"), 1024.0, interval=2)
    optimizers = [AdamW(layer.parameters(), impl="torch") for layer in layers]
    for each in optimizers:
        each.loss_scale = scale

    def compute(x):
        loss = factor * layers[0](x).sum() + layers[1](x).sum()
        (loss * scale.value).backward()
        return loss.detach()

    list(Step(compute, optimizers, Gradients(nn.ModuleList(layers)))([(torch.ones(1, 2),)]))
    assert float(scale.value) == (1024 if factor == 1 else 512)
    assert float(scale.n_good) == (1 if factor == 1 else 0)
    assert float(optimizers[1].grad_norm) == pytest.approx(2**0.5)


def test_inputs_must_stay_alike():
    network = Network()
    optimizer = AdamW(network.parameters(), impl="torch")
    with cpu_graphs():
        step = CapturedStep(lambda x: network(x).sum().backward(), [optimizer], Gradients(network))
        for _ in range(4):
            list(step([(torch.ones(5, 6),)]))
        message = r"takes inputs like its first, \(5, 6\) of torch.float32, got \(4, 6\) of torch.float32"
        with pytest.raises(ValueError, match=message):
            list(step([(torch.ones(4, 6),)]))


def test_the_device_decides_what_is_captured(monkeypatch):
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert not is_capturable(gpu, "torch", "ddp")
    monkeypatch.setattr("electra_fast.ops.registry.obstacle", lambda: None)
    assert is_capturable(gpu, "auto", "ddp") and is_capturable(gpu, "triton", "ddp")
    assert not is_capturable(gpu, "torch", "ddp")  # the reference reads on the host
    assert not is_capturable(gpu, "auto", "fsdp")
    assert not is_capturable(cpu, "auto", "ddp")
