"""The benchmark of embeddings: its rows on very little work, and what it refuses to time."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from electra_fast.benchmarks.embed import bench
from electra_fast.benchmarks.embed.bench import (
    OURS,
    EmbedBench,
    check,
    checked_texts,
    documentation_sentences,
    seconds_of_turns,
    speed,
)
from electra_fast.benchmarks.embed.peers import PEERS, Sorted, Transformers, make_peers
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.bundled import bundled
from electra_fast.cli.console import exit_code

SHAPE = {
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 24,
}
WORDS = "the quick brown fox jumps over a lazy dog while others sleep".split()


def texts_of(n):
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("model")
    tokenizer = ElectraTokenizer.from_pretrained(bundled("discriminator"))
    torch.manual_seed(0)
    ElectraForPreTraining(ElectraConfig(vocab_size=len(tokenizer), initializer_range=0.1, **SHAPE)).save_pretrained(
        directory
    )
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Runs the command on 70 texts, 32 a turn; returns the rows."""
    monkeypatch.setattr(bench, "TEXTS_A_TURN", 32)
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    path, rows = tmp_path / "texts.tsv", tmp_path / "rows.jsonl"
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(texts_of(70))))

    def run(*arguments):
        fixed = ("--model", model, "--texts", path, "--repeats", 2, "--threads", 1, "--json", rows)
        arguments = tuple(map(str, (*fixed, *arguments)))
        tyro.cli(EmbedBench, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)).run()
        return [json.loads(line) for line in rows.read_text().splitlines()]

    return run


def test_rows_and_table(run, capsys, tmp_path, model):
    rows = run("--plot", tmp_path / "speed.png")
    out = capsys.readouterr().out
    there = [name for name in PEERS if PEERS[name].obstacle is None]
    assert {"transformers", "transformers-sorted"} <= set(there)
    assert [row["provider"] for row in rows] == [OURS, *there]
    tokenizer = ElectraTokenizer.from_pretrained(model)
    lengths = [min(24, len(ids)) for ids in tokenizer(texts_of(70))["input_ids"]]
    padded = sum(len(part) * max(part) for part in (lengths[:32], lengths[32:64], lengths[64:]))
    for row in rows:
        assert (row["bench"], row["model"], row["texts"], row["status"]) == ("embed", model, "texts.tsv", "right")
        assert (row["n_texts"], row["n_tokens"], row["threads"]) == (70, sum(lengths), 1)
        assert row["real_share"] == pytest.approx(sum(lengths) / padded, abs=1e-3)
        low, median, high = row["seconds"]
        assert 0 < low <= median <= high
        assert row["texts_per_second"] == pytest.approx(70 / median, rel=0.1)
        assert row["tokens_per_second"] == pytest.approx(sum(lengths) / median, rel=0.1)
        assert row["ratios_20_80"][0] <= row["ratio"] <= row["ratios_20_80"][1]
        assert {"date", "cpu", "cores", "commit", "torch", "transformers"} <= row.keys()
    assert rows[0]["ratio"] == 1
    assert "70 texts, fewer than the 20,000 asked for" in out
    assert sum(line.startswith("| ") for line in out.splitlines()) == 2 + len(rows)
    assert (tmp_path / "speed.png").stat().st_size > 0


def test_a_peer_that_is_missing_is_named_with_what_to_install(run, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    rows = run("--against", "transformers", "onnxruntime", "--n", 4)
    assert [row["provider"] for row in rows] == [OURS, "transformers"]
    assert "not installed: onnxruntime (pip install onnxruntime onnx)" in capsys.readouterr().out


def test_a_peer_that_fails_leaves_the_others_their_times(run, monkeypatch, tmp_path):
    monkeypatch.setattr("electra_fast.benchmarks.embed.peers.write_onnx", lambda *_: 1 / 0)
    with pytest.raises(SystemExit, match="onnxruntime fails: ZeroDivisionError: division by zero"):
        run("--against", "transformers", "onnxruntime", "--n", 4)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["seconds"] is None for row in rows] == [False, False, True]


def test_ours_gets_no_time_when_it_is_wrong(run, capsys, monkeypatch):
    embed = bench.embed
    monkeypatch.setattr(bench, "embed", lambda *args, **options: embed(*args, **options) + np.float32(2e-4))
    with pytest.raises(SystemExit, match=r"electra_fast is wrong by up to 2\.0e-04, cosine .*: it gets no time"):
        run("--against", "transformers", "--n", 4)
    assert "no time" in capsys.readouterr().out


