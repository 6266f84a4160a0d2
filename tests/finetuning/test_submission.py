"""Predictions as GLUE and SQuAD take them."""

import json
import resource

import pytest

from electra_fast.finetuning.submission import write_glue, write_squad

QUESTIONS = [
    {"id": "56be", "answer": "Zürich", "n_best": [{"text": "Zürich", "probability": 0.75}], "null_odds": -1.5},
    {"id": "57be", "answer": "", "n_best": [{"text": "a", "probability": 0.25}], "null_odds": 2.0},
]


def classes(*labels):
    return [{"id": str(i), "label": label, "probabilities": {}} for i, label in enumerate(labels)]


def test_glue_wants_an_index_and_a_label(tmp_path):
    write_glue(tmp_path / "new/RTE.tsv", classes("entailment", "not_entailment"))
    assert (tmp_path / "new/RTE.tsv").read_bytes() == b"index\tprediction\n0\tentailment\n1\tnot_entailment\n"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["RTE.tsv"]


def test_scores_are_clipped_to_the_range_of_the_task(tmp_path):
    values = [-0.2, 0.0, 2.34567, 5.0, 5.3]
    write_glue(tmp_path / "STS-B.tsv", [{"id": str(i), "value": value} for i, value in enumerate(values)])
    lines = (tmp_path / "STS-B.tsv").read_text().splitlines()[1:]
    assert lines == ["0\t0.000", "1\t0.000", "2\t2.346", "3\t5.000", "4\t5.000"]


@pytest.mark.parametrize("ids", [["0", "2"], ["1", "0"], ["0", "a"]])
def test_missing_examples_are_refused_and_nothing_is_written(tmp_path, ids):
    (tmp_path / "CoLA.tsv").write_text("before")
    predictions = [{"id": id, "label": "0"} for id in ids]
    with pytest.raises(ValueError, match=r"CoLA\.tsv: ids must be the numbers of examples"):
        write_glue(tmp_path / "CoLA.tsv", predictions)
    assert (tmp_path / "CoLA.tsv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_squad_wants_three_files(tmp_path):
    write_squad(tmp_path / "out", QUESTIONS)
    contents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "out").iterdir()}
    assert contents == {
        "predictions.json": {"56be": "Zürich", "57be": ""},
        "null_odds.json": {"56be": -1.5, "57be": 2.0},
        "nbest_predictions.json": {question["id"]: question["n_best"] for question in QUESTIONS},
    }


def test_of_the_three_files_all_are_written_or_none(tmp_path):
    broken = [{**QUESTIONS[0], "null_odds": float("nan")}]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_squad(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("longest", ["answer", "n_best"])
def test_a_disk_that_fills_up_with_one_of_the_three_leaves_none(tmp_path, longest):
    questions = [QUESTIONS[0] | {longest: "x" * 1000}]
    write_squad(tmp_path / "whole", questions)
    n_bytes = [path.stat().st_size for path in (tmp_path / "whole").iterdir()]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(n_bytes) - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_squad(tmp_path / "out", questions)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out").iterdir()) == []
