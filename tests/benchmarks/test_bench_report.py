"""`electra-fast bench report`: tables, history and plots from rows of clean trees."""

import json
from pathlib import Path

import pytest
from electra_fast.benchmarks.report import rows as rows_module
from electra_fast.benchmarks.report.figures import BLOCKS, make, rewrite
from electra_fast.benchmarks.report.history import history_tables
from electra_fast.benchmarks.report.plots import plot_history, plot_ratios
from electra_fast.benchmarks.report.report import tables
from electra_fast.benchmarks.report.rows import BENCHES, OURS, newest, read_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from report_rows import cells, fail, row

from electra_fast.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/benchmarks.md")


# Rows as they come: of any bench, with columns missing, from several machines and commits

WORDS = st.sampled_from(["a", "b c", "latency-16", "full-128", "x | y", "#`*", "ids, repeated"])
NUMBERS = st.one_of(st.none(), st.integers(0, 3), st.floats(0.001, 1e6))


@st.composite
def any_row(draw) -> dict:
    name = draw(st.sampled_from(list(BENCHES)))
    bench = BENCHES[name]
    size = st.floats(1e-3, 1e6)
    columns = {
        **dict.fromkeys((*bench.settings, *bench.workload), st.one_of(st.none(), WORDS)),
        **dict.fromkeys(("threads", "n_texts", "n_items", "tokens", "seq_length"), st.sampled_from([None, 1, 2])),
        bench.value: st.one_of(st.none(), st.lists(size, min_size=3, max_size=3).map(sorted)),
        "ratio": st.one_of(st.none(), size),
        "ratios_20_80": st.one_of(st.none(), st.lists(size, min_size=2, max_size=2).map(sorted)),
        "gpu": st.sampled_from([None, "GPU"]),
        "busy": st.sampled_from([None, 1, 2]),
        "cpu": st.sampled_from([None, "CPU A", "CPU B"]),
        "cpu_flags": st.sampled_from([None, "avx2", ["avx2", "amx"]]),
        "cores": st.sampled_from([None, 1, 2]),
        "date": st.sampled_from([None, "2026-01-02", "2026-01-03"]),
        "commit": st.sampled_from([None, "aaaaaaa", "bbbbbbb-dirty"]),
        "status": st.sampled_from(["right", "fails: a | b\nc"]),
        "dtype": st.sampled_from([None, "fp32", "int8"]),
        "p99": NUMBERS,
        "tokens_per_second": NUMBERS,
        "seconds": NUMBERS if bench.value != "seconds" else st.none(),
    } | ({"seconds": st.lists(size, min_size=3, max_size=3)} if bench.value == "seconds" else {})
    kept = draw(st.sets(st.sampled_from(sorted(columns))))
    provider = draw(st.sampled_from([OURS, OURS, "onnxruntime", "trainer-grouped"]))
    return {"bench": name, "provider": provider} | {key: draw(columns[key]) for key in sorted(kept)}


