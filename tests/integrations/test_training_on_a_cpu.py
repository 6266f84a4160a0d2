"""transformers' models in training on a CPU: their layers by one op in C++ a half, where all modules are plain."""

import pytest
import torch
from electra_calls import assert_same, labels_for, padded_batch, results, tiny
from torch import nn

from electra_fast.integrations.transformers import patch
from electra_fast.ops.contracts import cpu_library

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

NAME = "ElectraForTokenClassification"
N_LAYERS = 2


def listened(model):
    model.electra.encoder.layer[0].output.dense.register_forward_hook(lambda module, given, output: None)


def replaced(model):
    query = model.electra.encoder.layer[0].attention.self.query
    model.electra.encoder.layer[0].attention.self.query = nn.Sequential(query, nn.Tanh())


def frozen(model):
    model.electra.encoder.layer[0].requires_grad_(False)


@pytest.mark.parametrize(
    "change, n_pieces",
    [(None, 0), (frozen, 0), (replaced, 1), (nn.Module.double, 2 * N_LAYERS)],
    ids=["plain", "frozen", "replaced", "double"],
)
def test_training_is_served(change, n_pieces, served):
    model, call = tiny(NAME).train(), padded_batch()
    call |= labels_for(NAME, call)
    if change is not None:
        change(model)
    expected = results(model, call)
    served.clear()
    assert_same(results(patch(model), call), expected)
    assert len(served) == 2 * N_LAYERS - n_pieces


def test_a_hook_of_a_users_leaves_the_model_to_transformers(served):
    model, call = tiny(NAME).train(), padded_batch()
    listened(model)
    patch(model)(**call)
    assert not served


def test_checkpointing_draws_the_same_dropout_again(served):
    gradients = []
    for is_checkpointed in (False, True):
        model = tiny(NAME, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.enable_input_require_grads()  # a hook that checkpointing adds: the embedding goes piece by piece then
        torch.manual_seed(3)
        call = padded_batch()
        patch(model)(**call, **labels_for(NAME, call)).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *gradients))
    assert len(served) == 3 * 2 * N_LAYERS
