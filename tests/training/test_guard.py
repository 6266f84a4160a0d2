"""The guard's findings on synthetic curves and on the records of real runs."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_fast.training.guard import Guard
from electra_fast.training.progress import read_records

RUNS = Path(__file__).parent / "runs"
UNIGRAM_LOSS = 6.0


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def curve(generator=5.0, discriminator=0.8, auc=0.8, n_records=40):
    """Records that fall to what is given: a generator's loss, a discriminator's as a share of a constant's, an AUC."""
    for i in range(1, n_records + 1):
        rest = math.exp(-i / 4)
        yield {
            "generator_loss": generator + (8.4 - generator) * rest,
            "discriminator_loss": (discriminator + (1.5 - discriminator) * rest) * entropy(0.14),
            "discriminator_auc": auc + (0.5 - auc) * rest,
            "replaced_share": 0.14,
        }


def advice(records, guard=None, n_steps=4000):
    guard = guard or Guard(UNIGRAM_LOSS)
    records = list(records)
    said = {}
    for i, record in enumerate(records, start=1):
        if text := guard.check(i * n_steps // len(records), i / len(records), record):
            said[i / len(records)] = text
    return said


@pytest.mark.parametrize("name", ["loss", "generator_loss", "discriminator_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run_at_once(name, value):
    with pytest.raises(ValueError, match=f"the {name} must stay a finite number, got {value} at step 7"):
        Guard().check(7, 0.001, {name: value, "lr": 1e-3, "grad_norm": math.inf})


@given(
    st.floats(2.0, 5.7),
    st.floats(0.2, 0.94),
    st.floats(0.56, 0.99),
    st.lists(st.floats(-0.1, 0.1), min_size=40, max_size=40),
)
def test_a_run_that_learns_is_left_alone(generator, discriminator, auc, noise):
    records = list(curve(generator, discriminator, auc))
    for record, x in zip(records, noise, strict=True):
        record["generator_loss"] += x
    assert advice(records) == {}


def test_a_generator_on_its_plateau_is_named_once_at_half_of_the_run():
    said = advice(curve(generator=6.2))
    assert list(said) == [0.5]
    assert "at step 2000 (50% of the run) the generator has learnt the frequencies of tokens and no more" in said[0.5]


def test_a_collapsed_discriminator_is_named_once():
    said = advice(curve(discriminator=0.99, auc=0.51))
    assert list(said) == [0.5]
    assert "calls every token original" in said[0.5]


def test_a_discriminator_that_ranks_well_or_is_better_than_constant_has_not_collapsed():
    assert advice(curve(discriminator=0.99, auc=0.6)) == {}
    assert advice(curve(discriminator=0.9, auc=0.5)) == {}


def test_a_discriminator_whose_tokens_are_alike_is_named_once():
    guard = Guard()
    assert guard.check(900, 0.9, {"discriminator_similarity": 0.97}) is None, "too early to say"
    assert guard.check(2000, 0.4, {"discriminator_similarity": 0.97}) is None
    assert guard.check(2000, 0.5, {"discriminator_similarity": 0.81}) is None
    assert guard.check(2000, 0.5, {"discriminator_similarity": None}) is None
    assert "nearly the same vector: two tokens' have a mean cosine of 0.97" in guard.check(
        2000, 0.5, {"discriminator_similarity": 0.97}
    )
    assert guard.check(2500, 0.6, {"discriminator_similarity": 0.98}) is None
    with pytest.raises(ValueError, match="nearly the same vector"):
        Guard(stop=True).check(2000, 0.5, {"discriminator_similarity": 0.97})


def test_a_network_that_falls_back_late_is_named_then():
    healthy, fallen = list(curve(n_records=60)), [{"generator_loss": 6.3}] * 20
    assert list(advice([*healthy, *fallen])) == [63 / 80]


def test_both_are_named_together_and_stop_where_asked():
    sick = list(curve(generator=6.2, discriminator=0.99, auc=0.51))
    (text,) = advice(sick).values()
    assert "the generator has learnt" in text
    assert "the discriminator calls" in text
    with pytest.raises(ValueError, match="the generator has learnt"):
        advice(sick, Guard(UNIGRAM_LOSS, stop=True))


def test_short_runs_and_absent_metrics_are_not_judged():
    assert advice(curve(generator=6.2), n_steps=999) == {}
    assert advice(curve(generator=6.2), Guard()) == {}
    assert advice([{"generator_loss": None, "discriminator_loss": 0.4, "discriminator_auc": 0.5}] * 40) == {}


def test_preset_tiny_passes():
    """1,500 steps on the documentation of Python: its generator leaves the plateau within the first 400."""
    assert advice_on_run("tiny.jsonl") == {}


def test_preset_tiny_at_temperature_one():
    """In so few steps its discriminator does not learn to beat the generator, and says nothing but original."""
    (text,) = advice_on_run("tiny_temperature_1.jsonl").values()
    assert "the discriminator calls every token original" in text
    assert "the generator has learnt" not in text


def advice_on_run(name):
    records = read_records(RUNS / name)
    unigram_loss = next(record["unigram_loss"] for record in records if record["kind"] == "evaluation")
    train = [record for record in records if record["kind"] == "train"]
    return advice(train, Guard(unigram_loss), n_steps=train[-1]["step"])
