"""Metrics on held-out text, and the recipes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import documents

from electra_fast.pretraining.corpus import TokenSequences
from electra_fast.pretraining.evaluate import auc, evaluate
from electra_fast.pretraining.presets import PRESETS, preset
from electra_fast.pretraining.run import build_model, new_tokenizer


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None)
def test_auc_is_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    if 0 < labels.sum() < len(labels):
        assert auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert math.isnan(auc(scores, labels))


def test_auc_of_a_score_that_is_no_number_is_none_either():
    assert math.isnan(auc(torch.tensor([0.0, math.nan]), torch.tensor([0, 1])))


def test_evaluation_repeats_itself_and_leaves_the_model_in_training():
    recipe = preset("tiny")
    tokenizer = new_tokenizer(documents(), recipe)
    model = build_model(recipe, tokenizer).train()
    sequences = TokenSequences(documents(), tokenizer, recipe.seq_length, None)
    one, two = (evaluate(model, sequences) for _ in range(2))
    assert one == two
    assert model.training
    assert one.n_tokens == sequences.n_sequences * 64
    assert one.n_masked == sequences.n_sequences * 10
    assert 0 < one.unigram_accuracy < 0.3
    assert one.generator_loss == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    assert one.discriminator_auc == pytest.approx(0.5, abs=0.1)


# Published shapes: (layers, hidden, heads, FFN, embedding) of the discriminator and the generator.
SHAPES = {
    "small": ((12, 256, 4, 1024, 128), (12, 64, 1, 256, 128)),
    "small-plus": ((12, 256, 4, 1024, 128), (12, 256, 4, 1024, 128)),
    "base": ((12, 768, 12, 3072, 768), (12, 256, 4, 1024, 768)),
    "large": ((24, 1024, 16, 4096, 1024), (24, 256, 4, 1024, 1024)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_the_papers(name):
    recipe = PRESETS[name]
    for config, expected in zip(
        (recipe.discriminator_config(30522), recipe.generator_config(30522)), SHAPES[name], strict=True
    ):
        shape = (
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.embedding_size,
        )
        assert shape == expected
        assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1


def test_numbers_of_training_are_the_papers():
    names = ("seq_length", "batch_size", "n_steps", "learning_rate", "mask_prob", "warmup_steps", "bias_correction")
    table = {name: tuple(getattr(PRESETS[name], key) for key in names) for name in SHAPES}
    assert table == {
        "small": (128, 128, 1_000_000, 5e-4, 0.15, 10_000, False),
        "small-plus": (512, 128, 4_000_000, 5e-4, 0.15, 10_000, False),
        "base": (512, 256, 766_000, 2e-4, 0.15, 10_000, False),
        "large": (512, 2048, 400_000, 2e-4, 0.25, 10_000, False),
    }


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="one of tiny, small, small-plus, base, large, got 'huge'"):
        preset("huge")