@settings(deadline=None, max_examples=150)
@given(st.lists(any_row(), min_size=1, max_size=12))
def test_any_rows_become_tables(tmp_path_factory, rows):
    directory = tmp_path_factory.mktemp("results")
    (directory / "x.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    read = read_rows(directory)
    assert sorted(map(json.dumps, read)) == sorted(map(json.dumps, rows))
    assert [row.get("date") or "" for row in read] == sorted(row.get("date") or "" for row in rows)
    for name, bench in BENCHES.items():
        some = [row for row in read if row["bench"] == name]
        if not some:
            continue

        def case(row, bench=bench):
            return tuple(row.get(c) for c in (*bench.settings, *bench.workload, "cpu", "cores", "gpu"))

        last = {(case(row), row["provider"]): row for row in some}
        assert newest(some) == list(last.values())
        parts = tables(newest(some))
        machines = {tuple(row.get(c) for c in ("cpu", "cores", "gpu")) for row in some}
        assert len(parts) == 2 * len(machines)
        written = [line for table in parts[::2] for line in cells(table)]
        assert len(written) == len(machines) + len(last)
        for line in cells(history_tables(some)):
            assert "\n" not in line
        runs = {(case(row), row.get("date") or "", row.get("commit") or "") for row in some}
        shown = [line for line in cells(history_tables(some)) if line[0] != "workload"]
        assert len(shown) == len(runs)


@settings(deadline=None, max_examples=100)
@given(st.lists(any_row(), max_size=12), st.text(alphabet="ab<!->\n\\1 ", max_size=30), st.sampled_from(list(BLOCKS)))
def test_blocks_are_rewritten_and_nothing_else(rows, text, name):
    begin, end = f"<!-- figures: {name} -->\n", "<!-- end figures -->"
    once = rewrite(f"{text}{begin}old\n{end}{text}", rows)
    made = make(BLOCKS[name], rows)
    assert once == f"{text}{begin}{made}\n{end}{text}"
    assert rewrite(once, rows) == once
    lines = cells(made)
    assert len({len(line) for line in lines}) <= 1
    assert all(line[0] for line in lines[1:]) or len(lines) <= 2  # several lines have a name each


# Tables


def test_the_newest_row_of_each_case_is_shown_with_where_it_is_from(results, capsys):
    old = row("onnxruntime", 1.5, commit="0000000", date="2026-01-01")
    other = row("onnxruntime", 3.0, cpu="CPU B", cpu_flags=["avx2", "amx"], cores=16, commit="ccccccc")
    directory = results(row("onnxruntime", 2.0), row(), other)
    results(old, row("openvino", status="fails | here", milliseconds=None), name="z.jsonl")
    assert main(["bench", "report", "--results", str(directory)]) == 0
    out = capsys.readouterr().out
    header, *lines = cells(out.split("2026-01-02;")[0])
    shown = [dict(zip(header, line, strict=True)) for line in lines]
    assert {line["provider"]: line["electra_fast is"] for line in shown} == {
        "onnxruntime": "2.00 x (1.80 to 2.20)",
        OURS: "",
        "openvino": "",
    }
    assert shown[0]["settings"] == "small, fp32, 2 threads" and shown[0]["99 %"] == "15.5"
    assert shown[0]["ms (20 / 50 / 80 %)"] == "9 / 10 / 12" and shown[0]["tokens/s"] == "12,345"
    assert shown[-1]["ms (20 / 50 / 80 %)"] == "no figure: fails \\| here"
    assert "commit" not in header and "MFU" not in header
    assert "2026-01-02; 2 cores of CPU A; torch 2.13.0; commit aaaaaaa" in out
    assert "2026-01-02; 16 cores of CPU B; with avx2 amx; torch 2.13.0; commit ccccccc" in out


def test_rows_of_several_commits_name_theirs():
    table, below = tables([row(), row("onnxruntime", 2.0, commit="bbbbbbb", date="2026-01-03")])
    assert [line[-1] for line in cells(table)] == ["commit", "2026-01-02 aaaaaaa", "2026-01-03 bbbbbbb"]
    assert below.startswith("2026-01-02, 2026-01-03;") and below.endswith("commit aaaaaaa, bbbbbbb")


def test_history_has_a_line_a_run(results, capsys):
    later = {"commit": "bbbbbbb", "date": "2026-01-03"}
    of_two = [row("onnxruntime", 1.1), row("onnxruntime", 1.25), row("openvino", 0.8), row("onnxruntime", 2.0, **later)]
    directory = results(*of_two, row(workload="mixed", **later))
    assert main(["bench", "report", "--history", "--results", str(directory)]) == 0
    table = capsys.readouterr().out.partition("commit by commit")[2]
    assert cells(table) == [
        ["workload", "date", "commit", "beside onnxruntime", "beside openvino"],
        ["full-128", "2026-01-02", "aaaaaaa", "1.25 x", "0.80 x"],
        ["full-128", "2026-01-03", "bbbbbbb", "2.00 x", ""],
        ["mixed", "2026-01-03", "bbbbbbb", "", ""],
    ]


def test_files_are_written_whole(results, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    rows = [row(), row("onnxruntime", 2.0), row("onnxruntime", 2.5, commit="bbbbbbb")]
    directory = results(*rows, {"bench": "pretrain", "provider": OURS})
    out, plots = tmp_path / "report.md", tmp_path / "plots"
    argv = ["--results", directory, "--markdown", out, "--plots", plots, "--history"]
    assert main(["bench", "report", *map(str, argv)]) == 0
    names = ["model-history.png", "model.png"]
    assert capsys.readouterr().out.split() == [f"{plots}/{name}" for name in reversed(names)] + [str(out)]
    assert sorted(path.name for path in plots.iterdir()) == names  # of pretrain there is nothing to compare
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    assert out.read_text(encoding="utf-8").startswith("# Benchmarks\n\n## model\n\n| settings")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plots", "report.md", "results"]


# Mistakes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"bench": "model", "provider": "x"', "Expecting ',' delimiter"),
        ("[1]", "expected a JSON object, got list"),
        ('{"provider": "x"}', "bench must be one of model, embed, tokenizer"),
        ('{"bench": ["model"], "provider": "x"}', "bench must be one of"),
        ('{"bench": "model"}', "provider must be a string, got None"),
        (json.dumps(row(milliseconds=[1, 2])), "milliseconds must be 3 numbers, got [1, 2]"),
        (json.dumps(row(milliseconds=7)), "milliseconds must be 3 numbers, got 7"),
        (json.dumps(row(ratio=float("nan"), ratios_20_80=None)), "ratio must be a number, got nan"),
        (json.dumps(row(ratio=0)), "ratios_20_80 must be 2 numbers, got 0"),
        (json.dumps(row("x", 2.0, ratios_20_80=[0, 1])), "ratios must be above 0, got [2.0, 0, 1]"),
        (json.dumps(row(p99="5")), "p99 must be a number, got '5'"),
        (json.dumps(row(size=["small"])), "size must be a string or a number, got ['small']"),
        (json.dumps(row(threads="2")), "threads must be a number, got '2'"),
        (json.dumps(row(date=20260102)), "date must be a string, got 20260102"),
        ("\udcff", "'utf-8' codec can't decode"),
    ],
)
def test_a_damaged_line_is_named(results, capsys, line, message):
    path = results(row()) / "rows.jsonl"
    with path.open("ab") as file:
        file.write(b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    error = fail(capsys, "--results", path.parent)
    assert f"{path}, line 3: " in error and message in error


def test_mistakes_are_one_line(results, tmp_path, capsys):
    assert "no directory of results" in fail(capsys, "--results", tmp_path / "none")
    directory = results()
    assert "must hold *.jsonl files with rows, got none" in fail(capsys, "--results", directory)
    results(row())
    assert "unknown bench 'modell'; the benches are model, embed" in fail(capsys, "--bench", "modell")
    assert "has no rows of embed, ops" in fail(capsys, "--results", directory, "--bench", "embed", "ops")
    assert "does not exist" in fail(capsys, "--results", directory, "--markdown", tmp_path / "none" / "x.md")
    assert "none.md" in fail(capsys, "--results", directory, "--readme", tmp_path / "none.md")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no block", "got 0 of them and 0"),
        ("<!-- figures: model -->\n", "got 0 of them and 1"),
        ("<!-- figures: model -->\n<!-- figures: embed -->\n<!-- end figures -->", "got 1 of them and 3"),
        ("<!-- figures: model -->\n<!-- end figures --><!-- end figures -->", "got 1 of them and 3"),
        ("<!-- figures: modell -->\n<!-- end figures -->", "unknown block of figures 'modell'"),
    ],
)
def test_a_damaged_readme_stays_as_it_is(results, tmp_path, capsys, text, message):
    readme = tmp_path / "README.md"
    readme.write_text(text, encoding="utf-8")
    assert message in fail(capsys, "--results", results(row()), "--readme", readme)
    assert readme.read_text(encoding="utf-8") == text


