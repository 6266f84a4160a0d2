"""Medians and spreads over seeds."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from electra_fast.finetuning.summary import format_summary, summarize

FIELDS = ["median", "mean", "std", "min", "max", "runs"]


def result(seed, **metrics):
    return {"seed": seed, "metrics": {"dev": metrics}}


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_the_statistics_are_those_of_the_standard_library(values):
    summary = summarize([result(seed, accuracy=value) for seed, value in enumerate(values)])
    found = summary["metrics"]["dev"]["accuracy"]
    assert list(found) == FIELDS
    expected = [statistics.median(values), statistics.fmean(values), statistics.stdev(values), min(values), max(values)]
    assert [found[name] for name in FIELDS] == pytest.approx([*expected, len(values)], rel=1e-9, abs=1e-9)


def test_every_split_and_metric_is_told():
    results = [
        {"seed": seed, "metrics": {"dev_matched": {"accuracy": 0.8 + seed / 100}, "test": {"f1": 0.5, "mse": seed}}}
        for seed in range(3)
    ]
    metrics = summarize(results)["metrics"]
    assert {split: list(of_split) for split, of_split in metrics.items()} == {
        "dev_matched": ["accuracy"],
        "test": ["f1", "mse"],
    }
    assert metrics["dev_matched"]["accuracy"]["median"] == pytest.approx(0.81)
    assert metrics["test"]["mse"]["max"] == 2


def test_failed_runs_are_told_and_do_not_count():
    results = [result(0, accuracy=0.9), {"seed": 7, "failure": "loss 0.69 at step 40"}, result(2, accuracy=0.7)]
    summary = summarize(results)
    assert summary["runs"] == 3
    assert summary["failed"] == [results[1]]
    assert summary["metrics"]["dev"]["accuracy"]["runs"] == 2
    table = format_summary(summary)
    assert "1 of 3 runs failed:\n  seed 7: loss 0.69 at step 40" in table
    assert "0.8000" in table


def test_all_runs_may_fail_and_one_run_has_no_spread():
    failed = summarize([{"seed": 1, "failure": "why"}])
    assert format_summary(failed) == "1 of 1 runs failed:\n  seed 1: why"
    single = summarize([result(0, accuracy=0.5)])
    assert single["metrics"]["dev"]["accuracy"]["std"] is None
    assert format_summary(single).splitlines()[1].split() == "accuracy 0.5000 0.5000 - 0.5000 0.5000 1".split()


def test_nan_is_not_sorted_away():
    summary = summarize([result(seed, accuracy=value) for seed, value in enumerate([0.1, math.nan, 0.2])])
    assert math.isnan(summary["metrics"]["dev"]["accuracy"]["median"])


def test_the_table_is_aligned_and_fits_a_terminal():
    metrics = {"HasAns_exact_match": 0.123456, "mse": 12345.678, "f1": -0.5}
    results = [{"seed": seed, "metrics": {"dev_mismatched": metrics, "test": {"f1": 1}}} for seed in range(10)]
    lines = format_summary(summarize(results)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= 80
    assert [line.split()[0] for line in lines] == ["dev_mismatched", *metrics, "test", "f1"]
    assert lines[0].split()[1:] == lines[4].split()[1:] == FIELDS
    assert lines[2].split()[1:] == ["1.235e+04", "1.235e+04", "0.0000", "1.235e+04", "1.235e+04", "10"]


def test_no_results_are_refused():
    with pytest.raises(ValueError, match="at least one run, got none"):
        summarize([])
