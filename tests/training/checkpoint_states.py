"""States of a small network, and checkpoints of them."""

import torch

from electra_fast.training.checkpoint import Checkpoints, training_state
from electra_fast.training.optim import AdamW
from electra_fast.training.precision import LossScale

SETTINGS = {"recipe": {"dropout": 0.1, "layers": (1, 2)}, "seed": 3, "text": "0123"}


def trained(size=6, seed=0, n_steps=2):
    """The state after some steps: masters, moments, step counts and a loss scale, none of them as they began."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(5, size), torch.nn.LayerNorm(size), torch.nn.Linear(size, 1))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    optimizer.loss_scale = LossScale(torch.device("cpu"), initial=8.0)
    for _ in range(n_steps):
        (8.0 * model(torch.randn(3, 5)).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return training_state(model, [optimizer])


def flat(state):
    return {f"{part}.{name}": x.clone() for part, tensors in state.items() for name, x in tensors.items()}


def assert_equal(state, expected):
    state = flat(state)
    assert state.keys() == expected.keys()
    assert [name for name in state if not torch.equal(state[name], expected[name])] == []


def write(directory, *steps, keep=10, settings=SETTINGS):
    """Checkpoints of states that differ; returns those, by step."""
    checkpoints, states = Checkpoints(directory, settings, keep), {}
    for step in steps:
        state = trained(seed=step)
        states[step] = flat(state)
        checkpoints.save(step, state)
    checkpoints.finish()
    return checkpoints, states
