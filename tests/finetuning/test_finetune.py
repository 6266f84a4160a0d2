"""Whole runs: the files that they leave, how they continue, and how failing seeds are replaced."""

import json
import signal
import time

import pytest
import torch
import transformers
from finetuning_runs import curve, interrupted_in, launch, predictions, run, start, weights, write_folder
from huggingface_hub import ModelCard

from electra_fast.finetuning import failure
from electra_fast.finetuning.loop import FinetuningLoop
from electra_fast.training.lock import NAME as LOCK
from electra_fast.training.manifest import NAME as MANIFEST


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def whole(folder):
    run(folder, folder / "whole")
    return folder / "whole"


def assert_same(out, expected):
    assert curve(out) == curve(expected)
    assert predictions(out) == predictions(expected)
    found = weights(out)
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights(expected).items())


def test_a_run_learns_and_leaves_what_it_says(whole, folder):
    results = json.loads((whole / "results.json").read_text())
    assert results["metrics"]["dev"]["accuracy"]["median"] > 0.9
    assert results["best"] == 0 and results["failed"] == []
    assert {path.name for path in whole.iterdir()} == {
        "run.json", "results.json", "model", "predictions", "seed-0", "training.png", "confusion.dev.png",
    }  # fmt: skip
    card = ModelCard.load(whole / "model" / "README.md").data
    figures = {(result.dataset_split, result.metric_type): result.metric_value for result in card.eval_results}
    assert figures["dev", "accuracy"] == results["metrics"]["dev"]["accuracy"]["median"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(whole / "model")
    assert model.config.id2label == {0: "bad", 1: "good"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(whole / "model")
    with torch.no_grad():
        logits = model.eval()(**tokenizer("it was a lovely film", return_tensors="pt")).logits
    assert logits[0, 1] > logits[0, 0] + 0.1
    evaluations = [record for record in curve(whole) if record["kind"] == "evaluation"]
    assert [record["step"] for record in evaluations] == [6, 12, 18]
    assert not (whole / "seed-0" / "checkpoints").exists()


def test_a_run_that_is_done_is_not_repeated(whole, folder, capsys):
    before = (whole / "seed-0" / "log.jsonl").read_text()
    summary = run(folder, whole)
    assert summary["best"] == 0 and "accuracy" in capsys.readouterr().out
    assert (whole / "seed-0" / "log.jsonl").read_text() == before


@pytest.mark.parametrize("step", [3, 6, 8, 17])
def test_a_run_that_was_told_to_stop_goes_on_bit_for_bit(whole, folder, tmp_path, step, capsys):
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", stop_after=step)
    assert stop.value.code == 143
    assert f"stopped after step {step} of seed 0" in capsys.readouterr().out
    assert not (tmp_path / "run" / "model").exists()
    run(folder, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


KILLED = """
import os, signal
from electra_fast.finetuning import failure
from electra_fast.finetuning.loop import FinetuningLoop
update = FinetuningLoop._update
FinetuningLoop._update = lambda loop: os.kill(os.getpid(), signal.SIGKILL) if loop.step == {step} else update(loop)
"""


@pytest.mark.parametrize("step", [2, 5, 12, 17])
def test_a_killed_run_goes_on_bit_for_bit(whole, folder, tmp_path, step):
    code, _ = launch(folder, [(tmp_path / "run", {})], before=KILLED.format(step=step))
    assert code == -signal.SIGKILL
    run(folder, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def test_ctrl_c_is_a_keyboard_interrupt(folder, tmp_path):
    with pytest.raises(KeyboardInterrupt), interrupted_in(5, signal.SIGINT):
        run(folder, tmp_path / "run")
    assert (tmp_path / "run" / "seed-0" / "checkpoints" / "step-5").is_dir()


HANG = """
import time
from electra_fast.finetuning.loop import FinetuningLoop
update = FinetuningLoop._update
FinetuningLoop._update = lambda loop: time.sleep(600) if loop.step == 5 else update(loop)
"""


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"seed": 1}])
def test_a_second_run_in_the_directory_is_refused(folder, tmp_path, options):
    process = start(folder, [(tmp_path / "run", {})], before=HANG)
    try:
        while not (tmp_path / "run" / "seed-0" / "checkpoints" / "step-4").is_dir():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        with pytest.raises(BlockingIOError, match=rf"at work in .*run \(host .*, process {process.pid}, since "):
            run(folder, tmp_path / "run", **options)
    finally:
        process.kill()
        process.communicate()
    if not options:
        run(folder, tmp_path / "run")
        assert not list((tmp_path / "run").rglob(LOCK))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(whole, folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "run", stop_after=7)
    (data,) = (tmp_path / "run").rglob("step-7/*.distcp")
    data.write_bytes(data.read_bytes()[::-1])
    run(folder, tmp_path / "run")
    assert_same(tmp_path / "run", whole)
    line = f"{data.parent} does not fit: {data.name} is damaged: its checksum is another; the run goes on from step 4"
    assert f"warning: {line} instead\n" in capsys.readouterr().out


def test_a_signal_in_the_last_update_of_a_seed_ends_the_run_before_the_next(folder, tmp_path, capsys):
    options = {"n_trials": 2, "n_epochs": 1.0}
    with pytest.raises(SystemExit) as stop:
        run(folder, tmp_path / "run", stop_after=6, **options)
    assert stop.value.code == 143
    assert (tmp_path / "run" / "seed-0" / "result.json").is_file() and not (tmp_path / "run" / "seed-1").exists()
    assert "stopped after seed 0: the same command goes on from there" in capsys.readouterr().out
    assert len(run(folder, tmp_path / "run", **options)["results"]) == 2


def test_a_signal_in_the_last_update_of_all_does_not_spoil_a_complete_run(whole, folder, tmp_path):
    assert run(folder, tmp_path / "run", stop_after=18)["best"] == 0
    assert_same(tmp_path / "run", whole)


def test_sigterm_to_one_of_two_processes_ends_both(folder, tmp_path):
    code, printed = launch(folder, [(tmp_path / "run", {"stop_after": 5, "batch_size": 20})], n_processes=2)
    assert code != 0 and "exitcode  : 143" in printed, printed
    assert (tmp_path / "run" / "seed-0" / "checkpoints" / "step-5" / MANIFEST).is_file()


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}])
def test_two_processes_make_the_updates_of_one(whole, folder, tmp_path, options):
    options |= {"dropout": 0.0, "batch_size": 20}  # the last batch of an epoch is a small one
    run(folder, tmp_path / "one", **{**options, "accumulate": 1})
    code, printed = launch(folder, [(tmp_path / "two", options)], n_processes=2)
    assert code == 0, printed
    one, two = ([r for r in curve(tmp_path / name) if r["kind"] == "train"] for name in ("one", "two"))
    assert [r["loss"] for r in two] == pytest.approx([r["loss"] for r in one], abs=1e-5)
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in expected.items():
        if not name.endswith("key.bias"):  # whose gradient is rounding alone
            torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=0)


