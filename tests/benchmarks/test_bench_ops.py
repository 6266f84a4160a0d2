"""The benchmark of the ops: what it counts, what it refuses to time, and its rows; on a GPU also its times."""

import json
import math
import time
from types import SimpleNamespace

import pytest
import torch
from electra_fast.benchmarks import OURS, gpu
from electra_fast.benchmarks.gpu import Ceilings, milliseconds_in_turn
from electra_fast.benchmarks.ops.bench import NO_GPU, OpsBench, measure
from electra_fast.benchmarks.ops.case import BOTH, FORWARD, UPDATE, Key
from electra_fast.benchmarks.ops.cases import LISTS, case_keys, make_case

from electra_fast.ops.registry import OPS

CPU = torch.device("cpu")
CEILINGS = Ceilings(bytes_per_second=1e10, flops_per_second=1e11)
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


@pytest.fixture(autouse=True)
def kernels_on_a_cpu(monkeypatch):
    """As in Triton's interpreter, also where there is a GPU: what stands for kernels here is torch."""
    monkeypatch.setattr("electra_fast.benchmarks.ops.bench.IS_INTERPRETED", True)


def key(op, tokens=16, length=None, dtype=torch.float32):
    return Key(op, "tiny", length, tokens, dtype, CPU)


def wrong(op):
    """The kernels are wrong: the reference's result, or the parameter that it changed, and some more."""

    def triton(*args, **kwargs):
        out = OPS[op].torch(*args, **kwargs)
        if out is None:
            kwargs["masters"][0].add_(1e-3)
            return None
        return out * 1.001 if isinstance(out, torch.Tensor) else (out[0] + 1, *out[1:])

    return stand_in(OPS[op].torch, triton)


def stand_in(torch, triton):
    """An op with other kernels."""
    return SimpleNamespace(torch=torch, cpu=torch, triton=triton, torch_with=None, cpu_module=None)


# What is counted. tiny has H = E = 128, F = 512, 2 heads of 64.


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # x and the result, 10 x (128 + 512) numbers; weight and bias, 512 x 129; of 4 bytes. Then the GELU's input is
        # written and read, the gradient of the result and x are read, the gradient of x written; parameters and theirs.
        (
            key("linear_gelu", 10),
            {
                FORWARD: (4 * (6400 + 66048), 2 * 10 * 512 * 128),
                BOTH: (4 * (6400 + 66048 + 5120 + 2 * 5120 + 2 * 1280 + 2 * 66048), 3 * 2 * 10 * 512 * 128),
            },
        ),
        # q, k, v and the result; then these, the gradient of the result and three gradients. 2 products, then 5.
        (
            key("attention", 8, 4, torch.bfloat16),
            {FORWARD: (4 * 2048, 2 * 8192), BOTH: (12 * 2048 + 2 * 4 * 8 * 4, 7 * 8192)},
        ),
        (
            key("dropout_add_norm", 8, dtype=torch.bfloat16),
            {FORWARD: (3 * 2048 + 512, 0), BOTH: (8 * 2048 + 3 * 512 + 16 * 8, 0)},
        ),
        # 15 % of 20 tokens are 3 rows; 30,522 words.
        (
            key("mlm_head", 20),
            {
                FORWARD: (4 * (3 * 128 + 30522 * 129) + 25 * 3, 2 * 3 * 128 * 30522),
                BOTH: (3 * 4 * (3 * 128 + 30522 * 129) + 25 * 3 + 20 * 3, 3 * 2 * 3 * 128 * 30522),
            },
        ),
        (key("mask_tokens", 20, 10), {FORWARD: (25 * 20 + 4 * 3 + 17 * 5, 0)}),
        (key("place_samples", 20), {FORWARD: (17 * 20 + 17 * 3, 0)}),
    ],
    ids=lambda value: value.op if isinstance(value, Key) else "",
)
def test_the_least_work_is_as_worked_out_by_hand(case, expected):
    costs = make_case(case).costs
    assert {name: (cost.n_bytes, cost.n_flops) for name, cost in costs.items()} == expected


