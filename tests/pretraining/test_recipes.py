"""Recipes: the models and parameter groups that they build, and the combinations that they refuse."""

import dataclasses
from itertools import groupby

import pytest
import torch
from pretraining_models import FULL, MASK, SMALL, SPECIAL, batch, forward, make

from electra_fast import ElectraConfig, ElectraTokenizer
from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining.build import build_model, parameter_groups
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel
from electra_fast.pretraining.recipes import PRESETS, preset
from electra_fast.training.optim import AdamW
from electra_fast.training.precision import lower_precision


def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(60))]
    return ElectraTokenizer(vocab={word: i for i, word in enumerate(words)})


def recipe(**changes):
    return dataclasses.replace(preset("tiny"), num_hidden_layers=4, temperature=1.0, **changes)


CHANGES = [
    dict(objective="mlm"),
    dict(objective="electric"),
    dict(generator_kind="uniform"),
    dict(generator_kind="tied", generator_size=1.0, generator_layers=1.0),
    dict(embedding_sharing="gdes", decoupled=True, discriminator_learning_rate=1e-3),
    dict(embedding_sharing="nes", generator_embedding_size=32, generator_size=1.0, generator_layers=0.5),
    dict(embedding_sharing="gdes", frozen_generator=True, temperature_end=0.5, generator_dropout=0.0, keep_prob=0.0),
    dict(replacement=True, never_label=True),
    dict(discriminator_learning_rate=1e-3),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_recipe_builds_its_model_and_groups(changes):
    made = recipe(**changes)
    model = build_model(made, tokenizer(), "torch")
    assert model.networks == made.networks
    for name in ("objective", "frozen_generator", "keep_prob", "replacement", "never_label", "temperature"):
        assert getattr(model, name) == getattr(made, name)
    groups = parameter_groups(model, made)
    grouped = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}
    of = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        names = [of[id(p)] for p in group["params"]]
        assert len({"LayerNorm" in name or name.endswith("bias") for name in names}) == 1
        assert (group["weight_decay"] == 0) == ("LayerNorm" in names[0] or names[0].endswith("bias"))
        rate = made.discriminator_learning_rate if group["name"] == "discriminator" else None
        assert group["initial_lr"] == group["lr"] == (rate or made.learning_rate)
    expected = set(made.networks)
    if made.embedding_sharing == "es" and len(made.networks) == 2:
        expected |= {"shared"}
    assert [name for name, _ in groupby(groups, lambda group: group["name"])] == [
        name for name in ("generator", "discriminator", "shared") if name in expected
    ]


def test_width_depth_and_dropout_of_a_generator():
    made = dataclasses.replace(
        preset("base"), generator_size=1.0, generator_layers=0.5, generator_dropout=0.0
    ).generator_config(30522)
    assert (made.hidden_size, made.num_hidden_layers, made.num_attention_heads) == (768, 6, 12)
    assert made.hidden_dropout_prob == made.attention_probs_dropout_prob == 0
    assert preset("base").generator_config(30522).hidden_dropout_prob == 0.1


def test_defaults_are_the_papers():
    for made in PRESETS.values():
        if made.name == "tiny":
            continue  # ours
        assert (made.objective, made.generator_kind, made.embedding_sharing) == ("electra", "untied", "es")
        assert (made.keep_prob, made.generator_layers, made.disc_weight) == (0.15, 1.0, 50.0)
        assert not any((made.frozen_generator, made.never_label, made.whole_word, made.replacement, made.decoupled))
        assert (made.temperature, made.neighbour_heads) == (1.0, False)