# Plots


def test_bars_start_at_one_and_end_at_the_ratio():
    pytest.importorskip("matplotlib")
    slower = row("openvino", 0.5)
    slower["ratios_20_80"] = None
    figure = plot_ratios([row(), row("onnxruntime", 2.0), slower, row("onnxruntime", 4.0, size="base")])
    small, base = figure.axes
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in small.patches] == [(1, 2.0), (1, 0.5)]
    whiskers = [list(line.get_xdata()) for line in small.lines]
    assert whiskers == [pytest.approx([1.8, 2.2]), [0.5, 0.5], [1, 1]]  # the last is the line at 1
    assert [text.get_text() for text in small.texts] == ["2.00", "0.50"]
    assert [axes.get_title(loc="left") for axes in (small, base)] == ["small, fp32, 2 threads", "base, fp32, 2 threads"]
    assert small.patches[0].get_facecolor() == base.patches[0].get_facecolor() != small.patches[1].get_facecolor()
    for axes, (least, most) in zip((small, base), ((0.5, 2.2), (1, 4.4)), strict=True):
        assert axes.get_xlim()[0] < least < most < axes.get_xlim()[1]
    assert plot_ratios([row()]) is None


def test_titles_have_the_machine_where_there_are_several():
    pytest.importorskip("matplotlib")
    figure = plot_ratios([row("onnxruntime", 2.0), row("onnxruntime", 2.0, cpu="CPU B", gpu="GPU")])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"small, fp32, 2 threads, 2 cores of {name}" for name in ("CPU A", "CPU B, GPU")]


def test_history_is_drawn_of_cases_with_two_runs():
    pytest.importorskip("matplotlib")
    later = {"commit": "bbbbbbb", "date": "2026-01-03"}
    one = [row(), row("onnxruntime", 2.0), row("onnxruntime", 1.5, workload="mixed")]
    assert plot_history(one) is None
    figure = plot_history([*one, row("onnxruntime", 3.0, **later), row("openvino", 0.7, **later)])
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "full-128 (small, fp32, 2 threads)"
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 3.0], [0.7], [1, 1]]
    assert [list(line.get_xdata()) for line in axes.lines[:2]] == [[0, 1], [1]]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["2026-01-02\naaaaaaa", "2026-01-03\nbbbbbbb"]


def test_rows_of_the_checkout_are_read():
    assert {row["bench"] for row in read_rows(rows_module.RESULTS)} >= {"finetune", "pretrain", "tokenizer"}
