"""Pre-training on a CPU: the layers and vocabulary heads of all networks go through the ops in C++."""

import pytest
import torch
from pretraining_models import KINDS, forward, make

from electra_fast.ops.contracts import cpu_library

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

# Encoders that compute in a step: Electric has two towers beside the network, a frozen generator's are not trained.
N_ENCODERS = {"mlm": 1, "uniform": 1, "electric": 3, "frozen electric": 3}
N_HEADS = {"uniform": 0, "electric": 2, "frozen electric": 2}


def step(model):
    output = forward(model)
    output.loss.backward()
    return {
        "loss": output.loss.detach(),
        **{name: p.grad for name, p in model.named_parameters() if p.grad is not None},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_torch(kind, served, served_heads):
    found, expected = (step(make(kind, impl=impl).float().train()) for impl in ("auto", "torch"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-3 * scale, msg=name)
    assert len(served_heads) == N_HEADS.get(kind, 1)
    assert len(served) == 2 * 2 * N_ENCODERS.get(kind, 2)
