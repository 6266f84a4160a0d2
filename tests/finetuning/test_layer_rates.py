"""Learning rates by layer, exact and as in the released code; sizes and tasks have the paper's."""

import dataclasses

import pytest
import torch

from electra_fast import ElectraConfig, ElectraForSequenceClassification
from electra_fast.finetuning import task
from electra_fast.finetuning.layer_rates import parameter_groups
from electra_fast.finetuning.recipe import Recipe, recipe_for

CONFIG = ElectraConfig(vocab_size=20, embedding_size=8, hidden_size=16, num_hidden_layers=3, intermediate_size=32)


def rates(recipe):
    """The rate and the decay of every parameter, by name."""
    model = ElectraForSequenceClassification(CONFIG)
    names = {p: name for name, p in model.named_parameters()}
    groups = parameter_groups(model, 3, recipe)
    assert sorted(names[p] for group in groups for p in group["params"]) == sorted(names.values()), "each once"
    assert all(group["lr"] == group["initial_lr"] for group in groups)
    return {names[p]: (group["initial_lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("google", [False, True])
def test_a_rate_falls_by_a_factor_a_layer(google):
    found = rates(Recipe(learning_rate=1.0, layer_decay=0.5, google_layer_decay=google, weight_decay=0.1))
    # google-research/electra, model/optimization.py: lr * decay ** (n_layers + 2 - depth), embeddings 0, task n + 2.
    extra = 0.5 if google else 1.0
    expected = {
        "classifier.dense.weight": 1.0,
        "electra.encoder.layer.2.output.dense.weight": 0.5 * extra,
        "electra.encoder.layer.1.attention.self.key.weight": 0.25 * extra,
        "electra.encoder.layer.0.intermediate.dense.weight": 0.125 * extra,
        "electra.embeddings_project.weight": 0.0625 * extra,
        "electra.embeddings.word_embeddings.weight": 0.0625 * extra,
    }
    assert {name: found[name] for name in expected} == {name: (rate, 0.1) for name, rate in expected.items()}
    assert found["electra.encoder.layer.1.output.LayerNorm.weight"] == (0.25 * extra, 0.0)
    assert found["classifier.out_proj.bias"] == (1.0, 0.0)


def test_the_same_rates_in_transformers_network():
    transformers = pytest.importorskip("transformers")
    names = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "intermediate_size")
    config = transformers.ElectraConfig(**{name: getattr(CONFIG, name) for name in names})
    model = transformers.ElectraForSequenceClassification(config)
    groups = parameter_groups(model, 3, Recipe(learning_rate=1.0, layer_decay=0.5))
    query = model.electra.encoder.layer[1].attention.self.query.weight
    assert [group["lr"] for group in groups if any(p is query for p in group["params"])] == [0.25]


@pytest.mark.parametrize(
    "hidden_size, rate, decay", [(256, 3e-4, 0.8), (384, 3e-4, 0.8), (768, 1e-4, 0.8), (1024, 5e-5, 0.9)]
)
def test_defaults_are_the_papers_by_size_and_task(hidden_size, rate, decay):
    config = ElectraConfig(hidden_size=hidden_size, num_attention_heads=hidden_size // 64)
    recipe = recipe_for(config, [task("mrpc")])
    assert (recipe.learning_rate, recipe.layer_decay, recipe.warmup_share, recipe.batch_size) == (rate, decay, 0.1, 32)
    assert (recipe.n_epochs, recipe.max_length, recipe.swap_pairs) == (3.0, 128, True)
    assert recipe_for(config, [task("rte")]).n_epochs == 10.0
    assert recipe_for(config, [task("squad2")]).max_length == 512
    together = recipe_for(config, [task("mrpc"), task("squad2")], batch_size=8)
    assert (together.max_length, together.swap_pairs, together.batch_size) == (512, False, 8)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1, got 1.5"),
        ({"warmup_share": 1.0}, "warmup_share must be at least 0 and below 1"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"max_length": 513}, "max_length must be at most 512, the positions of the network, got 513"),
    ],
)
def test_a_value_out_of_range_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe_for(ElectraConfig(), [task("sst2")], **changes)


def test_a_recipe_is_complete_without_a_task():
    assert dataclasses.asdict(Recipe(learning_rate=1e-4, layer_decay=0.8))["bias_correction"] is True
    assert torch.tensor(Recipe(learning_rate=1e-4, layer_decay=0.8).adam_betas).tolist() == pytest.approx([0.9, 0.999])
