"""Whole runs, from text to directories that transformers loads."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from texts import documents, text

from electra_fast import ElectraForMaskedLM, ElectraForPreTraining
from electra_fast.cli.main import main
from electra_fast.pretraining import Corpus, preset
from electra_fast.pretraining import pretrain as pretrain_on
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.training import guard
from electra_fast.training import loop as training_loop
from electra_fast.training.progress import read_records

RECIPE = dataclasses.replace(
    preset("tiny"), hidden_size=32, embedding_size=32, num_hidden_layers=2, vocab_size=200, seq_length=32
)


def pretrain(recipe, texts, out, **options):
    return pretrain_on(recipe, Corpus.from_texts(texts), out, device="cpu", **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    model = pretrain(RECIPE, documents(), out, n_steps=30, log_every=7, checkpoint_every=14)
    return out, model.eval()


def test_the_log_tells_the_whole_run(finished):
    records = read_records(finished[0] / "log.jsonl")
    assert [record["kind"] for record in records] == [
        *("run", "evaluation"),
        *(["train", "train", "evaluation"] * 3)[:-2],
        *("evaluation", "end"),
    ]
    run, before, after, end = records[0], records[1], records[-2], records[-1]
    assert run["recipe"] == json.loads(json.dumps(dataclasses.asdict(RECIPE)))
    assert run["versions"]["torch"] == torch.__version__
    assert [record["step"] for record in records if record["kind"] == "train"] == [7, 14, 21, 28, 30]
    assert (before["step"], after["step"], end["step"], end["reason"]) == (0, 30, 30, "done")
    for name in ("generator_loss", "discriminator_loss"):
        assert after[name] < before[name]


def test_lr_follows_warm_up_and_decay(finished):
    records = read_records(finished[0] / "log.jsonl", "train")
    # The warm-up is cut to a tenth of the steps; a record holds the rate of its last update, numbered from 0.
    for record in records:
        done = record["step"] - 1
        assert record["lr"] == pytest.approx(RECIPE.learning_rate * min(1, done / 3) * (1 - done / 30))


def test_transformers_loads_both_networks_and_the_tokenizer(finished):
    transformers = pytest.importorskip("transformers")
    out, model = finished
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "discriminator")
    batch = tokenizer(["the file is closed", "a list"], padding=True, return_tensors="pt")
    is_real = batch["attention_mask"].bool()
    for name, auto, ours in (
        ("discriminator", transformers.AutoModelForPreTraining, ElectraForPreTraining),
        ("generator", transformers.AutoModelForMaskedLM, ElectraForMaskedLM),
    ):
        theirs, info = auto.from_pretrained(out / name, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        with torch.no_grad():
            expected = theirs.eval()(**batch).logits[is_real]
            for network in (getattr(model, name), ours.from_pretrained(out / name).eval()):
                torch.testing.assert_close(network(**batch).logits[is_real], expected, atol=1e-5, rtol=1e-5)


def test_the_same_seed_gives_the_same_run(tmp_path):
    losses = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pretrain(RECIPE, documents(), tmp_path / name, n_steps=6, log_every=2, checkpoint_every=2, seed=seed)
        losses.append([record["loss"] for record in read_records(tmp_path / name / "log.jsonl", "train")])
    assert losses[0] == losses[1] != losses[2]


def test_minutes_end_a_run(tmp_path):
    pretrain(RECIPE, documents(), tmp_path / "out", minutes=0.02, log_every=1000)
    end = read_records(tmp_path / "out" / "log.jsonl", "end")[0]
    assert 1.2 <= end["seconds"] < 6
    # The last update is recorded, wherever in the interval it falls.
    assert read_records(tmp_path / "out" / "log.jsonl", "train")[-1]["step"] == end["step"]


def test_the_number_of_threads_is_given_back(tmp_path):
    before = torch.get_num_threads()
    pretrain(RECIPE, documents(), tmp_path / "out", n_steps=1)
    assert torch.get_num_threads() == before
    assert read_records(tmp_path / "out" / "log.jsonl", "run")[0]["threads"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_update_and_it_goes_on_from_there(tmp_path, monkeypatch, capsys, number):
    update, out = TrainingLoop._update, tmp_path / "out"

    def interrupted(self):
        if self.step == 3:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # as where both Slurm and torchrun send it
        return update(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as stop:
            pretrain(RECIPE, documents(), out, n_steps=8, log_every=2, checkpoint_every=100)
    assert number == signal.SIGINT or stop.value.code == 143
    assert "stopped after step 4: the same command goes on from there" in capsys.readouterr().out
    assert read_records(out / "log.jsonl", "end")[0]["reason"] == "interrupted"
    ElectraForPreTraining.from_pretrained(out / "discriminator")
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert handlers == (signal.default_int_handler, signal.SIG_DFL)

    pretrain(RECIPE, documents(), out, n_steps=8, log_every=2, checkpoint_every=100)
    pretrain(RECIPE, documents(), tmp_path / "whole", n_steps=8, log_every=2, checkpoint_every=100)
    assert curve(out) == curve(tmp_path / "whole")
    assert [record["step"] for record in read_records(out / "log.jsonl", "resume")] == [4]


def test_a_run_goes_on_to_another_number_of_steps(tmp_path):
    out = tmp_path / "out"
    pretrain(RECIPE, documents(), out, n_steps=4, log_every=2, checkpoint_every=2)
    pretrain(RECIPE, documents(), out, n_steps=8, log_every=2, checkpoint_every=2)  # a finished run, longer
    assert [record["step"] for record in read_records(out / "log.jsonl", "train")] == [2, 4, 6, 8]
    assert [record["n_steps"] for record in read_records(out / "log.jsonl", "resume")] == [8]
    assert read_records(out / "log.jsonl", "end")[-1]["reason"] == "done"
    pretrain(RECIPE, documents(), out, n_steps=3, log_every=2, checkpoint_every=2)  # fewer than it has done
    assert read_records(out / "log.jsonl", "train")[-1]["step"] == 8


def test_a_signal_that_comes_again_later_ends_the_run_at_once(tmp_path, monkeypatch):
    update, out = TrainingLoop._update, tmp_path / "out"

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    monkeypatch.setattr(TrainingLoop, "_update", interrupted)
    monkeypatch.setattr(training_loop, "_REPEAT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        pretrain(RECIPE, documents(), out, n_steps=8, log_every=2, checkpoint_every=2)
    assert not read_records(out / "log.jsonl", "end")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def curve(out):
    """What the log says of every update, but how long it took."""
    skipped = {"seconds", "tokens_per_second"}
    return [
        {name: value for name, value in record.items() if name not in skipped}
        for record in read_records(out / "log.jsonl", "train")
    ]


def test_a_decay_after_the_warm_up_needs_a_number_of_steps(tmp_path):
    with pytest.raises(ValueError, match="decay_after_warmup needs n_steps"):
        pretrain(dataclasses.replace(RECIPE, decay_after_warmup=True), documents(), tmp_path / "out", minutes=1)
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    recipe = dataclasses.replace(RECIPE, learning_rate=math.inf)
    with pytest.raises(ValueError, match=r"must stay a finite number, got nan at step 4 .*lower learning rate"):
        pretrain(recipe, documents(), tmp_path / "out", n_steps=30, log_every=4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.jsonl", "run.json", "tokenizer"]


def test_an_evaluation_that_finds_tokens_alike_is_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(guard, "_FIRST_STEP", 20)
    monkeypatch.setattr(guard, "_ALIKE", -1)  # as any network's are
    options = {"n_steps": 30, "log_every": 10, "checkpoint_every": 10}
    pretrain(RECIPE, documents(), tmp_path / "out", **options)
    (warning,) = read_records(tmp_path / "out" / "log.jsonl", "warning")
    assert warning["step"] == 20 and "nearly the same vector" in warning["advice"]
    assert f"warning: {warning['advice']}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"at step 20 .* nearly the same vector"):
        pretrain(RECIPE, documents(), tmp_path / "strict", strict=True, **options)


# Mistakes, on the command line: one line, and nothing written.


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text.txt").write_text(text(), encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "short.txt").write_text("one file\n\ntwo files\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "missing.txt"], "no such data file or directory: missing.txt"),
        (["--data", "blank.txt"], "the data must hold text to train on"),
        (["--data", "short.txt"], "the corpus must be large enough that some of its documents"),
        (["--data", "text.txt", "--vocab", "none.txt"], "none.txt"),
        (["--data", "text.txt", "--steps", "0"], "n_steps must be positive, got 0"),
        (["--data", "text.txt", "--minutes", "-1"], "minutes must be positive, got -1.0"),
        (["--data", "text.txt", "--batch-size", "0"], "batch_size must be positive, got 0"),
        (["--data", "text.txt", "--vocab-size", "20"], "got size 20"),
        (["--data", "text.txt", "--set", "packing=rows"], "must be 'dense' or 'lines' or 'google', got 'rows'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_nothing_is_written(data, monkeypatch, capsys, options, message):
    monkeypatch.chdir(data)
    assert main(["pretrain", "--preset", "tiny", "--out", "out", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (data / "out").exists()


def test_a_directory_with_files_is_left_alone(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    (data / "out").mkdir()
    (data / "out" / "thesis.txt").write_text("precious", encoding="utf-8")
    command = [
        "pretrain",
        "--preset",
        "tiny",
        "--data",
        "text.txt",
        "--vocab-size",
        "200",
        "--steps",
        "2",
        "--out",
        "out",
    ]
    assert main(command) == 2
    assert "out is not empty" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    names = [
        "checkpoints",
        "discriminator",
        "generator",
        "log.jsonl",
        "run.json",
        "thesis.txt",
        "tokenizer",
        "training.png",
    ]
    assert sorted(path.name for path in (data / "out").iterdir()) == names
    assert main(["pretrain", "--data", "text.txt", "--out", "text.txt"]) == 2
    assert "text.txt is a file" in capsys.readouterr().err


def test_a_vocabulary_trained_before_is_used(data, monkeypatch, capsys):
    monkeypatch.chdir(data)
    assert main(["train-vocab", "--data", "text.txt", "--size", "150", "--out", "vocab.txt"]) == 0
    assert main(["train-vocab", "--data", "text.txt", "--size", "150", "--out", "none/vocab.txt"]) == 2
    capsys.readouterr()
    vocab = (data / "vocab.txt").read_text(encoding="utf-8")
    common = ["pretrain", "--preset", "tiny", "--data", "text.txt", "--steps", "1"]
    assert main([*common, "--vocab", "vocab.txt", "--out", "one"]) == 0
    assert main([*common, "--vocab", "one/generator", "--out", "two"]) == 0
    for name in ("one", "two"):
        assert (data / name / "discriminator" / "vocab.txt").read_text(encoding="utf-8") == vocab


def test_a_corpus_of_one_document_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(line.strip() for line in documents(100))
    (tmp_path / "lines.txt").write_text(lines, encoding="utf-8")
    text = ["--data", "lines.txt", "--vocab", "vocab.txt"]
    by_line = ["--documents-by", "line"]
    assert main(["train-vocab", "--data", "lines.txt", *by_line, "--size", "150", "--out", "vocab.txt"]) == 0
    capsys.readouterr()
    for command in (["prepare", *text, "--out", "shards"], ["pretrain", "--preset", "tiny", *text, "--out", "run"]):
        assert main(command) == 2
        assert "--documents-by line" in capsys.readouterr().err
    assert main(["prepare", *text, *by_line, "--out", "shards"]) == 0
    assert "of 97 documents" in capsys.readouterr().out
    assert main(["pretrain", "--preset", "tiny", *text, *by_line, "--out", "run", "--steps", "1"]) == 0


@pytest.mark.parametrize(
    "arguments", [["-m", "electra_fast.cli.demo"], ["-m", "electra_fast", "pretrain"]], ids=" ".join
)
def test_help_reads_well(arguments):
    done = subprocess.run(
        [sys.executable, *arguments, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
        check=True,
    )
    assert "--data" in done.stdout and "--minutes" in done.stdout and "--seed" in done.stdout