def test_the_least_work_of_optimizers(monkeypatch):
    monkeypatch.setattr("electra_fast.benchmarks.ops.cases._shapes", lambda config: [(10, 5), (7,)])
    counted = {
        (op, dtype): make_case(key(op, dtype=dtype)).costs[FORWARD if op == "grad_norm" else UPDATE].n_bytes
        for op in LISTS
        for dtype in (torch.float32, torch.bfloat16)
    }
    fp32, bf16 = torch.float32, torch.bfloat16
    assert counted == {
        ("grad_norm", fp32): 57 * 4 + 4,
        ("grad_norm", bf16): 57 * 2 + 4,
        ("adamw", fp32): 57 * (4 + 24),
        ("adamw", bf16): 57 * (2 + 2 + 24),
        ("lamb", fp32): 57 * (4 + 24 + 12),
        ("lamb", bf16): 57 * (2 + 2 + 24 + 12),
    }


def test_the_projection_counts_where_there_is_one():
    tiny, small = (
        make_case(Key("embed_norm_project", size, None, 16, torch.float32, CPU)) for size in ("tiny", "small")
    )
    assert tiny.costs[FORWARD].n_flops == 0 and small.costs[FORWARD].n_flops == 2 * 16 * 128 * 256
    distinct = small.options["input_ids"].unique().numel()
    read = 4 * 128 * (distinct + 16 + 2) + 24 * 16 + 4 * (2 * 128 + 128 * 256 + 256)
    assert small.costs[FORWARD].n_bytes == read + 4 * 16 * 256


def test_which_limit_binds():
    assert CEILINGS.least_seconds(10**10, 10**10) == (1.0, "memory")
    assert CEILINGS.least_seconds(10**9, 10**11) == (1.0, "compute")


def test_every_op_has_its_cases():
    names = [k.name for k in case_keys(tuple(OPS), ("base", "small"), 1000, torch.bfloat16, CPU)]
    assert {name.split()[0] for name in names} == set(OPS) and len(set(names)) == len(names)
    assert {"attention base 128", "attention small 512", "mask_tokens 512", "place_samples", "lamb small"} <= set(names)


# What gets a time


@pytest.mark.parametrize("op", ["linear_gelu", "mlm_head", "place_samples", "adamw"])
def test_a_wrong_kernel_gets_no_time(op, monkeypatch):
    monkeypatch.setitem(OPS, op, wrong(op))
    for row in measure(key(op), ("eager",), CEILINGS):
        if row["provider"] == OURS:
            assert row["status"].startswith("wrong") and row["milliseconds"] is None and row["ratio"] is None
            assert row["error_ratio"] is None or row["error_ratio"] > 2
        else:
            low, median, high = row["milliseconds"]
            assert 0 < low <= median <= high
            # Rounded: of an op that moves some bytes a slow processor reaches less than a tenth of a percent.
            assert 0 <= row["percent_of_ceiling"] < math.inf and 0 <= row["gb_per_second"] < math.inf


def test_a_kernel_that_gives_no_number_or_fails_gets_no_time(monkeypatch):
    op = OPS["dropout_add_norm"]
    for triton, status in (
        (lambda **kwargs: op.torch(**kwargs) * float("nan"), "wrong: out"),
        (lambda **kwargs: op.torch(**kwargs)[:-1], "wrong: out: expected shape (16, 128), got (15, 128)"),
        (lambda **kwargs: {}["x"], "failed: KeyError: 'x'"),
    ):
        monkeypatch.setitem(OPS, "dropout_add_norm", stand_in(op.torch, triton))
        ours, _ = measure(key("dropout_add_norm"), (), CEILINGS)
        assert ours["status"] == status and ours["milliseconds"] is None and ours["error_ratio"] is None


def test_samples_of_other_words_are_wrong(monkeypatch):
    def triton(**kwargs):
        losses, is_correct, samples = OPS["mlm_head"].torch(**kwargs)
        return losses, is_correct, samples + (samples == samples[0])

    monkeypatch.setitem(OPS, "mlm_head", stand_in(OPS["mlm_head"].torch, triton))
    ours, _ = measure(key("mlm_head", tokens=200), (), CEILINGS)
    assert ours["status"] == "wrong: samples"


@no_gpu
@pytest.mark.parametrize("op", ["dropout_add_norm", "place_samples"])
def test_the_interpreter_compares_and_does_not_time(op):
    rows = measure(key(op, tokens=5), (), CEILINGS)
    assert all(row["provider"] == OURS and row["status"] == "right" for row in rows)
    assert all(row["error_ratio"] <= 2 and row["milliseconds"] is None for row in rows)


def test_providers_take_turns():
    ran = []
    times = milliseconds_in_turn({"a": lambda: ran.append("a"), "b": lambda: time.sleep(0.002)}, CPU, 1e-9)
    assert len(ran) == 2 + 5 and {name: len(values) for name, values in times.items()} == {"a": 5, "b": 5}
    assert min(times["b"]) >= 2