def test_random_weights_of_a_size_on_pythons_documentation(run, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "documentation_sentences", lambda: texts_of(5))
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    EmbedBench(size="tiny", repeats=1, threads=1, against=(), json=tmp_path / "own.jsonl").run()
    (row,) = map(json.loads, (tmp_path / "own.jsonl").read_text().splitlines())
    assert (row["model"], row["texts"], row["n_texts"]) == ("tiny, random weights", "Python's documentation", 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"against": ("fast-one",)}, "unknown peer 'fast-one'; the peers are transformers, "),
        ({"size": "huge"}, "size must be one of tiny, small, base, large, got 'huge'"),
        ({"n": 0}, "n, repeats and threads must be above 0, got 0, 3 and None"),
        ({"threads": 0}, "n, repeats and threads must be above 0, got 20000, 3 and 0"),
        ({"texts": "/no/such.txt"}, "/no/such.txt"),
        ({"json": "/no/such/rows.jsonl"}, "the directory of the output does not exist: /no/such"),
    ],
)
def test_mistakes_are_one_line(options, message, capsys):
    options = {name: Path(value) if name in ("texts", "json") else value for name, value in options.items()}
    assert exit_code("bench embed", EmbedBench(**options).run) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_a_plot_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert exit_code("bench embed", EmbedBench(plot=tmp_path / "speed.png").run) == 2
    assert "needs matplotlib" in capsys.readouterr().err


# What it is made of


def test_what_is_wrong_with_vectors():
    def reference(texts):
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    providers = {
        "same": reference,
        "scaled": lambda texts: reference(texts) * 1.001,
        "other order": lambda texts: reference(texts)[::-1],
        "nothing": lambda texts: reference(texts) * np.nan,
        "broken": lambda texts: texts[99],
    }
    status = check(providers, reference, ["a", "bbb"])
    assert status.pop("same") == "right"
    assert status.pop("broken") == "broken fails: IndexError: list index out of range"
    assert all("is wrong by up to" in text for text in status.values()) and len(status) == 3


def test_each_provider_gets_all_texts_in_turns(monkeypatch):
    monkeypatch.setattr(bench, "TEXTS_A_TURN", 2)
    calls = []
    providers = {name: lambda texts, name=name: calls.append((name, texts)) for name in "ab"}
    with tqdm(disable=True) as bar:
        seconds = seconds_of_turns(providers, list("12345"), 2, bar)
    assert {name: values.shape for name, values in seconds.items()} == {"a": (2, 3), "b": (2, 3)}
    parts = [["1", "2"], ["3", "4"], ["5"]]
    for name in "ab":
        assert [texts for who, texts in calls if who == name] == parts * 2
    assert [texts for _, texts in calls[::2]] == [texts for _, texts in calls[1::2]]


def test_figures_of_a_row():
    """Of three repeats of two turns each."""
    ours, theirs = np.array([[1.0, 1.0], [2.0, 2.0], [1.0, 1.0]]), np.array([[2.0, 4.0], [4.0, 8.0], [2.0, 4.0]])
    work = {"n_texts": 12, "n_tokens": 60}
    assert speed("theirs", {OURS: ours, "theirs": theirs}, work) == {
        "seconds": [6.0, 6.0, 12.0],
        "texts_per_second": 2.0,
        "tokens_per_second": 10,
        "ratio": 3.0,
        "ratios_20_80": [2.0, 4.0],
    }
    assert speed("theirs", {"theirs": theirs}, work)["ratio"] is None
    assert speed("theirs", {OURS: ours}, work) == {"seconds": None}


@given(st.lists(st.text(max_size=9), max_size=20))
def test_sorting_restores_the_order(texts):
    given_texts = []

    def provider(texts):
        given_texts.extend(texts)
        return np.array([[hash(text)] for text in texts], np.int64).reshape(len(texts), 1)

    assert (Sorted(provider)(texts)[:, 0] == [hash(text) for text in texts]).all()
    assert sorted(map(len, texts), reverse=True) == list(map(len, given_texts))


def test_the_sorted_peer_has_the_weights_of_the_other(model):
    peers = make_peers(["transformers", "transformers-sorted"], Path(model), 24)
    assert isinstance(peers["transformers"].provider, Transformers)
    assert peers["transformers-sorted"] == Sorted(peers["transformers"])


def test_texts_to_check_are_the_first_and_the_longest():
    texts = [str(i) * (i % 100) for i in range(1, 500)]
    found = checked_texts(texts)
    assert len(found) == 64 and found[:32] == texts[:32] and min(map(len, found[32:])) > 250


def test_documentation_sentences(monkeypatch):
    documents = ["One two three. Four five six!\nToo short. One two three. " + "Long " * 41 + "end."]
    monkeypatch.setattr(bench, "builtin_documents", lambda: documents)
    assert sorted(documentation_sentences()) == ["Four five six!", "One two three."]
