"""Recipes of the shapes that checkpoints have; their config.json is all that is read."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast import ElectraConfig
from electra_fast.pretraining import preset
from electra_fast.pretraining.continued import fitted_recipe

# Shapes that no checkpoint here has.
OTHER = dataclasses.replace(preset("tiny"), hidden_size=64, num_attention_heads=4, embedding_size=24)


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_the_shapes_on_the_hub_need_no_other_options(tmp_path, size):
    # google/electra-{size}-{generator,discriminator}: embedding, hidden, layers, heads, feed-forward.
    names = ("embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    configs = {
        "small": {"generator": (128, 256, 12, 4, 1024), "discriminator": (128, 256, 12, 4, 1024)},
        "base": {"generator": (768, 256, 12, 4, 1024), "discriminator": (768, 768, 12, 12, 3072)},
        "large": {"generator": (1024, 256, 24, 4, 1024), "discriminator": (1024, 1024, 24, 16, 4096)},
    }[size]
    for name, shape in configs.items():
        ElectraConfig(**dict(zip(names, shape, strict=True))).save_pretrained(tmp_path / name)
    recipe = fitted_recipe(preset("tiny"), **{name: tmp_path / name for name in configs})
    for name, shape in configs.items():
        config = getattr(recipe, f"{name}_config")(30522)
        assert tuple(getattr(config, field) for field in names) == shape
        assert config.max_position_embeddings == 512
    assert (recipe.seq_length, recipe.n_steps) == (preset("tiny").seq_length, preset("tiny").n_steps)


WIDTHS = st.integers(1, 12).flatmap(lambda heads: st.tuples(st.just(heads), st.integers(1, 64)))


@settings(max_examples=50, deadline=None)
@given(full=WIDTHS, generator_heads=st.integers(1, 12), layers=st.tuples(st.integers(1, 24), st.integers(1, 24)))
def test_any_generator_with_heads_of_the_same_size_is_fitted(tmp_path_factory, full, generator_heads, layers):
    directory = tmp_path_factory.mktemp("configs")
    heads, head_size = full
    for name, n_heads, n_layers in (("generator", generator_heads, layers[0]), ("discriminator", heads, layers[1])):
        width = n_heads * head_size
        shape = dict(hidden_size=width, num_attention_heads=n_heads, intermediate_size=4 * width)
        ElectraConfig(**shape, num_hidden_layers=n_layers).save_pretrained(directory / name)
    recipe = fitted_recipe(OTHER, directory / "generator", directory / "discriminator")
    config = recipe.generator_config(30522)
    assert (config.hidden_size, config.num_attention_heads) == (generator_heads * head_size, generator_heads)
    assert (config.num_hidden_layers, recipe.num_hidden_layers) == layers


def test_one_checkpoint_leaves_the_other_network_its_size(tmp_path):
    ElectraConfig(hidden_size=64, num_attention_heads=1, intermediate_size=256).save_pretrained(tmp_path)
    recipe = fitted_recipe(dataclasses.replace(OTHER, generator_size=0.5), discriminator=tmp_path)
    assert (recipe.hidden_size, recipe.num_hidden_layers, recipe.generator_size) == (64, 12, 0.5)
    recipe = fitted_recipe(preset("small"), generator=tmp_path)
    assert (recipe.hidden_size, recipe.generator_size, recipe.embedding_size) == (256, 0.25, 128)
    nes = {"embedding_sharing": "nes", "embedding_size": 32}
    recipe = fitted_recipe(preset("small"), generator=tmp_path, changes=nes)
    assert (recipe.embedding_size, recipe.generator_embedding_size) == (32, 128)


def test_sequences_longer_than_the_checkpoints_positions_are_refused(tmp_path):
    ElectraConfig(max_position_embeddings=64).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="seq_length must be from 3 to max_position_embeddings 64, got 128"):
        fitted_recipe(preset("small"), discriminator=tmp_path)


@pytest.mark.parametrize("field, value", [("intermediate_size", 37), ("hidden_act", "relu"), ("layer_norm_eps", 1e-6)])
def test_shapes_that_no_recipe_has_are_refused(tmp_path, field, value):
    ElectraConfig(**{field: value}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"{field} {value} in the discriminator's .*; no recipe .*has such networks"):
        fitted_recipe(OTHER, discriminator=tmp_path)
