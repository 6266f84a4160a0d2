"""Runs on files whose rows lack something: what is printed, what results.json says, and what is predicted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from finetuning_runs import predictions, write_checkpoint

from electra_fast import ElectraTokenizer
from electra_fast.finetuning import TaskFiles, custom_task, finetune
from electra_fast.finetuning.recipe import Recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("rows") / "checkpoint")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ANSWER = {"text": ["film"], "answer_start": [4]}
QUESTION = {"question": "was it good", "context": "the film was good", "answers": ANSWER}
TEXT, NONE = "the film was good", None
QUESTIONS = replace(custom_task("qa"), options={"has_unanswerable": True, "max_question_length": 8})
# By kind: the task, a whole row, and what of it is missing from others, first the text and then the label.
KINDS = {
    "classification": (custom_task("classification", text="a", label="y"), {"a": TEXT, "y": "good"}, {"y": "bad"}),
    "pairs": (custom_task("classification", text="b", pair="a", label="y"), {"a": TEXT, "b": TEXT, "y": 1}, {"y": 0}),
    "regression": (custom_task("regression", text="a", label="y"), {"a": TEXT, "y": 1.5}, {"y": 2.5}),
    "multilabel": (custom_task("multilabel", text="a", label="y"), {"a": TEXT, "y": "['p', 'q']"}, {"y": "['p']"}),
    "tagging": (custom_task("tagging", words="a", tags="y"), {"a": ["it", "was"], "y": ["O", "B-X"]}, {}),
    "choice": (
        custom_task("choice", text="a", endings=("e", "f"), label="y"),
        {"a": TEXT, "e": "it", "f": "the", "y": 1},
        {"y": 0},
    ),
    "qa": (QUESTIONS, QUESTION, {"answers": {"text": [], "answer_start": []}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_counts_what_it_leaves_out(checkpoint, tmp_path, capsys, kind):
    own, row, other = KINDS[kind]
    text, label = ("question", "answers") if kind == "qa" else ("a", "y")
    empty = [] if kind == "tagging" else " "
    no_tags = {"y": []} if kind == "tagging" else {}
    rows = [row, row | other] * 4 + [row | no_tags | {text: value} for value in (empty, NONE)] + [row | {label: NONE}]
    if kind == "tagging":
        rows += [row | {"a": ["it", ""]}]
    rows = [{"id": f"q{number}", **row} for number, row in enumerate(rows)]
    files = {name: write(tmp_path / f"{name}.jsonl", rows) for name in ("train", "dev", "test")}
    summary = finetune(
        checkpoint, [TaskFiles(own, files=files)], tmp_path / "out", n_epochs=1.0, device="cpu", max_length=32
    )
    n_texts = 3 if kind == "tagging" else 2
    expected = {
        "train": {"read": len(rows), "without_text": n_texts, "without_label": 1},
        "dev": {"read": len(rows), "without_label": 1, "kept_without_text": n_texts},
        "test": {"read": len(rows), "kept_without_text": n_texts, "kept_without_label": 1},
    }
    found = summary["rows"][own.name]
    assert {name: {k: v for k, v in counts.items() if k != "first"} for name, counts in found.items()} == expected
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == summary["rows"]
    said = [line for line in capsys.readouterr().out.splitlines() if " rows " in line]
    assert said[0].startswith(f"{files['train']}: of {len(rows)} rows left out {n_texts + 1} (")
    assert [Path(line.split(": of ")[0]).stem for line in said] == ["train", "dev", "test"]
    # A test file has a prediction for each row, and is measured where its labels are known.
    ids = [row["id"] if kind == "qa" else str(number) for number, row in enumerate(rows)]
    assert [prediction["id"] for prediction in predictions(tmp_path / "out", "test")] == ids
    assert [prediction["id"] for prediction in predictions(tmp_path / "out", "dev")] == ids[:10] + ids[11:]
    assert set(summary["metrics"]) == {"dev", "test"}
    dev, test = ({m: s["median"] for m, s in summary["metrics"][split].items()} for split in ("dev", "test"))
    assert dev == pytest.approx(test, nan_ok=True)


def test_whole_files_say_nothing(checkpoint, tmp_path, capsys):
    own, row, other = KINDS["classification"]
    files = {name: write(tmp_path / f"{name}.jsonl", [row, row | other]) for name in ("train", "dev")}
    summary = finetune(
        checkpoint, [TaskFiles(own, files=files)], tmp_path / "out", n_epochs=1.0, device="cpu", max_length=32
    )
    assert summary["rows"] == {"custom": {}} and " rows " not in capsys.readouterr().out


def test_a_class_that_only_the_held_out_part_has(checkpoint, tmp_path):
    own, row, other = KINDS["classification"]
    path = write(tmp_path / "a.jsonl", [row, row | other] * 10 + [row | {"y": "rare"}])
    tokenizer, recipe = ElectraTokenizer.from_pretrained(checkpoint), Recipe(learning_rate=1e-3, layer_decay=0.8)
    labels = []
    with pytest.warns(UserWarning, match="no example is left to train on with the label rare"):
        for seed in range(20):
            labels.append(TaskFiles(own, path).open(tokenizer, recipe, seed).kind.labels)
    assert set(labels) == {("bad", "good", "rare")}


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (custom_task("multilabel", text="a", label="y"), {"y": []}, "column 'y': .* must be at least 1, got 0$"),
        (custom_task("multilabel", text="a", label="y"), {"y": ""}, "column 'y': .* must be at least 1, got 0$"),
        (custom_task("classification", text="a", label="y"), {"y": "b"}, "column 'y': .* at least 2, got 1: b$"),
    ],
)
def test_too_few_labels_are_told_with_file_and_column(checkpoint, tmp_path, task, row, message):
    path = write(tmp_path / "a.jsonl", [{"a": TEXT} | row] * 20)
    tokenizer, recipe = ElectraTokenizer.from_pretrained(checkpoint), Recipe(learning_rate=1e-3, layer_decay=0.8)
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        TaskFiles(task, path).open(tokenizer, recipe, 0)
