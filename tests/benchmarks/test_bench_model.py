"""`electra-fast bench model`: run on very little as a user runs it, and what it is made of."""

import gc
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from electra_fast.benchmarks import OURS
from electra_fast.benchmarks.measure import CPU_FLAGS, machine, take_turns
from electra_fast.benchmarks.model.bench import ModelBench, choose
from electra_fast.benchmarks.model.cold_start import cold_start, write_batches
from electra_fast.benchmarks.model.cost import forward_flops
from electra_fast.benchmarks.model.files import SHAPES, WRITERS, write_weights
from electra_fast.benchmarks.model.measure import Contest, _n_rounds, figures, turn_seconds
from electra_fast.benchmarks.model.peers import BY_NAME, EAGER, SDPA, Entry, Setup, Transformers
from electra_fast.benchmarks.model.table import WIDTH, tables
from electra_fast.benchmarks.model.work import (
    WORKLOADS,
    Batch,
    Workload,
    fixed_workload,
    paragraphs_of_python,
    read_lines,
    sentences_of,
    text_workload,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from electra_fast import ElectraConfig, ElectraTokenizer
from electra_fast.bundled import bundled
from electra_fast.cli.main import main

COLUMNS = set(
    "bench size workload provider dtype from_text threads busy status error milliseconds p99 tokens_per_second ratio "
    "ratios_20_80 gflops gemm_share cold_start peak_mb date cpu cpu_flags cores gpu python torch transformers commit"
    "".split()
)
QUICK = ("--sizes", "tiny", "--threads", "1", "--repeats", "2", "--no-cold-start")


def fail(capsys, *argv) -> str:
    """The one line that a user's mistake gives."""
    code, captured = main(["bench", "model", *map(str, argv)]), capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
    return captured.err


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    folder = tmp_path_factory.mktemp("tiny")
    write_weights("tiny", folder)
    return Setup(folder, "cpu", 1)


@pytest.fixture(scope="module")
def tokenizer() -> ElectraTokenizer:
    return ElectraTokenizer.from_pretrained(bundled("discriminator"))


# The command


def test_rows_and_table(capsys, tmp_path):
    rows_file, texts = tmp_path / "rows.jsonl", tmp_path / "texts.tsv"
    texts.write_text("sentence\tlabel\n" + "".join(f"A fox {'jumps ' * (i % 5)}.\t{i}\n" for i in range(70)))
    argv = ["--against", "transformers", "--workloads", "latency-16", "sentences", "--texts", texts]
    assert main(["bench", "model", *QUICK, *map(str, argv), "--json", str(rows_file)]) == 0
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    expected = [(work, name) for work in ("latency-16", "sentences") for name in (OURS, EAGER, SDPA)]
    assert [(row["workload"], row["provider"]) for row in rows] == expected
    for row in rows:
        assert row.keys() >= COLUMNS
        assert row["status"] == "right" and 0 <= row["error"] <= 1e-4
        low, median, high = row["milliseconds"]
        assert 0 < low <= median <= high
        assert (row["p99"] is None) == (row["workload"] == "sentences")
        low, high = row["ratios_20_80"]
        assert 0 < low <= row["ratio"] <= high
        assert row["provider"] != OURS or row["ratio"] == 1
        assert row["gflops"] > 0 and row["gemm_share"] == pytest.approx(row["gflops"] / row["gemm_gflops"], abs=0.02)
        assert row["cold_start"] is None and row["peak_mb"] is None
        assert (row["dtype"], row["threads"], row["size"], row["gpu"]) == ("fp32", 1, "tiny", None)
    captured = capsys.readouterr()
    assert "texts.tsv: its first column, 'sentence' by its first line, 70 texts" in captured.err
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert f"{rows[0]['tokens_per_second']:,}" in captured.out


def test_tokens_per_second_count_real_tokens_only():
    mask = np.tril(np.ones((4, 4), np.int64))
    work = Workload("sentences", (Batch(mask, mask),) * 2)
    found = figures(work, [[0.5, 1.5]] * 3, [[0.25, 0.75]] * 3)
    assert (found["tokens_per_second"], found["milliseconds"], found["ratio"]) == (10, [1000.0] * 3, 2)
    assert work.real_share == 10 / 16


def test_from_text_has_the_workloads_of_texts_only(capsys):
    assert main(["bench", "model", *QUICK, "--against", "transformers", "--from-text"]) == 0
    out = capsys.readouterr().out
    assert "tiny, fp32, from text" in out and "sentences" in out and "paragraphs" in out and "full-128" not in out
    assert "from text there are sentences and paragraphs" in fail(capsys, "--from-text", "--workloads", "mixed")


def test_a_missing_peer_is_one_line_and_the_others_run(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    argv = ["--against", "transformers", "onnxruntime", "--workloads", "latency-16"]
    assert main(["bench", "model", *QUICK, *argv]) == 0
    captured = capsys.readouterr()
    (line,) = (line for line in captured.err.splitlines() if "onnxruntime" in line)
    assert line == "onnxruntime is left out, onnxruntime not installed: pip install 'electra_fast[bench]'"
    assert EAGER in captured.out and "onnxruntime  " not in captured.out


def test_what_does_not_fit_is_left_out(capsys):
    argv = ("--model", bundled("discriminator"), *QUICK[2:], "--against", "--workloads", "latency-16", "full-512")
    assert main(["bench", "model", *map(str, argv)]) == 0
    captured = capsys.readouterr()
    assert "full-512 is left out: the model takes 128 tokens" in captured.err and "full-512" not in captured.out
    assert main(["bench", "model", *QUICK, "--against", "--seconds", "1e-9", "--workloads", "latency-16"]) == 2
    assert "latency-16 is left out: 1e-09 s are over" in capsys.readouterr().err


def test_mistakes_are_one_line(capsys, tmp_path, monkeypatch):
    (tmp_path / "blank.txt").write_text("a\n\nb\n")
    for argv, message in (
        (("--sizes", "huge"), "sizes must be among tiny, small, base, large, got huge"),
        (
            ("--against", "tensorrt"),
            "against must be among transformers, compiled, onnxruntime, openvino, got tensorrt",
        ),
        (("--workloads", "full"), "workloads must be among latency-16"),
        (("--repeats", "0"), "repeats must be above 0, got 0"),
        (("--threads", "-1"), "threads must be above 0, got -1"),
        (("--busy", "-1"), "busy must be a number of processes from 0 on, got -1"),
        (("--seconds", "nan"), "seconds must be above 0, got nan"),
        (("--json", tmp_path / "none" / "rows"), "the directory of the output does not exist"),
        (("--texts", tmp_path / "none.txt"), "no such file of texts"),
        (("--texts", tmp_path / "blank.txt"), "line 2: expected a text, got a blank line"),
        (("--model", tmp_path / "none", "--against", "transformers"), "none"),
    ):
        assert message in fail(capsys, *argv)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "needs transformers" in fail(capsys, "--sizes", "tiny")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(capsys):
    assert "device cuda needs a CUDA GPU" in fail(capsys, "--device", "cuda")


# Who takes part


def test_who_takes_part():
    def names(against, dtype="fp32", device="cpu"):
        return [entry.name for entry in choose(against, dtype, device)[0]]

    assert names(()) == [OURS]
    assert names(("transformers",)) == [OURS, EAGER, SDPA]
    assert names(("transformers",), "int8") == [OURS, f"{OURS} fp32", f"{SDPA} fp32"]
    assert names(("transformers", "compiled"), "bf16", "cuda") == [
        OURS,
        f"{OURS}, captured",
        EAGER,
        SDPA,
        f"{SDPA}, compiled",
    ]
    assert choose(("onnxruntime",), "fp32", "cuda")[1] == ["onnxruntime takes no part in fp32 on cuda"]


@pytest.mark.parametrize("name", [OURS, SDPA, "onnxruntime", "openvino", "onnxruntime int8"])
def test_a_provider_computes_what_eager_does(name, setup, tokenizer):
    """From ids and from text, whatever the padding."""
    entry = BY_NAME[name]
    for module in entry.modules:
        pytest.importorskip(module, reason=f"{name} needs {module}")
    texts = ("A fox jumps.", "The quick brown fox jumps over the lazy dog again and again.", "Dogs.")
    work = text_workload("paragraphs", "cpu", texts * 3, tokenizer, 512)
    for file in entry.files:
        if not (setup.folder / file).exists():
            WRITERS[file](setup.folder, work.batches)
    dtype = "int8" if "int8" in name else "fp32"
    for max_length in (None, 512):
        with tqdm(total=0, disable=True) as bar:
            (row,) = Contest([entry], setup, dtype, max_length).measure(work, 1, bar)
        assert row["status"] == "right" and row["milliseconds"]
        assert 0 < row["error"] < (0.1 if dtype == "int8" else 1e-5)


class Stub:
    """Eager hidden states, off by something at one real position of a batch."""

    def __init__(self, setup, dtype, off):
        self.eager, self.off = Transformers(setup, "fp32", attention="eager"), off

    def inputs(self, ids, mask):
        return self.eager.inputs(ids, mask)

    def run(self, ids, mask):
        if self.off is None:
            raise RuntimeError("out of\nluck")
        states = self.eager.run(ids, mask).clone()
        states[0, 0, 0] += self.off
        states[mask == 0] = math.nan  # any number
        return states

    def states(self, output):
        return output.numpy()


def stub(name, off):
    return Entry(name, "transformers", lambda setup, dtype: Stub(setup, dtype, off))


def test_wrong_and_failing_providers_get_no_figure(setup, monkeypatch):
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    work = Workload("full-128", (Batch(mask * 5, mask),))
    offs = {"right": 9e-5, "off": 2e-4, "nan": math.nan, "fails": None}

    def broken(setup, dtype):
        raise OSError("no such library")

    entries = [Entry("broken", None, broken), *(stub(name, off) for name, off in offs.items())]
    with tqdm(total=0, disable=True) as bar:
        rows = {row["provider"]: row for row in Contest(entries, setup, "fp32", None).measure(work, 2, bar)}
    assert [name for name, row in rows.items() if row["milliseconds"] is not None] == ["right"]
    assert rows["right"]["ratio"] is None and rows["right"]["status"] == "right"
    assert rows["off"]["status"].startswith("off is wrong by up to 2.0e-04") and rows["off"]["error"] == 2e-4
    assert rows["nan"]["status"].startswith("nan is wrong")
    assert rows["fails"]["status"] == "fails fails: RuntimeError: out of luck"
    assert rows["broken"]["status"] == "broken fails: OSError: no such library"


def test_int8_may_differ_by_a_fifth(setup):
    mask = np.ones((2, 3), np.int64)
    work = Workload("full-128", (Batch(mask * 5, mask),))
    n = mask.size * SHAPES["tiny"]["hidden_size"]
    eager = Transformers(setup, "fp32", attention="eager")
    rms = np.sqrt(np.square(eager.run(*eager.inputs(mask * 5, mask)).numpy()).mean())
    for share, status in ((0.19, "right"), (0.21, "wrong")):
        entry = stub(status, share * rms * math.sqrt(n))
        with tqdm(total=0, disable=True) as bar:
            (row,) = Contest([entry], setup, "int8", None).measure(work, 1, bar)
        assert status in row["status"] and row["error"] == pytest.approx(share, rel=1e-2)


def test_ours_without_a_figure_ends_with_1(capsys, monkeypatch):
    entries = [stub(OURS, 1.0), stub("peer", 0.0)]
    monkeypatch.setattr("electra_fast.benchmarks.model.bench.choose", lambda *_: (entries, []))
    bench = ModelBench(sizes=("tiny",), threads=1, repeats=1, cold_start=False, workloads=("latency-16",))
    with pytest.raises(SystemExit) as exit:
        bench.run()
    captured = capsys.readouterr()
    assert exit.value.code == 1 and "tiny, latency-16: electra_fast is wrong" in captured.err
    assert "no figure" in captured.out and "peer" in captured.out


# Start and memory


def test_cold_start_of_a_fresh_process(setup):
    write_batches(setup.folder, np.full((2, 5), 7), np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    held = np.ones(150_000_000)  # 1.2 GB of this process are none of its
    seconds, peak = cold_start(OURS, "fp32", setup)
    del held
    assert 0.2 < seconds < 120 and 100 < peak < 1200
    with pytest.raises(RuntimeError, match=r"ended with exit code 1: .*none"):
        cold_start(OURS, "fp32", Setup(setup.folder / "none", "cpu", 1))


def test_other_libraries_start_without_torch(setup):
    """Else their start and memory would be torch's."""
    code = (
        "import sys, electra_fast.benchmarks.model.cold_start; "
        "sys.exit(bool({'torch', 'transformers'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_start_that_takes_too_long(setup, monkeypatch):
    monkeypatch.setattr("electra_fast.benchmarks.model.cold_start._LIMIT", 0.01)
    with pytest.raises(RuntimeError, match="took over"):
        cold_start(OURS, "fp32", setup)


# Workloads


def test_fixed_workloads():
    (batch,) = fixed_workload("mixed", "cpu", 30522).batches
    lengths = batch.mask.sum(1)
    assert batch.ids.shape == (16, lengths.max()) and lengths.min() >= 16 and lengths.max() <= 512
    assert 200 < lengths.mean() < 310 and (np.diff(batch.mask, axis=1) <= 0).all()
    assert (batch.ids[batch.mask == 0] == 0).all() and batch.ids[batch.mask == 1].min() >= 1000
    shapes = {name: fixed_workload(name, "cpu", 100).batches[0].ids.shape for name in WORKLOADS[:4]}
    assert shapes == {"latency-16": (1, 16), "latency-128": (1, 128), "full-128": (8, 128), "full-512": (2, 512)}
    assert fixed_workload("full-128", "cpu", 100).batches[0].ids.max() < 100
    assert (
        fixed_workload("mixed", "cpu", 99).batches[0].ids == fixed_workload("mixed", "cpu", 99).batches[0].ids
    ).all()


@pytest.mark.parametrize("n_texts", [8, 15, 16, 100])
def test_texts_are_neighbours_in_their_order(tokenizer, n_texts):
    texts = [f"{'fox ' * (i % 7)}{i}" for i in range(n_texts)]
    work = text_workload("paragraphs", "cpu", texts, tokenizer, 6)
    assert len(work.batches) == min(4, n_texts // 8)
    places = []
    for batch in work.batches:
        places.append(texts.index(batch.texts[0]))
        assert batch.texts == tuple(texts[places[-1] : places[-1] + 8])
        for ids, mask, text in zip(batch.ids, batch.mask, batch.texts, strict=True):
            assert ids[mask == 1].tolist() == tokenizer(text, truncation=True, max_length=6)["input_ids"]
    assert places == sorted(set(places)) and places[0] == 0
    with pytest.raises(ValueError, match="paragraphs must be at least 8 texts, got 7"):
        text_workload("paragraphs", "cpu", texts[:7], tokenizer, 6)


def test_texts_without_a_file(tokenizer):
    paragraphs = paragraphs_of_python()
    sentences = sentences_of(paragraphs)
    assert len(paragraphs) > 500 and len(sentences) > 1000 and " ".join(sentences) == " ".join(paragraphs)
    work = text_workload("sentences", "cpu", sentences, tokenizer, 512)
    assert len(work.batches) == 4 and 0.2 < work.real_share < 0.6


_CHARACTERS = st.characters(exclude_characters="\r\n\t", codec="utf-8")
_LINES = st.lists(st.text(_CHARACTERS, min_size=1).filter(str.strip), min_size=1)


@settings(max_examples=30, deadline=None)
@given(_LINES, st.booleans(), st.booleans())
def test_every_line_is_a_text(tmp_path_factory, lines, is_table, ends_with_newline):
    path = tmp_path_factory.mktemp("texts") / ("texts.tsv" if is_table else "texts.txt")
    rows = ["text\tlabel", *(f"{line}\t1" for line in lines)] if is_table else lines
    path.write_bytes(("\n".join(rows) + "\n" * ends_with_newline).encode())
    texts, told = read_lines(path)
    assert texts == lines and f"{len(lines):,} texts" in told and ("'text'" in told) == is_table


def test_damaged_texts(tmp_path):
    path = tmp_path / "texts.tsv"
    for content, message in ((b"text\na\n \n", "line 3: expected a text"), (b"\xff", "must be UTF-8 text")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_lines(path)


# Figures


def test_flops_are_those_of_the_literature():
    for size, length, mega in (("base", 128, 174.6), ("base", 384, 184.0), ("large", 128, 616.6)):
        config = ElectraConfig(**SHAPES[size])
        assert forward_flops(config, np.array([length])) / length / 1e6 == pytest.approx(mega, abs=0.05)
    rows = [forward_flops(config, np.array([n])) for n in (3, 500)]
    assert forward_flops(config, np.array([3, 500])) == sum(rows)


_SECONDS = st.floats(1e-4, 10)


@given(st.lists(st.tuples(_SECONDS, _SECONDS), min_size=1, max_size=12), st.sampled_from(["sentences", "latency-16"]))
def test_ratios_compare_turns_of_one_round(pairs, name):
    work = Workload(name, (Batch(*np.ones((2, 1, 16), np.int64)),))
    ours, theirs = ([[second] for second in column] for column in zip(*pairs, strict=True))
    found = figures(work, theirs, ours)
    low, high = found["ratios_20_80"]
    ordered = sorted(b / a for a, b in pairs)
    assert ordered[0] - 1e-3 <= low <= found["ratio"] + 1e-3 and found["ratio"] <= high + 1e-3 <= ordered[-1] + 2e-3
    assert low == pytest.approx(ordered[round(0.2 * (len(ordered) - 1))], abs=1e-3)
    slower = figures(work, [[2 * s for s in turn] for turn in theirs], ours)
    assert slower["ratio"] == pytest.approx(2 * found["ratio"], abs=2e-3)
    assert (found["p99"] is None) == (name == "sentences")


def test_latency_is_that_of_every_call():
    work = Workload("latency-16", (Batch(*np.ones((2, 1, 16), np.int64)),))
    calls = [1e-3] * 99 + [9e-3]
    found = figures(work, [calls[:50], calls[50:]], [[2e-3], [2e-3]])
    assert found["milliseconds"] == [1, 1, 1] and found["ratio"] == 0.5
    assert figures(work, [[1e-3] * 90 + [9e-3] * 10], None)["p99"] == 9


def test_rounds_fill_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def turn(seconds):
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    for seconds, n in ((1.0, 6), (100.0, 5), (1e-3, 50)):
        assert _n_rounds({"a": turn(seconds), "b": turn(seconds)}) == n


def test_a_latency_turn_begins_with_an_untimed_call():
    ran = []
    work = Workload("latency-16", (Batch(*np.ones((2, 1, 16), np.int64)),))
    assert len(turn_seconds(ran.append, [(1,)], work)) == 20 and len(ran) == 21
    work = Workload("sentences", work.batches * 3)
    assert len(turn_seconds(ran.append, [(1,), (2,), (3,)], work)) == 3 and ran[21:] == [1, 2, 3]


def test_turns_rotate_after_a_pause(monkeypatch):
    events = []
    monkeypatch.setattr("time.sleep", lambda seconds: events.append("pause"))

    def turn(name):
        def run():
            assert not gc.isenabled()
            events.append(name)
            return name

        return run

    with tqdm(disable=True) as bar:
        results = take_turns({name: turn(name) for name in "abc"}, 4, bar)
    assert gc.isenabled() and results == {name: [name] * 4 for name in "abc"}
    assert events[::2] == ["pause"] * 12 and "".join(events[1::2]) == "abcbcacababc"


def test_a_terminal_of_100_columns_holds_the_longest():
    row = dict.fromkeys(COLUMNS) | {
        "size": "small", "dtype": "fp32", "from_text": False, "workload": "latency-128", "threads": 2, "cores": 2,
        "provider": "transformers sdpa, compiled", "milliseconds": [1234.5] * 3, "p99": 2345.6, "error": 1.2e-5,
        "tokens_per_second": 12345678, "ratio": 12.345, "ratios_20_80": [11.111, 13.333], "cold_start": 123.4,
        "peak_mb": 12345, "gemm_gflops": 123.4, "copy_gb_per_second": 12.3, "cpu": "AMD EPYC", "cpu_flags": "avx2 " * 9,
    }  # fmt: skip
    lines = tables([row]).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any("1234 / 2346" in line and "12.35 x (11.11 - 13.33)" in line for line in lines)


def test_the_machine_says_what_the_processor_has():
    has = machine()["cpu_flags"].split()
    assert set(has) <= set(CPU_FLAGS) and has == [flag for flag in CPU_FLAGS if flag in has]
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert "avx2" in has
