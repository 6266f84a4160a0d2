"""Heads that begin by looking at the tokens beside theirs."""

import dataclasses

import pytest
import torch
from texts import documents

from electra_fast.pretraining import build_model, preset
from electra_fast.pretraining.run import new_tokenizer

RECIPE = dataclasses.replace(
    preset("tiny"), vocab_size=300, embedding_size=64, hidden_size=64, generator_size=1.0, neighbour_heads=True
)


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer(documents(), RECIPE)


@pytest.mark.parametrize("n_heads", [1, 2, 4])
def test_each_head_looks_where_it_should(tokenizer, n_heads):
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(RECIPE, num_attention_heads=n_heads), tokenizer).eval()
    ids = torch.randint(5, len(tokenizer), (8, 64))
    for name in model.networks:
        attention = getattr(model, name)(ids, output_attentions=True).attentions
        found = attention[0].mean(0).detach()
        for head, distance in zip(range(n_heads), (-1, 1, -2, 2), strict=False):
            shares = [float(found[head].diagonal(d).mean()) for d in range(-8, 9)]
            assert shares.index(max(shares)) - 8 == distance, (name, head)
            assert max(shares) > 6 / 64
        if len(attention) > 1:
            assert float(attention[1].mean(0).max()) < 6 / 64, "the other layers are as ever"


def test_without_it_heads_look_everywhere(tokenizer):
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(RECIPE, neighbour_heads=False), tokenizer).eval()
    ids = torch.randint(5, len(tokenizer), (8, 64))
    assert float(model.discriminator(ids, output_attentions=True).attentions[0].mean(0).max()) < 6 / 64


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding_size": 96, "generator_size": 0.5, "generator_layers": 1.0},
        {"embedding_sharing": "gdes"},
        {"embedding_sharing": "nes", "generator_embedding_size": 32},
        {"objective": "mlm"},
        {"generator_kind": "tied", "generator_layers": 1.0},
        {"generator_kind": "uniform"},
    ],
    ids=str,
)
def test_other_networks_have_them_too(tokenizer, changes):
    torch.manual_seed(0)
    model = build_model(dataclasses.replace(RECIPE, **changes), tokenizer).eval()
    ids = torch.randint(5, len(tokenizer), (8, 64))
    for name in model.hub_networks:
        attention = getattr(model, name)(ids, output_attentions=True).attentions[0].mean(0).detach()
        assert float(attention[0].diagonal(-1).mean()) > 4 / 64, name


def test_two_towers_have_them_too(tokenizer):
    recipe = dataclasses.replace(RECIPE, objective="electric", temperature=1.0, generator_layers=1.0)
    model = build_model(recipe, tokenizer)
    expected = build_model(dataclasses.replace(RECIPE, generator_layers=1.0), tokenizer).generator.electra
    for tower in (model.generator.left, model.generator.right):
        head = [network.encoder.layer[0].attention.self.query.weight[:16] for network in (tower, expected)]
        torch.testing.assert_close(*head)


@pytest.mark.parametrize("n_heads", [32, 64])
def test_heads_that_are_too_small_are_refused(tokenizer, n_heads):
    with pytest.raises(ValueError, match=f"heads of an even size of at least 4, got {64 // n_heads}"):
        build_model(dataclasses.replace(RECIPE, num_attention_heads=n_heads), tokenizer)
