"""Runs that do not learn are told from those that do."""

import math

import pytest

from electra_fast.finetuning.failure import FailedRun, FailureGuard


def feed(guard, losses, n_steps=400, first=1):
    """Shows the guard a loss for every tenth update; returns what it says, by step."""
    said = {}
    for number, loss in enumerate(losses, start=first):
        if (text := guard.check(10 * number, 10 * number / n_steps, {"loss": loss})) is not None:
            said[10 * number] = text
    return said


def test_a_run_that_learns_passes():
    guard = FailureGuard(0.69, stop=True)
    assert feed(guard, [0.69 - 0.01 * i for i in range(40)]) == {} and guard.finding is None


def test_a_plateau_ends_the_run_at_its_half():
    guard = FailureGuard(0.69, stop=True)
    assert feed(guard, [0.69] * 19) == {}
    with pytest.raises(FailedRun, match=r"at 50% of the run the loss 0.6880 is not below 0.6900"):
        guard.check(200, 0.5, {"loss": 0.67})


def test_a_short_run_is_told_but_not_ended():
    guard = FailureGuard(0.69, stop=True)
    assert list(feed(guard, [0.69] * 8, n_steps=80)) == [40] and guard.finding is not None


def test_one_that_learns_late_has_no_finding_at_its_end():
    guard = FailureGuard(0.69, stop=False)
    assert list(feed(guard, [0.69] * 20 + [0.5] * 20)) == [200] and guard.finding is None


def test_one_that_collapses_late_is_found_at_its_end():
    guard = FailureGuard(0.69, stop=False)
    assert list(feed(guard, [0.4] * 25 + [0.70] * 15)) == [400] and "100% of the run" in guard.finding


def test_only_the_quarter_before_counts():
    guard = FailureGuard(0.69, stop=True)
    assert feed(guard, [5.0] * 10 + [0.5] * 30) == {}


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_every_run(loss, stop):
    with pytest.raises(FailedRun, match=r"must stay a finite number, got (nan|inf) at step 10"):
        FailureGuard(0.69, stop).check(10, 0.01, {"loss": loss})


@pytest.mark.parametrize("n_before", [5, 19, 20, 30, 39])
def test_after_an_interruption_the_judgement_is_the_same(n_before):
    losses = [0.69] * 22 + [0.5] * 18
    whole, resumed = FailureGuard(0.69, stop=False), FailureGuard(0.69, stop=False)
    said = feed(whole, losses)
    for number, loss in enumerate(losses[:n_before], start=1):
        resumed.recall(10 * number / 400, loss)
    assert feed(resumed, losses[n_before:], first=n_before + 1) == {s: t for s, t in said.items() if s > 10 * n_before}
    if n_before < 20:
        assert resumed.finding == whole.finding