# The command


@no_gpu
def test_rows_and_table_on_a_cpu(capsys, tmp_path, monkeypatch):
    cli = pytest.importorskip("electra_fast.cli.main")
    attention = OPS["attention"].torch
    monkeypatch.setitem(OPS, "attention", stand_in(attention, attention))
    rows_file = tmp_path / "rows.jsonl"
    options = "--device cpu --sizes tiny --tokens 16 --dtype fp32 --against eager kernels".split()
    ops = ["--ops", "attention", "mask_tokens", "grad_norm"]
    code = cli.main(["bench", "ops", *options, *ops, "--json", str(rows_file)])
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    assert code == 0 and out.endswith(f"{len(rows)} rows: {rows_file}\n")
    assert [line for line in out.splitlines() if line.startswith("| mask_tokens 16")]
    found = {(row["op"], row["direction"], row["provider"]) for row in rows}
    eager = "torch eager"
    assert {("attention", FORWARD, eager), ("attention", BOTH, eager), ("mask_tokens", FORWARD, eager)} <= found
    assert {("attention", BOTH, "sdpa flash"), ("grad_norm", FORWARD, OURS)} <= found
    for row in rows:
        assert row["dtype"] == "float32" and row["tokens"] == 16 and row["torch"] and row["copy_gb_per_second"] > 0
        assert (row["milliseconds"] is None) == (row["provider"] == OURS or row["status"] != "right")
        assert row["provider"] != eager or row["status"] == "right"


def test_what_is_not_begun_in_time_is_left_out(capsys):
    OpsBench(device="cpu", sizes=("tiny",), ops=("place_samples",), tokens=16, against=(), seconds=1e-9).run()
    assert "left out after 1e-09 s: place_samples" in capsys.readouterr().out


def test_kernels_that_are_wrong_are_an_error_in_the_end(capsys, monkeypatch):
    monkeypatch.setitem(OPS, "place_samples", wrong("place_samples"))
    with pytest.raises(SystemExit, match="electra_fast has no time for 1 of 2 rows"):
        OpsBench(
            device="cpu", sizes=("tiny",), ops=("place_samples",), tokens=16, dtype="fp32", against=("eager",)
        ).run()
    assert "| wrong:" in capsys.readouterr().out


def test_mistakes_are_one_line(capsys, tmp_path):
    cli = pytest.importorskip("electra_fast.cli.main")
    mistakes = [
        (["--sizes", "huge"], "sizes must be among tiny, small"),
        (["--ops", "softmax"], "ops must be among embed_norm_project, attention"),
        (["--ops"], "got none"),
        (["--against", "jax"], "against must be among eager, compile, kernels, got jax"),
        (["--tokens", "1", "--device", "cpu"], "tokens must be at least 2"),
        (["--json", str(tmp_path / "none" / "rows"), "--device", "cpu"], "the directory of the output does not exist"),
    ]
    for argv, message in mistakes:
        code, captured = cli.main(["bench", "ops", *argv]), capsys.readouterr()
        assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
        assert message in captured.err


@no_gpu
def test_without_a_gpu_it_is_refused(capsys):
    cli = pytest.importorskip("electra_fast.cli.main")
    assert cli.main(["bench", "ops"]) == 2
    assert capsys.readouterr().err == f"electra-fast bench ops: error: {NO_GPU}\n"
    assert cli.main(["bench", "model", "--device", "cuda"]) == 2
    assert "needs a CUDA GPU" in capsys.readouterr().err


# On a GPU


@pytest.mark.gpu
def test_times_on_a_gpu(tmp_path):
    rows_file = tmp_path / "rows.jsonl"
    OpsBench(sizes=("tiny",), ops=("dropout_add_norm", "attention"), tokens=256, json=rows_file).run()
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    assert rows and all(row["gpu"] and row["status"] == "right" for row in rows)
    for row in rows:
        assert row["milliseconds"][1] > 0 and row["ratio"] > 0 and row["peak_mb"] >= 0 and row["is_replayed"]


@pytest.mark.gpu
def test_a_recorded_run_computes():
    x = torch.ones(4, device="cuda")
    replay = gpu.record(lambda: x.mul_(2))
    before = x[0].item()
    replay()
    assert x[0].item() == 2 * before
    assert gpu.peak_bytes(lambda: torch.empty(1 << 20, dtype=torch.int8, device="cuda")) == 1 << 20