def test_two_processes_warn_once_of_labels(folder, tmp_path):
    path = write_folder(tmp_path / "slip") / "train.tsv"
    path.write_text(path.read_text() + "fine\tGood\n")
    # A signal ends the run, since its second update would tell nothing more.
    _, printed = launch(path.parent, [(tmp_path / "two", {"stop_after": 1})], n_processes=2)
    assert printed.count("'Good', 'good' differ by a slip alone") == 1 and "step 1/" in printed, printed


def test_the_median_of_several_seeds_and_the_best_of_them(folder, tmp_path):
    summary = run(folder, tmp_path / "run", n_trials=3, n_epochs=1.0, n_retries=0)
    values = [result["metrics"]["dev"]["accuracy"] for result in summary["results"]]
    assert len(set(values)) > 1, "seeds differ"
    statistics = summary["metrics"]["dev"]["accuracy"]
    assert statistics["median"] == sorted(values)[1] and statistics["runs"] == 3
    best = summary["results"][summary["best"]]
    assert best["metrics"]["dev"]["accuracy"] == max(values)
    right = sum(p["label"] == label for p, label in zip(predictions(tmp_path / "run"), dev_labels(folder), strict=True))
    assert right / 40 == max(values), "the outputs are those of the best seed"
    assert not list((tmp_path / "run").glob("seed-*/model"))
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"that of seed {summary['best']}, the best of 3" in card
    assert f"| dev | accuracy | {max(values):.4g} | {statistics['median']:.4g} |" in card


def dev_labels(folder):
    return [line.split("\t")[1] for line in (folder / "dev.tsv").read_text().splitlines()[1:]]


def test_a_seed_that_does_not_learn_is_given_up_for_another(folder, tmp_path, monkeypatch, capsys):
    update = FinetuningLoop._update

    def stuck(loop):
        if loop.seed == 0:
            for group in loop.optimizers[0].param_groups:
                group["initial_lr"] = 0.0
        update(loop)

    monkeypatch.setattr(failure, "_LEAST_STEPS", 18)
    monkeypatch.setattr(FinetuningLoop, "_update", stuck)
    summary = run(folder, tmp_path / "run", n_epochs=6.0)
    failed, good = summary["results"]
    assert "learnt no more than how often each answer is right" in failed["failure"] and good["seed"] == 1
    assert summary["best"] == 1 and summary["metrics"]["dev"]["accuracy"]["runs"] == 1
    steps = [record["step"] for record in curve(tmp_path / "run", 0)]
    assert max(steps) == 18, "it was given up at its half"
    assert "1 of 2 runs failed" in capsys.readouterr().out


def test_what_nothing_learns_is_told_and_kept(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(failure, "_LEAST_STEPS", 9)
    summary = run(folder, tmp_path / "run", seed=4, learning_rate=1e-9, n_retries=1, group_by_length=False)
    assert len(summary["results"]) == 2
    assert "learnt no more" in summary["results"][1]["warning"]
    assert summary["metrics"]["dev"]["accuracy"]["runs"] == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert "warning: the network has learnt no more" in capsys.readouterr().out


def test_a_loss_that_is_no_number_ends_all_seeds_in_one_error(folder, tmp_path):
    with pytest.raises(ValueError, match=r"2 of 2 runs failed; of the last: the loss must stay a finite number"):
        run(folder, tmp_path / "run", learning_rate=1e30, n_retries=1, max_grad_norm=1e30, log_every=1)


def test_another_command_does_not_go_on_with_a_run(whole, folder):
    with pytest.raises(ValueError, match=r"holds a run with other settings \(recipe.batch_size: 16 then, 8 now\)"):
        run(folder, whole, batch_size=8)
    with pytest.raises(FileExistsError, match="is not empty, and holds no run"):
        run(folder, folder)
