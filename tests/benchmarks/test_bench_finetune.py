"""The benchmark of fine-tuning: its rows on very little work, and what it refuses to time."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from electra_fast.benchmarks import OURS
from electra_fast.benchmarks.finetune.bench import (
    FinetuneBench,
    OurFinetuning,
    check_losses,
    dev_metrics,
    make_training,
)
from electra_fast.benchmarks.finetune.peers import rows_of, twin
from electra_fast.benchmarks.finetune.work import Work, first_updates, make_work, write_sentences
from electra_fast.benchmarks.training import STEPS_A_TURN
from hypothesis import given, settings
from hypothesis import strategies as st

import electra_fast.finetuning.loop
from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.bundled import bundled
from electra_fast.cli.main import main
from electra_fast.finetuning.data.tasks import custom_task
from electra_fast.finetuning.layer_rates import parameter_groups
from electra_fast.finetuning.task_data import TaskFiles

CPU = torch.device("cpu")
PROVIDERS = [OURS, "trainer", "trainer-grouped", "loop"]
COLUMNS = {"tagging": {"words": "words", "tags": "tags"}}
SHAPE = {
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("model")
    tokenizer = ElectraTokenizer.from_pretrained(bundled("discriminator"))
    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=len(tokenizer), initializer_range=0.1, **SHAPE)
    ElectraForPreTraining(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(autouse=True)
def sentences(monkeypatch):
    """The made-up examples are 90 short ones, the network without a checkpoint a small one."""
    choose = random.Random(0)
    texts = (
        ["It is", "ends", *choose.choices(["the", "a", "no", "Python"], k=choose.randint(1, 20))] for _ in range(90)
    )
    document = " ".join(f"{' '.join(words)}." for words in texts)
    monkeypatch.setattr("electra_fast.benchmarks.finetune.work.builtin_documents", lambda: [document])
    monkeypatch.setattr("electra_fast.benchmarks.finetune.work.N_SENTENCES", 90)
    monkeypatch.setattr("electra_fast.benchmarks.finetune.work.RANDOM_SHAPE", SHAPE)


@pytest.fixture
def make(model, tmp_path):
    """Makes the work of a kind: 80 training examples of it, or fewer."""

    def of(kind: str = "classification", **changes) -> Work:
        write_sentences(tmp_path / "train.jsonl", kind)
        task = custom_task(kind, **COLUMNS.get(kind, {"text": "text", "label": "label"}))
        n_train = changes.pop("n_train", 80)
        changes = {"n_epochs": 1.0, "batch_size": 8} | changes
        return make_work(model, TaskFiles(task, tmp_path / "train.jsonl", n_train=n_train), 0, **changes)

    return of


def fail(capsys, *argv) -> str:
    code, captured = main(["bench", "finetune", *map(str, argv)]), capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def read_rows(path: Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["provider"]: row for row in rows}


# The command


def test_rows_and_table(capsys, tmp_path, model):
    rows_file = tmp_path / "rows.jsonl"
    options = ["--model", model, "--batch-size", "16", "--threads", "1", "--quality", "--json", str(rows_file)]
    assert main(["bench", "finetune", *options]) == 0
    rows = read_rows(rows_file)
    assert list(rows) == PROVIDERS
    for row in rows.values():
        assert row["status"] == "right"
        assert (row["bench"], row["task"], row["model"], row["data"]) == ("finetune", "classification", model, None)
        assert (row["n_items"], row["n_steps"], row["batch_size"], row["threads"]) == (81, 6, 16, 1)
        assert row["precision"] == "fp32" and row["gpu"] is None
        low, median, high = row["milliseconds"]
        assert 0 < low <= median <= high
        assert row["examples_per_second"] == pytest.approx(81 / row["seconds"], rel=1e-3)
        assert row["tokens_per_second"] == pytest.approx(81 * row["mean_length"] / row["seconds"], rel=1e-2)
        assert 0 <= row["dev"]["dev"]["accuracy"] <= 1
    assert rows[OURS]["ratio"] == 1 and rows[OURS]["ratios_20_80"] == [1, 1]
    assert {"date", "cpu", "torch", "transformers", "electra_fast", "commit"} <= rows[OURS].keys()
    title, _, header, _, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith(f"classification, {model}: 81 items of ")
    assert title.endswith("tokens, 6 updates of 16, fp32, 1 threads")
    assert "| dev " in header and len(header) <= 128
    for line, (name, row) in zip(lines, rows.items(), strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == name and [float(t) for t in cells[1].split(" / ")] == row["milliseconds"]
        assert cells[5] == f"accuracy {row['dev']['dev']['accuracy']:.4f}"
        assert cells[6].startswith("" if name == OURS else f"{row['ratio']:.2f} x (")


def test_without_anything_it_trains_a_random_network(capsys, tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    FinetuneBench(task="tagging", n_train=16, batch_size=8, against=("loop",), json=rows_file).run()
    rows = read_rows(rows_file)
    assert [(row["model"], row["status"], row["dev"]) for row in rows.values()] == [("random", "right", None)] * 2
    assert "| dev" not in capsys.readouterr().out


def test_figures_are_of_turns(capsys, tmp_path, monkeypatch, model):
    """81 items in batches of 8 are 11 updates: turns of 5, 5 and 1."""

    def in_turn(turns, batches, repeats, bar):
        assert repeats == 3 and list(turns) == [OURS, "loop"] and STEPS_A_TURN == 5
        for turn in turns.values():
            turn()()
        return {OURS: [1.0, 1.0, 0.2], "loop": [2.0, 3.0, 0.8]}

    monkeypatch.setattr("electra_fast.benchmarks.training.time_in_turn", in_turn)
    rows_file = tmp_path / "rows.jsonl"
    FinetuneBench(model=model, batch_size=8, against=("loop",), json=rows_file).run()
    rows = read_rows(rows_file)
    assert rows[OURS]["milliseconds"] == [200, 200, 200] and rows["loop"]["milliseconds"] == [400, 600, 800]
    assert rows[OURS]["seconds"] == 2.2 and rows["loop"]["seconds"] == 5.8
    assert rows["loop"]["ratio"] == 3 and rows["loop"]["ratios_20_80"] == [2, 4]
    assert rows[OURS]["examples_per_second"] == pytest.approx(81 / 2.2, abs=0.1)


def test_mistakes_are_one_line(capsys, tmp_path):
    for argv, message in (
        (("--task", "sst3", "--data", tmp_path), "the task must be one of cola, sst2, "),
        (("--task", "sst2"), "--task sst2 needs --data"),
        (("--task", "sst2", "--data", tmp_path, "--text", "x"), "its columns are known: got --text"),
        (("--task", "sst2", "--data", tmp_path), "must hold the training examples of sst2"),
        (("--task", "squad1", "--data", tmp_path), "the task must be one of classification, regression, "),
        (("--text", "x"), "columns are of files of your own, with --data: got --text"),
        (("--threads", "0"), "threads must be positive, got 0"),
        (("--batch-size", "0"), "batch_size must be positive, got 0"),
        (("--n-train", "1000"), "n_train must be between 1 and the 81 training examples, got 1000"),
        (("--json", tmp_path / "none" / "rows"), "the directory of the output does not exist"),
    ):
        assert message in fail(capsys, *argv), argv
    if not torch.cuda.is_available():
        assert "device cuda needs a CUDA GPU" in fail(capsys, "--device", "cuda")


# What is refused


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel", "tagging"])
def test_all_providers_have_the_same_first_losses(make, kind, tmp_path):
    assert check_losses(make(kind), tuple(PROVIDERS), CPU, tmp_path) == {}


def test_other_learning_rates_of_ours_get_no_time(capsys, monkeypatch, model, tmp_path):
    def groups(module, n_layers, recipe):
        return parameter_groups(module, n_layers, replace(recipe, layer_decay=1.0))

    monkeypatch.setattr(electra_fast.finetuning.loop, "parameter_groups", groups)
    bench = FinetuneBench(model=model, batch_size=8, against=("loop",), json=tmp_path / "rows.jsonl")
    with pytest.raises(SystemExit, match="electra_fast is wrong, or fails"):
        bench.run()
    out = capsys.readouterr().out
    assert "| electra_fast | no time" in out and "electra_fast is wrong: its first losses are" in out
    rows = read_rows(bench.json)
    assert rows[OURS]["milliseconds"] is None
    assert rows["loop"]["status"] == "right" and rows["loop"]["ratio"] is None


def test_a_peer_that_fails_leaves_the_others(capsys, monkeypatch, model, tmp_path):
    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("transformers.Trainer.training_step", fail)
    bench = FinetuneBench(model=model, batch_size=8, against=("trainer", "loop"), json=tmp_path / "rows.jsonl")
    bench.run()
    rows = read_rows(bench.json)
    assert rows["trainer"]["status"] == "fails: RuntimeError: out of luck" and rows["trainer"]["seconds"] is None
    assert [rows[name]["status"] for name in (OURS, "loop")] == ["right", "right"]
    assert "trainer fails: RuntimeError: out of luck" in capsys.readouterr().out


# The runs


@given(n_train=st.integers(1, 80), batch_size=st.integers(1, 40), n_epochs=st.sampled_from([0.2, 0.5, 1.0, 2.7]))
@settings(max_examples=15, deadline=None)
def test_ours_has_as_many_updates_as_is_said(make_once, n_train, batch_size, n_epochs):
    work = make_once(n_train, batch_size=batch_size, n_epochs=n_epochs)
    assert OurFinetuning(work, CPU, "fp32").loop.n_steps == work.n_steps
    assert first_updates(work, 3).n_steps == max(1, min(3, n_train // batch_size))


@pytest.fixture(scope="module")
def make_once(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [{"text": f"the number {i}", "label": i % 2} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = custom_task("classification", text="text", label="label", labels=("0", "1"))
    return lambda n, **changes: make_work(model, TaskFiles(task, path, n_train=n), 0, **changes)


@pytest.mark.parametrize("name", PROVIDERS)
def test_turns_make_so_many_updates_up_to_the_last(make, name, tmp_path):
    work = make(n_train=56)  # 7 updates
    training = make_training(name, work, CPU, "fp32", tmp_path)
    before = {key: x.clone() for key, x in work.model.state_dict().items()}
    n_updates = 0

    def count(module, arguments, output):
        nonlocal n_updates
        n_updates += module.training

    module = training.loop.model if name == OURS else training.model
    module.register_forward_hook(count)
    found = []
    for _ in range(4):
        training.train(3)
        found.append(n_updates)
    assert found == [3, 6, 7, 7]
    after = training.weights()
    assert after.keys() == before.keys()
    name = "electra.encoder.layer.1.output.dense.weight"
    assert not torch.equal(after[name], before[name])
    assert all(torch.equal(x, before[key]) for key, x in work.model.state_dict().items()), "a copy is trained"


@pytest.mark.parametrize("name", PROVIDERS)
def test_every_item_is_seen_once_an_epoch(make, name, tmp_path):
    work = make(n_train=21)
    training = make_training(name, work, CPU, "fp32", tmp_path)
    seen, lengths = [], sorted(work.data.train.item_lengths.tolist())
    if name == OURS:
        training.loop.model.register_forward_pre_hook(
            lambda module, arguments: seen.extend(n for batch in arguments[0].values() for n in batch.row_lengths)
        )
    else:
        training.model.register_forward_pre_hook(
            lambda module, arguments, batch: seen.extend(batch["attention_mask"].sum(1).tolist()), with_kwargs=True
        )
    training.train(work.n_steps)
    assert sorted(seen) == lengths and seen != lengths


def test_grouped_batches_have_less_padding(make, tmp_path):
    def n_padded(name: str) -> int:
        training, found = make_training(name, make(), CPU, "fp32", tmp_path), []
        training.model.register_forward_pre_hook(
            lambda module, arguments, batch: found.append(batch["input_ids"].numel()), with_kwargs=True
        )
        training.train(10)
        return sum(found)

    assert n_padded("trainer-grouped") < 0.9 * n_padded("trainer")


@pytest.mark.parametrize("name", ["trainer", "loop"])
def test_a_peer_follows_our_schedule(make, name, tmp_path):
    work = make(weight_decay=0.01, layer_decay=0.5)
    ours, theirs = (make_training(provider, work, CPU, "fp32", tmp_path) for provider in (OURS, name))
    optimizer = theirs._trainer.optimizer if name == "trainer" else theirs._optimizer
    for _ in range(3):
        ours.train(2), theirs.train(2)
        rates, their_rates = (
            {group["name"]: group["lr"] for group in some.param_groups} for some in (ours.loop.optimizers[0], optimizer)
        )
        # Ours are those of the last update, torch's schedule is at the next one.
        assert their_rates == pytest.approx(next_rates(ours.loop, rates))


def next_rates(loop, rates):
    def factor(step):
        return min(1.0, step / loop.warmup_steps) * (1 - step / loop.n_steps)

    return {name: rate * factor(loop.step) / factor(loop.step - 1) for name, rate in rates.items()}


def test_an_error_in_the_thread_of_the_trainer_is_raised_here(make, monkeypatch, tmp_path):
    training = make_training("trainer", make(), CPU, "fp32", tmp_path)
    training.train(1)

    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(training._trainer, "training_step", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        training.train(1)


@torch.no_grad()
def test_dev_metrics_are_those_of_the_weights(make):
    work = make()
    for p in work.model.classifier.parameters():
        p.add_(torch.randn_like(p))
    theirs = twin(work.model).eval()
    rows = rows_of(work.data.features("dev"))
    found = [theirs(**{k: torch.tensor([v]) for k, v in row.items() if k != "labels"}).logits.argmax() for row in rows]
    expected = sum(int(x) == row["labels"] for x, row in zip(found, rows, strict=True)) / len(rows)
    weights = theirs.state_dict()
    for p in work.model.parameters():
        p.zero_()
    assert dev_metrics(work, weights, CPU)["dev"]["accuracy"] == pytest.approx(expected)
    assert 0 < expected < 1 and math.isfinite(expected)


# What is made up


def test_made_up_examples(tmp_path):
    found = {}
    for kind in ("classification", "regression", "multilabel", "tagging"):
        write_sentences(tmp_path / kind, kind)
        found[kind] = [json.loads(line) for line in (tmp_path / kind).read_text().splitlines()]
        assert len(found[kind]) == 90
    for one, number, several, tagged in zip(*found.values(), strict=True):
        words = one["text"].split()
        assert one["label"] == ("the" in words) and number["label"] == len(words) / 20
        assert several["label"] == [word for word in ("the", "a") if word in words]
        assert tagged == {"words": words, "tags": ["B-CAPITAL" if w[0] in "IP" else "O" for w in words]}
