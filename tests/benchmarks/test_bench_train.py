"""`electra-fast bench model --train`: run on very little as a user runs it, and what it is made of."""

import json

import numpy as np
import pytest
from electra_fast.benchmarks import OURS
from electra_fast.benchmarks.model import bench
from electra_fast.benchmarks.model.cold_start import write_batches
from electra_fast.benchmarks.model.files import SHAPES, write_network, write_weights
from electra_fast.benchmarks.model.peers import COMPILED, EAGER, SDPA, Entry, Setup
from electra_fast.benchmarks.model.step_memory import step_peak_mb
from electra_fast.benchmarks.model.table import tables
from electra_fast.benchmarks.model.train_measure import TrainingContest
from electra_fast.benchmarks.model.train_peers import TRAIN_TABLE, of_electra_fast
from electra_fast.benchmarks.model.work import TRAIN_WORKLOADS, training_workload
from tqdm import tqdm

from electra_fast.cli.main import main

BY_NAME = {entry.name: entry for entry in TRAIN_TABLE}


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    folder = tmp_path_factory.mktemp("tiny")
    write_weights("tiny", folder)
    return Setup(folder, "cpu", 1)


def rows_of(entries, setup, name, dtype="fp32", length=8) -> dict[str, dict]:
    work = training_workload(name, "tiny", "cpu", 30522, length)
    with tqdm(total=0, disable=True) as bar:
        rows = TrainingContest(entries, setup, dtype, has_memory=False).measure(work, 1, bar)
    return {row["provider"]: row for row in rows}


def test_rows_and_table(capsys, tmp_path):
    file, workloads = tmp_path / "rows.jsonl", ("train-rtd-full", "train-class-third")
    quick = ("--sizes", "tiny", "--threads", "1", "--repeats", "1", "--no-cold-start", "--against", "transformers")
    assert main(["bench", "model", "--train", *quick, "--workloads", *workloads, "--json", str(file)]) == 0
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(row["workload"], row["provider"]) for row in rows] == [
        (work, name) for work in workloads for name in (OURS, EAGER, SDPA)
    ]
    shares = {"train-rtd-full": 1, "train-class-third": pytest.approx(1 / 3, abs=0.01)}
    for row in rows:
        assert row["status"] == "right" and row["error"] < 1e-5 and row["ratio"] > 0
        assert row["real_share"] == shares[row["workload"]] and row["peak_mb"] is None
        tokens = 8 * 64 * row["real_share"]
        assert row["tokens_per_second"] == pytest.approx(tokens / row["milliseconds"][1] * 1e3, rel=0.01)
    captured = capsys.readouterr()
    assert "train-class-third" in captured.out and "peak MB" not in captured.out


