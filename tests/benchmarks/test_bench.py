"""The benchmarks, run on very little as a user runs them, and what they are made of."""

import gc
import json
import lzma
import re
import subprocess
import sys

import pytest
from electra_fast.benchmarks import measure
from electra_fast.benchmarks.measure import (
    markdown,
    quantiles,
    quantiles_cell,
    ratio,
    ratio_cell,
    ratio_figures,
    time_in_turn,
)
from electra_fast.benchmarks.tokenizer.bench import head, kinds_of_work, measure_work
from electra_fast.benchmarks.tokenizer.peers import OURS, ElectraFast, Provider
from tqdm import tqdm

from electra_fast import ElectraTokenizer
from electra_fast.cli.main import BENCHMARKS, main

TEXTS = [f"The quick brown fox number {i} jumps. Over {i} lazy dogs, 東京 and a naïve café!" for i in range(40)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def fail(capsys, *argv) -> str:
    """The one line that a user's mistake gives."""
    code, captured = main(["bench", *map(str, argv)]), capsys.readouterr()
    assert code == 2 and captured.out == "" and captured.err.count("\n") == 1
    return captured.err


# The command


def test_help_at_each_level(capsys):
    for argv in (["bench", "--help"], *(["bench", name, "--help"] for name in BENCHMARKS)):
        with pytest.raises(SystemExit) as exit:
            main(argv)
        assert exit.value.code == 0
        assert f"usage: electra-fast {' '.join(argv[:-1])}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit:
        main(["bench"])
    assert exit.value.code == 2
    capsys.readouterr()
    assert "subcommands are model, ops, tokenizer" in fail(capsys, "tokeniser")


def test_tokenizer_table_and_rows(capsys, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "blingfire", None)  # as if it were not installed
    rows_file = tmp_path / "rows.jsonl"
    options = ["--data", corpus, "--repeats", 2, "--threads", 1, "--json", rows_file]
    assert main(["bench", "tokenizer", *map(str, options)]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    works = [work.name for work in kinds_of_work(TEXTS)]
    assert [row["work"] for row in rows if row["provider"] == OURS] == works
    for row in rows:
        low, median, high = row["mb_per_second"]
        assert 0 < low <= median <= high and row["ratio"] > 0
        assert row["corpus"] == "corpus.txt" and row["n_texts"] == len(TEXTS) and row["threads"] == 1
        assert 0 <= row["differing_share"] <= 1
        if row["provider"] in (OURS, "tokenizers", "transformers"):
            assert row["n_differing"] == 0
        if row["provider"] == OURS:
            assert row["ratio"] == 1
    about = {"date", "cpu", "cores", "python", "numpy", "tokenizers", "nanotoken", "electra_fast", "commit"}
    assert about <= rows[0].keys()

    assert re.search(r"^not installed: .*blingfire \(", out, re.MULTILINE)
    assert not any(row["provider"] == "blingfire" for row in rows)

    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]
    assert len(lines) == 2 + len(rows)
    for (work, threads, provider, speeds, times, share), row in zip(lines[2:], rows, strict=True):
        assert (work, threads, provider) == (row["work"], "1", row["provider"])
        assert [float(speed) for speed in speeds.split(" / ")] == pytest.approx(row["mb_per_second"], rel=0.01)
        assert re.fullmatch(r"[\d.e+-]+ x as fast" if provider != OURS else "", times)
        assert share == f"{row['differing_share']:.2%} ({row['n_differing']})"


def test_mistakes_are_one_line(capsys, corpus, tmp_path):
    empty, damaged = tmp_path / "empty.txt", tmp_path / "damaged.txt.xz"
    empty.write_text("\n \n")
    damaged.write_bytes(lzma.compress(b"text")[:-8])
    data = ("tokenizer", "--data")
    for argv, message in (
        ((*data, corpus, "--against", "tokenizers", "fast-one"), "unknown peer 'fast-one'; the peers are tokenizers, "),
        ((*data, tmp_path / "none.txt"), f"no such data file: {tmp_path / 'none.txt'}"),
        ((*data, empty), f"{empty} must hold text"),
        ((*data, damaged), f"{damaged} must be UTF-8 text, plain or .xz"),
        ((*data, corpus, "--repeats", "0"), "must be above 0, got 10, 0 and "),
        ((*data, corpus, "--threads"), "must be above 0, got 10, 7 and none"),
        ((*data, corpus, "--vocab", tmp_path / "none"), "none"),
        ((*data, corpus, "--json", tmp_path / "none" / "rows"), "the directory of the output does not exist"),
    ):
        assert message in fail(capsys, *argv)


def test_a_plot_without_matplotlib(capsys, corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = fail(capsys, "tokenizer", "--data", corpus, "--plot", corpus.with_name("speed.png"))
    assert "needs matplotlib" in error and "pip install electra_fast[bench]" in error


# What it is made of


class Shuffled(Provider):
    """Gives the ids of half of the texts in another order."""

    module = "electra_fast"

    def __init__(self, folder, n_threads):
        self.tokenizer = ElectraTokenizer.from_pretrained(folder)

    def ids(self, texts):
        rows = self.tokenizer(texts)["input_ids"]
        return [row[::-1] if i % 2 else row for i, row in enumerate(rows)]


def test_texts_that_differ_are_counted_and_never_ours(tmp_path):
    tokenizer = ElectraTokenizer(
        {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "fox", "dog"])}
    )
    tokenizer.save_pretrained(tmp_path)
    (work, *_) = kinds_of_work(["fox dog"] * 10)
    with tqdm(disable=True) as bar:
        ours, theirs = measure_work(work, {OURS: ElectraFast, "shuffled": Shuffled}, tmp_path, 1, 2, bar)
        assert (ours["n_differing"], theirs["n_differing"], theirs["differing_share"]) == (0, 5, 0.5)
        with pytest.raises(SystemExit, match="electra_fast gives other ids than tokenizers for 5 texts"):
            measure_work(work, {OURS: Shuffled}, tmp_path, 1, 2, bar)