def test_the_temperature_goes_to_its_end_in_few_steps():
    constant, falling = recipe(), recipe(temperature_end=0.5)
    assert {constant.temperature_at(i / 1000) for i in range(1001)} == {1.0}
    temperatures = [falling.temperature_at(i / 1000) for i in range(1001)]
    assert temperatures == sorted(temperatures, reverse=True)
    assert [temperatures[i] for i in (0, 500, 1000)] == [1.0, 0.75, 0.5]
    assert len(set(temperatures)) == 21
    assert falling.temperature_at(1.5) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(objective="bert"), "objective must be one of electra, mlm, electric, got 'bert'"),
        (dict(generator_kind="same"), "generator_kind must be one of untied, tied, uniform, got 'same'"),
        (dict(embedding_sharing="all"), "embedding_sharing must be one of es, gdes, nes, got 'all'"),
        (dict(generator_kind="tied"), "generator_size and generator_layers must be 1, got 1.0 and 0.33"),
        (dict(objective="electric", generator_kind="uniform"), "electric needs generator_kind untied, got uniform"),
        (dict(objective="mlm", generator_kind="tied", generator_size=1), "mlm needs generator_kind untied, got tied"),
        (dict(objective="mlm", embedding_sharing="gdes"), "embedding_sharing must be es, got gdes"),
        (dict(generator_kind="uniform", embedding_sharing="nes"), "embedding_sharing must be es, got nes"),
        (dict(frozen_generator=True), "frozen_generator needs embedding_sharing gdes or nes, got es"),
        (dict(objective="mlm", frozen_generator=True), "apart from the network that learns, got objective mlm"),
        (dict(objective="electric", never_label=True), "never_label needs objective electra, got electric"),
        (dict(objective="electric", temperature=2.0), "electric needs temperature 1, got 2.0"),
        (dict(whole_word=True, replacement=True), "replacement must be False, got True"),
        (dict(keep_prob=1.0), "keep_prob must be at least 0 and below 1, got 1.0"),
        (dict(mask_prob=0.0), "mask_prob must be between 0 and 1, got 0.0"),
        (dict(generator_embedding_size=64), "generator_embedding_size needs embedding_sharing nes, got es"),
        (dict(generator_layers=0), "generator_layers must be positive, got 0"),
        (dict(generator_kind="uniform", generator_dropout=0.0), "generator_dropout needs a generator beside"),
        (dict(objective="mlm", temperature_end=0.5), "temperature_end needs objective electra"),
        (dict(temperature_end=0.0), "temperature_end must be positive, got 0.0"),
        (dict(decoupled=True), "decoupled needs embedding_sharing gdes or nes, got es"),
        (dict(generator_kind="uniform", decoupled=True), "decoupled needs two networks that are trained"),
        (dict(objective="mlm", discriminator_learning_rate=1e-3), "needs two networks that are trained"),
    ],
    ids=str,
)
def test_senseless_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(preset("tiny"), **{"temperature": 1.0, **changes})


def test_senseless_models_are_refused():
    def build(generator, discriminator, **options):
        shapes = (None if shape is None else ElectraConfig(**shape) for shape in (generator, discriminator))
        return ElectraPretrainingModel(*shapes, MASK, SPECIAL, **options)

    with pytest.raises(ValueError, match="hidden_size must agree: got 8 for the generator and 24"):
        build(SMALL, FULL, generator_kind="tied")
    with pytest.raises(ValueError, match="needs generator_config to be None, got a config"):
        build(SMALL, FULL, generator_kind="uniform")
    with pytest.raises(ValueError, match="needs discriminator_config to be an ElectraConfig, got None"):
        build(SMALL, None)
    with pytest.raises(ValueError, match="one vocabulary, so vocab_size must agree: got 60 for the generator and 50"):
        build(dict(SMALL, vocab_size=60), FULL, embedding_sharing="nes")
    with pytest.raises(ValueError, match="share their embeddings, so embedding_size must agree"):
        build(dict(SMALL, embedding_size=8), FULL, embedding_sharing="gdes")
    ids, _ = batch()
    with pytest.raises(ValueError, match="expected word_starts to be None, got a tensor"):
        forward(make(replacement=True), word_starts=ids > 0)


def test_an_optimizer_leaves_a_frozen_generator_as_it_is_in_any_precision():
    made = recipe(embedding_sharing="gdes", frozen_generator=True)
    model = build_model(made, tokenizer(), "torch")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = AdamW(parameter_groups(model, made), impl="torch")
    lower_precision(optimizer, torch.bfloat16)
    ids = torch.tensor([2, *range(10, 40), 3])
    model(ids, PackedBatch.full(1, 32, ids.device)).loss.backward()
    optimizer.step()
    after = {name: optimizer.master_of(p) for name, p in model.named_parameters()}
    changed = {name for name, p in after.items() if not torch.equal(before[name], p)}
    assert changed
    assert all(name.startswith("discriminator.") for name in changed)
