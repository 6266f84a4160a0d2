"""Metrics on held-out text, and the recipes."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import documents

from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.evaluate import auc, evaluate
from electra_fast.pretraining.networks.objective import ElectraPretrainingOutput
from electra_fast.pretraining.recipes import PRESETS, preset
from electra_fast.pretraining.run import new_tokenizer


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
    sequences = torch.randint(5, len(tokenizer), (40, recipe.seq_length))
    one, two = (evaluate(model, sequences) for _ in range(2))
    assert one == two
    assert model.training
    assert one.n_tokens == 40 * 64
    assert one.n_masked == 40 * 10
    assert 0 < one.unigram_accuracy < 0.3
    assert one.generator_loss == pytest.approx(math.log(len(tokenizer)), rel=0.1)
    assert one.discriminator_auc == pytest.approx(0.5, abs=0.1)


class FixedModel:
    """Stands in for the networks: answers at random, for the objectives that there are."""

    def __init__(self, has_generator=True, has_discriminator=True, replacement=False):
        self.is_special = torch.arange(100) < 5
        self.training, self.replacement = True, replacement
        self.has_generator, self.has_discriminator, self.networks = has_generator, has_discriminator, ()
        self.inputs, self.outputs = [], []

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.train(False)

    def __call__(self, input_ids, packed, random):
        assert not self.training
        is_candidate = ~self.is_special[input_ids]
        positions = torch.multinomial(is_candidate.float(), 60, generator=random)
        is_used = torch.arange(60) < 50
        chosen = positions[is_used]
        corrupted = input_ids.index_put((chosen,), torch.randint(5, 9, (50,), generator=random))
        found = {"is_candidate": is_candidate, "targets": input_ids[positions], "is_used": is_used}
        if self.has_generator:
            is_correct = torch.rand(60, generator=random) < 0.3
            found |= {"generator_loss": torch.rand((), generator=random), "is_correct": is_correct}
        if self.has_discriminator:
            found |= {
                "discriminator_loss": torch.rand((), generator=random),
                "logits": torch.randn(len(input_ids), generator=random) - 1,
                "is_replaced": corrupted != input_ids,
                "corrupted_ids": corrupted,
            }
        self.inputs.append(input_ids)
        self.outputs.append(ElectraPretrainingOutput(**found))
        return self.outputs[-1]


def sequences():
    """Five batches."""
    return torch.randint(0, 12, (5 * 32, 64), generator=torch.Generator().manual_seed(1))


def test_metrics_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    model = FixedModel()
    found = evaluate(model, sequences())
    outputs, ids = model.outputs, torch.cat(model.inputs)
    chosen = torch.cat([o.is_candidate for o in outputs])
    truth, logits = (torch.cat([o[name] for o in outputs])[chosen] for name in ("is_replaced", "logits"))
    assert found.discriminator_auc == pytest.approx(metrics.roc_auc_score(truth, logits))
    assert found.discriminator_accuracy == pytest.approx(metrics.accuracy_score(truth, logits > 0))
    assert found.discriminator_precision == pytest.approx(metrics.precision_score(truth, logits > 0))
    assert found.discriminator_recall == pytest.approx(metrics.recall_score(truth, logits > 0))
    assert found.replaced_share == pytest.approx(float(truth.float().mean()))
    shares = torch.tensor([(ids == token).sum() for token in range(5, 12)]) / (ids >= 5).sum()
    assert found.unigram_loss == pytest.approx(float(-(shares * shares.log()).sum()), abs=1e-6)
    for name in ("generator_loss", "discriminator_loss"):
        assert getattr(found, name) == pytest.approx(sum(float(o[name]) for o in outputs) / 5)
    assert (found.n_tokens, found.n_masked) == (5 * 2048, 250)
    assert found.generator_accuracy == pytest.approx(sum(int(o.is_correct[o.is_used].sum()) for o in outputs) / 250)
    assert found.generator_sampled_accuracy == pytest.approx(1 - int(truth.sum()) / 250)
    assert 0.1 < found.generator_sampled_accuracy < 0.3  # of seven tokens, four are sampled
    assert model.training


GENERATORS = ("generator_loss", "generator_accuracy", "generator_sampled_accuracy")
DISCRIMINATORS = (
    *("discriminator_loss", "discriminator_auc", "discriminator_accuracy", "discriminator_precision"),
    *("discriminator_recall", "replaced_share", "generator_sampled_accuracy"),
)


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        ({"has_generator": False}, GENERATORS),
        ({"has_discriminator": False}, DISCRIMINATORS),
        ({"replacement": True}, ["generator_sampled_accuracy"]),
    ],
    ids=["uniform", "mlm", "replacement"],
)
def test_what_an_objective_does_not_have_is_none(options, absent):
    found = asdict(evaluate(FixedModel(**options), sequences()))
    del found["discriminator_similarity"]  # of a real network only
    assert {name for name, value in found.items() if value is None} == set(absent)


@pytest.mark.parametrize(
    "options", [{"objective": "mlm"}, {"generator_kind": "uniform"}, {"objective": "electric"}], ids=str
)
def test_objectives_are_evaluated(options):
    recipe = replace(preset("tiny"), num_hidden_layers=1, temperature=1.0, **options)
    tokenizer = new_tokenizer(documents(), recipe)
    found = evaluate(build_model(recipe, tokenizer), torch.randint(5, len(tokenizer), (9, 64)))
    assert (found.generator_loss is None) == ("generator_kind" in options)
    assert (found.discriminator_auc is None) == (options.get("objective") == "mlm")
    for value in asdict(found).values():
        assert value is None or math.isfinite(value)


@pytest.mark.parametrize("options", [{}, {"generator_kind": "tied", "generator_size": 1, "generator_layers": 1}])
def test_similarity_is_that_of_the_discriminators_middle_layer(options):
    recipe = replace(preset("tiny"), num_hidden_layers=3, **options)
    tokenizer = new_tokenizer(documents(), recipe)
    model = build_model(recipe, tokenizer)
    sequences = torch.randint(5, len(tokenizer), (9, 64))
    calls = []
    hook = model.register_forward_hook(lambda model, inputs, output: calls.append(output))
    found = evaluate(model, sequences).discriminator_similarity
    hook.remove()
    text = {"input_ids": calls[-1].corrupted_ids.view(9, 64), "output_hidden_states": True}
    with torch.no_grad():
        states = model.discriminator.eval()(**text).hidden_states[2].flatten(0, 1)[calls[-1].is_candidate]
    cosines = torch.nn.functional.cosine_similarity(states[:, None], states[None], dim=-1).fill_diagonal_(math.nan)
    assert found == pytest.approx(float(cosines.nanmean()), abs=1e-5)
    with torch.no_grad():  # a layer that gives all tokens one vector
        model.discriminator.electra.encoder.layer[1].output.LayerNorm.weight.zero_()
        model.discriminator.electra.encoder.layer[1].output.LayerNorm.bias.fill_(1)
    assert evaluate(model, sequences).discriminator_similarity == pytest.approx(1)


def test_a_discriminator_that_calls_nothing_replaced_has_no_precision():
    recipe = preset("tiny")
    tokenizer = new_tokenizer(documents(), recipe)
    model = build_model(recipe, tokenizer)
    with torch.no_grad():
        model.discriminator.discriminator_predictions.dense_prediction.bias.fill_(-100)
    found = evaluate(model, torch.randint(5, len(tokenizer), (9, 64)))
    assert found.discriminator_precision is None
    assert found.discriminator_recall == 0
    assert found.discriminator_accuracy == pytest.approx(1 - found.replaced_share)


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
    with pytest.raises(
        ValueError, match="one of tiny, small, small-plus, base, large, base-lamb-128, base-lamb-512, got 'huge'"
    ):
        preset("huge")
