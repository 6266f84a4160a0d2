"""States of the time when queries, keys and values were one parameter load into the three of today."""

import copy
import re

import pytest
import torch
from torch import nn

from electra_fast import ElectraConfig, ElectraForPreTraining
from electra_fast.model.qkv import NAMES, QueriesKeysValues
from electra_fast.training.checkpoint import Checkpoints, training_state
from electra_fast.training.distributed import join
from electra_fast.training.joined_states import split_optimizer_state
from electra_fast.training.optim import LAMB, AdamW, decay_groups

SHAPE = dict(vocab_size=40, embedding_size=8, hidden_size=12, num_hidden_layers=2, num_attention_heads=2)
IDS = torch.arange(1, 13).reshape(2, 6)


class OldAttention(nn.Module):
    """Self-attention with the one parameter of old."""

    def __init__(self, part: QueriesKeysValues):
        super().__init__()
        self.num_attention_heads, self.attention_head_size = part.num_attention_heads, part.attention_head_size
        self.layer_idx, self.ops, self.dropout = part.layer_idx, part.ops, part.dropout
        size = part.query.in_features
        self.qkv = nn.Linear(size, 3 * size, dtype=part.query.weight.dtype)
        with torch.no_grad():
            for kind in ("weight", "bias"):
                parts = [getattr(getattr(part, name), kind) for name in NAMES]
                getattr(self.qkv, kind).copy_(torch.cat(parts))

    def forward(self, hidden, context, seed=None):
        qkv = self.qkv(hidden).unflatten(-1, (3, self.num_attention_heads, self.attention_head_size))
        out, probabilities = context.attend(self, qkv, seed)
        return out.flatten(-2), probabilities


def pair():
    """A model of today, and one of old with its weights."""
    torch.manual_seed(0)
    new = ElectraForPreTraining(ElectraConfig(**SHAPE, intermediate_size=16, max_position_embeddings=6)).double().eval()
    old = copy.deepcopy(new)
    for layer in old.electra.encoder.layer:
        layer.attention.self = OldAttention(layer.attention.self)
    return new, old.eval()


def steps(network, optimizer, n=3):
    for _ in range(n):
        network(IDS, labels=IDS % 2).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def one_group(network):
    return list(network.parameters())


def with_decay(network):
    return decay_groups(network, 0.1)


def of_today(tensors, name):
    """The tensor of a name of today among tensors with the names of old."""
    if ".self." not in name:
        return tensors[name]
    prefix, which, kind = re.fullmatch(r"(.*)\.self\.(.*)\.(.*)", name).groups()
    return tensors[f"{prefix}.self.qkv.{kind}"].chunk(3)[NAMES.index(which)]


def assert_same_weights(new, old):
    expected = dict(old.named_parameters())
    for name, p in new.named_parameters():
        if not name.endswith(".key.bias"):  # its gradient is rounding, of which Adam makes whole steps
            torch.testing.assert_close(p, of_today(expected, name), rtol=0, atol=1e-9, msg=name)


OPTIMIZERS = {
    "AdamW": lambda groups: AdamW(groups, lr=1e-2),
    "LAMB": lambda groups: LAMB(groups, lr=1e-2, adapt=False),
    "torch's AdamW": lambda groups: torch.optim.AdamW(groups, lr=1e-2),
    "torch's AdamW, fused": lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    "SGD without a state": lambda groups: torch.optim.SGD(groups, lr=1e-2),
}


@pytest.mark.parametrize("groups", [one_group, with_decay])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizers_state(kind, groups):
    new, old = pair()
    first = OPTIMIZERS[kind](groups(old))
    steps(old, first)
    trained = old.state_dict()
    new.load_state_dict({name: of_today(trained, name) for name in new.state_dict()})
    second = OPTIMIZERS[kind](groups(new))
    if type(second).__module__.startswith("torch."):
        second.register_load_state_dict_pre_hook(split_optimizer_state)
    saved = copy.deepcopy(first.state_dict())
    second.load_state_dict(saved)
    for network, optimizer in ((old, first), (new, second)):
        steps(network, optimizer)
    assert_same_weights(new, old)
    again = OPTIMIZERS[kind](groups(new))
    again.load_state_dict(copy.deepcopy(second.state_dict()))
    assert again.state_dict()["state"].keys() == second.state_dict()["state"].keys(), "a state of today stays"


def test_a_state_of_another_model_is_refused_as_ever():
    new, old = pair()
    optimizer = AdamW(one_group(old)[2:], lr=1e-2)
    with pytest.raises(ValueError, match="parameter group that doesn't match the size"):
        AdamW(new.parameters(), lr=1e-2).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_runs_checkpoint(dtype, tmp_path):
    new, old = pair()
    optimizer = AdamW(decay_groups(old, 0.1), lr=1e-2)
    steps(old, optimizer)
    with join("cpu"):
        checkpoints = Checkpoints(tmp_path, {})
        checkpoints.save(3, training_state(old, [optimizer]))
        checkpoints.finish()
        loaded = AdamW(decay_groups(new.to(dtype), 0.1), lr=1e-2)
        state = training_state(new, [loaded])
        checkpoints.load(3, state)
        expected = training_state(old, [optimizer])
        assert not any("qkv" in name for tensors in state.values() for name in tensors)
        for part in ("parameters", "exp_avg", "exp_avg_sq"):
            for name, x in state[part].items():
                assert torch.equal(x, of_today(expected[part], name).to(x.dtype)), (part, name)
        checkpoints.close()


def test_a_checkpoint_of_a_larger_model_of_old_is_refused_by_name(tmp_path):
    _, old = pair()
    optimizer = AdamW(old.parameters(), lr=1e-2)
    small = ElectraForPreTraining(
        ElectraConfig(**SHAPE | {"hidden_size": 6}, intermediate_size=16, max_position_embeddings=6)
    )
    with join("cpu"):
        checkpoints = Checkpoints(tmp_path, {})
        checkpoints.save(1, training_state(old, [optimizer]))
        checkpoints.finish()
        with pytest.raises(ValueError, match=r"must fit this model: expected .* of shape"):
            checkpoints.load(1, training_state(small, [AdamW(small.parameters(), lr=1e-2)]))
        checkpoints.close()