def test_providers_take_turns_and_are_made_anew():
    made, ran = [], []

    def maker(name):
        def make():
            assert not gc.isenabled()
            made.append(name)
            return lambda x: ran.append((name, x))

        return make

    with tqdm(disable=True) as bar:
        seconds = time_in_turn({"a": maker("a"), "b": maker("b")}, [(1,), (2,)], 3, bar)
    assert gc.isenabled()
    assert made == ["a", "b", "b", "a", "a", "b"]  # who begins changes
    assert ran == [(name, x) for name in made for x in (1, 2)]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_figures():
    assert quantiles([5, 1, 4, 2, 3, 6]) == [2, 3, 5]
    assert ratio([2, 3, 40], [1, 1, 10]) == 3
    assert ratio_figures([2, 3, 40], [1, 1, 10]) == {"ratio": 3, "ratios_20_80": [2, 4]}
    assert markdown(["a", "bc"], [["def", "g"]]) == "| a   | bc |\n| --- | -- |\n| def | g  |"


def test_cells():
    assert quantiles_cell([1.0, 2.346, 30], ".3g") == "1 / 2.35 / 30"
    form = "{ratio:.2f} x ({ratios_20_80[0]:g} to {ratios_20_80[1]:g})"
    row = {"provider": "theirs", "ratio": 3.0, "ratios_20_80": [2.5, 4]}
    assert ratio_cell(row, form) == "3.00 x (2.5 to 4)"
    assert ratio_cell(row | {"provider": OURS}, form) == ratio_cell(row | {"ratio": None}, form) == ""


def test_workloads_hold_every_text_once():
    texts = [f"{i}. {i}" for i in range(2501)]
    by_method = {work.method: work for work in kinds_of_work(texts)}
    assert [text for call in by_method["offset_lists"].calls for text in call[0]] == texts
    assert [text for call in by_method["pairs"].calls for pair in zip(*call, strict=True) for text in pair] == texts[
        :-1
    ]
    assert all(len(call[0]) == 256 for call in by_method["tensors"].calls)
    assert "pairs" not in {work.method for work in kinds_of_work(texts[:1])}
    assert head(["é" * 500_000] * 3, 1.5) == ["é" * 500_000] * 2


def test_rows_name_their_commit_and_whether_the_tree_was_clean(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a", *arguments], check=True)

    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for file in (tmp_path / "code.py", results / "model.jsonl"):
        file.write_text("")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    monkeypatch.setattr(measure, "__file__", str(tmp_path / "benchmarks" / "measure.py"))
    commit = measure.machine()["commit"]
    assert re.fullmatch("[0-9a-f]{7,}", commit)
    (results / "model.jsonl").write_text("{}\n")  # the rows of a run before
    assert measure.machine()["commit"] == commit
    (tmp_path / "code.py").write_text("1\n")
    assert measure.machine()["commit"] == f"{commit}-dirty"
