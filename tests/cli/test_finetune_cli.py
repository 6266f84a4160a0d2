"""The command line: a mistake is one line and exit code 2, before anything is written."""

import json

import pytest
from finetuning_runs import write_checkpoint, write_reviews

from electra_fast.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "checkpoint")
    write_reviews(tmp_path / "train.tsv", 40)
    (tmp_path / "bad_label.tsv").write_text("review\tverdict\na film\tgood\na book\tunknown\n")
    (tmp_path / "other.tsv").write_text("text\tverdict\na film\tgood\n")
    (tmp_path / "empty.tsv").write_text("")
    (tmp_path / "words.txt").write_text("film X\nbook Y\n\n" * 5)
    questions = {"id": "q7", "question": "what?", "answers": [{"text": "green", "answer_start": 11}]}
    document = {"title": "", "paragraphs": [{"context": "the sky is blue", "qas": [questions]}]}
    (tmp_path / "questions.json").write_text(json.dumps({"version": "1.1", "data": [document]}, indent=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


OWN = "--task classification --text review --label verdict --train train.tsv"


def call(line):
    return main(["finetune", "--model", "checkpoint", "--out", "out", "--device", "cpu", *line.split()])


@pytest.mark.parametrize(
    "line, message",
    [
        (
            f"{OWN} --dev bad_label.tsv",
            "bad_label.tsv, line 3: the label must be one of the training examples' (bad, good)",
        ),
        (
            OWN.replace("train.tsv", "other.tsv"),
            "other.tsv, line 1: the header must have one 'review', got text, verdict",
        ),
        (OWN.replace("train.tsv", "empty.tsv"), "empty.tsv, line 1: the file must hold examples, got none"),
        (OWN.replace("train.tsv", "none.tsv"), "none.tsv"),
        ("--task squad1 --train questions.json --dev questions.json", 'question q7: the answer "green" must stand in'),
        ("--task sst3 --data .", "the task must be one of cola, sst2"),
        ("--task sst2", "--data or --train is needed"),
        ("--task sst2 --text review --train train.tsv", "--text: of files of your own"),
        ("--task classification --text review --train train.tsv", "needs the column 'label'"),
        ("--task sst2 mrpc --data .", "must hold a directory for each task, got none for sst2"),
        (f"{OWN} --metric bleu", "the metric of classification must be one of accuracy, f1, matthews, got 'bleu'"),
        (f"{OWN} --set nothing=1", "--set must name a field of the recipe"),
        (f"{OWN} --set layer_decay=high", "--set layer_decay must be float, got 'high'"),
        (f"{OWN} --trials 0", "n_trials must be positive, got 0"),
        (f"{OWN} --log-every 3 --checkpoint-every 4", "checkpoint_every must be a multiple of log_every 3, got 4"),
        (f"{OWN} --max-length 64", "max_length must be at most 32"),
        ("--task tagging --tags -1 --train words.txt --head paper", "head must be 'transformers' for tagging"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, capsys, line, message):
    assert call(line) == 2
    printed = capsys.readouterr()
    assert (
        message in printed.err
        and printed.err.count("\n") == 1
        and printed.err.startswith("electra-fast finetune: error:")
    )
    assert not (folder / "out").exists()


def test_a_checkpoint_without_an_encoder_is_refused(folder, capsys):
    assert main(["finetune", "--model", "nowhere", "--out", "out", *OWN.split()]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_own_files_with_a_part_held_out(folder, capsys):
    assert call(f"{OWN} --max-length 32 --epochs 2 --learning-rate 0.01 --head paper --set layer_decay=1.0") == 0
    assert "dev accuracy" in capsys.readouterr().out
    config = json.loads((folder / "out" / "model" / "config.json").read_text())
    assert config["architectures"] == ["ElectraPaperForSequenceClassification"]
    assert len((folder / "out" / "predictions" / "dev.jsonl").read_text().splitlines()) == 4
    assert main(["predict", "--model", "out/model", "--input", "train.tsv", "--text", "review", "--device", "cpu"]) == 0
    predicted = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert len(predicted) == 40 and set(predicted) <= {"good", "bad"}


def test_several_tasks_share_an_encoder(folder, capsys):
    for name in ("SST-2", "RTE"):
        (folder / "glue" / name).mkdir(parents=True)
    rows = [f"a {word} film\t{int(word == 'good')}" for word in ["good", "bad"] * 20]
    for split in ("train", "dev"):
        (folder / "glue" / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]))
        pairs = [f"{i}\ta {a} film\ta {b} film\t{'not_' * (a != b)}entailment"
                 for i, (a, b) in enumerate([("good", "good"), ("good", "bad"), ("bad", "bad")] * 10)]  # fmt: skip
        (folder / "glue" / "RTE" / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *pairs]))
    assert call("--task sst2 rte --data glue --max-length 32 --epochs 1 --batch-size 8") == 0
    assert "sst2 dev accuracy" in capsys.readouterr().out
    assert {path.name for path in (folder / "out" / "model").iterdir()} == {"sst2", "rte"}
    assert {path.name for path in (folder / "out" / "predictions").iterdir()} == {"sst2.dev.jsonl", "rte.dev.jsonl"}
    results = json.loads((folder / "out" / "results.json").read_text())
    assert set(results["metrics"]) == {"sst2 dev", "rte dev"}