def test_mistakes_are_one_line(capsys):
    for argv, message in (
        (("--dtype", "int8"), "training steps must be of ids, in fp32 or bf16, got int8"),
        (("--from-text",), "training steps must be of ids, in fp32 or bf16, got texts"),
        (("--workloads", "full-128"), "workloads must be among train-rtd-full, train-rtd-third, train-class-full"),
    ):
        assert main(["bench", "model", "--train", *argv]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_who_takes_part():
    chosen, left_out = bench.choose(("transformers", "compiled", "openvino"), "fp32", "cpu", TRAIN_TABLE)
    assert [entry.name for entry in chosen] == [OURS, EAGER, SDPA, COMPILED]
    assert left_out == ["openvino takes no part in fp32 on cpu"]


@pytest.mark.parametrize("name", TRAIN_WORKLOADS)
@pytest.mark.parametrize("size", SHAPES)
def test_a_third_of_the_positions_is_real(name, size):
    work = training_workload(name, size, "cpu", 30522, 512)
    batch = work.batches[0]
    assert len({id(batch) for batch in work.batches}) == 1 and len(work.batches) == 5
    assert batch.ids.shape == {"tiny": (8, 64), "small": (16, 128), "base": (8, 128), "large": (4, 128)}[size]
    lengths = batch.mask.sum(1)
    assert (np.diff(batch.mask, axis=1) <= 0).all() and lengths.min() >= 1
    assert work.real_share == (1 if name.endswith("full") else pytest.approx(1 / 3, abs=0.005))
    assert training_workload(name, size, "cuda", 30522, 512).batches[0].ids.shape[0] == 8 * len(lengths)
    assert training_workload(name, "a checkpoint", "cpu", 30522, 50).batches[0].ids.shape == (8, 50)


def test_ours_in_bf16_is_as_near_as_eager(setup):
    rows = rows_of([BY_NAME[OURS], BY_NAME[EAGER]], setup, "train-class-third", "bf16")
    assert rows[OURS]["status"] == "right" and 1e-4 < rows[OURS]["error"] < 0.1


def test_a_step_updates_the_weights(setup):
    folder = write_network(setup.folder, "ElectraForPreTraining")
    steps = of_electra_fast(Setup(folder, "cpu", 1), "fp32")
    work = training_workload("train-rtd-full", "tiny", "cpu", 30522, 8)
    before = {name: weight.detach().clone() for name, weight in steps.network.named_parameters()}
    steps.run(*steps.inputs(work.batches[0].ids, work.batches[0].mask))
    assert all((weight != before[name]).any() for name, weight in steps.network.named_parameters())
    assert steps.network.config.hidden_dropout_prob == steps.network.config.attention_probs_dropout_prob == 0.1


def test_wrong_and_failing_providers_get_no_figure(setup):
    def off(by):
        def make(setup, dtype, **options):
            steps = of_electra_fast(setup, dtype, **options)
            gradients = steps.gradients
            steps.gradients = lambda *inputs: gradients(*inputs) * by
            return steps

        return make

    def broken(setup, dtype, **options):
        raise OSError("no such library")

    entries = [Entry(f"off by {by - 1:.0e}", None, off(by)) for by in (1 + 9e-5, 1 + 2e-4, np.nan)]
    rows = rows_of([*entries, Entry("broken", None, broken)], setup, "train-rtd-third")
    assert rows["off by 9e-05"]["status"] == "right" and rows["off by 9e-05"]["milliseconds"]
    assert rows["off by 2e-04"]["status"] == "off by 2e-04 is wrong by 2.0e-04 relative RMS: no figure"
    assert rows["off by nan"]["status"].startswith("off by nan is wrong")
    assert rows["broken"]["status"] == "broken fails: OSError: no such library"
    assert [name for name, row in rows.items() if row["milliseconds"]] == ["off by 9e-05"]


def test_peak_memory_is_that_of_a_fresh_process_without_its_imports(setup):
    held = np.ones(150_000_000)  # 1.2 GB of this process are none of its
    folder = write_network(setup.folder, "ElectraForSequenceClassification")
    batch = training_workload("train-class-full", "tiny", "cpu", 30522, 64).batches[0]
    write_batches(folder, batch.ids, batch.mask)
    peak = step_peak_mb(OURS, "fp32", Setup(folder, "cpu", 1))
    del held
    weights = 4 * 4.4  # millions of parameters, with gradients and moments in fp32
    assert 4 * weights < peak < 4 * weights + 150
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        step_peak_mb(OURS, "fp32", Setup(setup.folder / "none", "cpu", 1))


def test_peaks_are_a_table():
    row = {
        "size": "tiny", "dtype": "fp32", "from_text": False, "threads": 2, "busy": None, "cores": 2, "provider": OURS,
        "gpu": None, "workload": "train-rtd-full", "milliseconds": [1.0] * 3, "p99": None, "error": 0.0,
        "tokens_per_second": 1, "ratio": 1.0, "ratios_20_80": [1.0, 1.0], "cold_start": None, "peak_mb": 1234,
        "gemm_gflops": 1.0, "copy_gb_per_second": 1.0, "cpu": "", "cpu_flags": "", "date": "", "commit": "",
    }  # fmt: skip
    rows = [row, row | {"provider": SDPA, "peak_mb": None}, row | {"workload": "train-rtd-third", "peak_mb": 9}]
    rows.append(rows[1] | {"workload": "train-rtd-third", "peak_mb": 88})
    shown = [line.split() for line in tables(rows).partition("peak MB")[2].splitlines()[:3]]
    assert shown == [["train-rtd-full", "train-rtd-third"], [OURS, "1,234", "9"], [*SDPA.split(), "88"]]


@pytest.mark.slow
def test_what_is_compiled_computes_what_eager_does(setup):
    assert rows_of([BY_NAME[COMPILED]], setup, "train-class-third")[COMPILED]["status"] == "right"
