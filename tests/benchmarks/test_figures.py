"""The figures of README.md and docs/benchmarks.md: what the rows of clean trees give."""

import re
from pathlib import Path

import pytest
from electra_fast.benchmarks.report.figures import BLOCKS, make, rewrite
from electra_fast.benchmarks.report.rows import OURS, RESULTS, is_clean, read_rows
from report_rows import cells, row

from electra_fast.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/benchmarks.md")


def test_a_block_has_figures_of_one_machine_and_commit():
    rows = [
        row("openvino", 9.0, commit="0000000"),  # of another commit than ours
        row(),
        row("onnxruntime", 2.0),
        row(workload="mixed", tokens_per_second=777),
        row("onnxruntime", milliseconds=None, workload="mixed"),
        row(workload="paragraphs", milliseconds=None),  # ours has no figure
        row("onnxruntime", 5.0, workload="sentences"),  # without ours
        row(workload="latency-16"),
        row(size="tiny"),
        row(dtype="int8"),
        row(from_text=True),
        row(workload="full-512", gpu="GPU"),
    ]
    before = row(workload="full-512", cpu="CPU B", date="2026-01-01")
    made = make(BLOCKS["model"], [before, *rows])
    assert cells(made) == [
        ["", "real tokens/s", "beside onnxruntime"],
        ["full-128", "12,345", "2.00 x"],
        ["mixed", "777", "no figure"],
    ]
    where = "small, fp32, 2 threads; 2026-01-02; 2 cores of CPU A; torch 2.13.0; commit aaaaaaa"
    command = "electra-fast bench model --sizes small base --texts SST-2/dev.tsv"
    assert made.splitlines()[-2:] == [f"{where}.", f"Repeat it with `{command}`."]
    again = row(workload="full-512", cpu="CPU B", date="2026-01-03")
    assert [line[0] for line in cells(make(BLOCKS["model"], [before, *rows, again]))[1:]] == ["full-512"]


def test_latencies_have_their_tail():
    rows = [row(workload="latency-16"), row("onnxruntime", 0.95, workload="latency-16", p99=None)]
    assert cells(make(BLOCKS["latency"], rows)) == [
        ["", "ms, 50 / 99 %", "onnxruntime: ms, ratio"],
        ["latency-16", "10 / 15.5", "10, 0.95 x"],
    ]


def test_rows_beside_busy_neighbours_have_a_block_of_their_own():
    busy = {"workload": "latency-16", "busy": 2}
    rows = [row(), row(**busy), row("onnxruntime", 1.5, **busy), row(f"{OURS} fp32", 1.2, **busy)]
    assert cells(make(BLOCKS["busy"], rows)) == [
        ["", "ms, 50 / 99 %", "beside the fastest peer"],
        ["latency-16", "10 / 15.5", "1.50 x (onnxruntime)"],
    ]
    assert "2 busy neighbours" in make(BLOCKS["busy"], rows)
    assert "latency-16" not in make(BLOCKS["latency"], rows)


def test_training_steps_have_a_block_of_their_own():
    train = {"workload": "train-rtd-full", "p99": None, "peak_mb": 1234}
    rows = [row(), row(**train), row("transformers sdpa", 1.5, **{**train, "peak_mb": None}), row(size="tiny", **train)]
    assert cells(make(BLOCKS["training"], rows)) == [
        ["", "real tokens/s", "ms / MB", "beside transformers sdpa: ms / MB, ratio"],
        ["small, train-rtd-full", "12,345", "10 / 1,234", "10, 1.50 x"],
        ["tiny, train-rtd-full", "12,345", "10 / 1,234", ""],
    ]
    assert [line[0] for line in cells(make(BLOCKS["model"], rows))[1:]] == ["full-128"]


def test_a_peer_that_groups_lengths_is_compared_by_whole_times():
    shared = {"bench": "finetune", "model": "m", "task": "sst2", "mean_length": 12.9, "commit": "a", "cpu": "c"}
    ours, theirs = ({**shared, "milliseconds": [1, 2, 3], "seconds": s} for s in (4.0, 6.0))
    rows = [
        {**ours, "provider": OURS},
        *({**theirs, "provider": n, "ratio": 1.1} for n in ("trainer", "trainer-grouped")),
    ]
    assert cells(make(BLOCKS["finetune"], rows))[1] == ["m, sst2, 12.9 tokens on average", "2", "1.10 x", "1.50 x"]


def test_a_row_without_a_commit_is_no_figure():
    assert not any(is_clean(row(commit=commit)) for commit in (None, "", "aaaaaaa-dirty"))
    assert is_clean(row(commit="aaaaaaa"))


def test_lines_that_would_look_alike_get_all_their_columns():
    shared = {"bench": "finetune", "model": "m", "milliseconds": [1, 2, 3], "provider": OURS, "commit": "aaaaaaa"}
    made = make(BLOCKS["finetune"], [{**shared, "n_items": 1}, {**shared, "n_items": 3200}])
    assert [line[0] for line in cells(made)[1:]] == ["m, 1 item", "m, 3,200 items"]


def test_a_summary_has_transformers_and_the_fastest_peer():
    rows = [
        row(),
        row("transformers sdpa", 3.0),
        row("onnxruntime", 2.5),
        row("openvino", 1.25),
        row("transformers eager", milliseconds=None),
        row(workload="sentences"),
        row(workload="mixed"),
    ]
    assert cells(make(BLOCKS["summary"], rows)) == [
        ["", "real tokens/s", "beside transformers sdpa", "beside the fastest peer"],
        ["full-128", "12,345", "3.00 x", "1.25 x (openvino)"],
        ["sentences", "12,345", "", ""],
    ]


def test_where_figures_are_from_is_broken_at_120_columns():
    made = make(BLOCKS["model"], [row(cpu_flags=" ".join(f"flag_{i}" for i in range(40)))])
    below = made.partition("\n\n")[2].splitlines()
    assert len(below) > 3 and max(map(len, below)) <= 120


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_what_the_rows_give(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert rewrite(text, read_rows(RESULTS)) == text, f"electra-fast bench report --readme {page}"


def test_every_block_is_on_one_page():
    names = [re.findall(r"<!-- figures: (.*?) -->", (ROOT / page).read_text(encoding="utf-8")) for page in PAGES]
    assert names[0] == ["summary"]
    assert sorted(names[0] + names[1]) == sorted(BLOCKS)


# Rows of a tree that was not clean


def test_dirty_rows_are_no_figures():
    dirty = {"commit": "bbbbbbb-dirty", "date": "2026-01-03"}
    rows = [
        row(),
        row("onnxruntime", 2.0),
        row(**dirty, tokens_per_second=999),  # newer than the clean one, which serves
        row("onnxruntime", 9.0, **dirty),
        row(workload="mixed", **dirty),
        row("onnxruntime", 9.0, workload="mixed", **dirty),
        row(workload="sentences", **dirty, cpu="CPU B"),  # of another machine than the figures
        row(workload="paragraphs", **dirty, milliseconds=None),
    ]
    made = make(BLOCKS["model"], rows)
    assert cells(made) == [
        ["", "real tokens/s", "beside onnxruntime"],
        ["full-128", "12,345", "2.00 x"],
        ["mixed", "to be measured", ""],
    ]
    assert "dirty" not in made and "2026-01-03" not in made
    nothing = make(BLOCKS["model"], rows[2:])
    assert nothing == f"To be measured on a clean tree: `{BLOCKS['model'].command}`."


def test_the_report_names_the_dirty_rows_that_it_leaves_out(results, tmp_path, capsys):
    dirty = {"commit": "bbbbbbb-dirty", "date": "2026-01-03"}
    embed = {"bench": "embed", "provider": OURS, "seconds": [1, 2, 3], **dirty}
    directory = results(
        row(), row("onnxruntime", 2.0), row("onnxruntime", 9.87, **dirty), row("openvino", 9.87, **dirty), embed
    )
    of_model = "left out, to be measured on a clean tree: model, 2026-01-03 commit bbbbbbb-dirty, rows: 2\n"
    of_embed = of_model.replace("model", "embed").replace("2\n", "1\n")

    assert main(["bench", "report", "--history", "--results", str(directory)]) == 0
    captured = capsys.readouterr()
    assert captured.err == of_model + of_embed
    assert "2.00 x" in captured.out and "9.87" not in captured.out and "dirty" not in captured.out
    assert captured.out.endswith("## embed\n\nTo be measured on a clean tree.\n")
    assert main(["bench", "report", "--bench", "embed", "--results", str(directory)]) == 0
    assert capsys.readouterr().err == of_embed

    page = tmp_path / "page.md"
    page.write_text("<!-- figures: model -->\n<!-- end figures -->\n", encoding="utf-8")
    assert main(["bench", "report", "--bench", "embed", "--readme", str(page), "--results", str(directory)]) == 0
    assert capsys.readouterr().err == of_model + of_embed
    assert "2.00 x" in page.read_text(encoding="utf-8") and "9.87" not in page.read_text(encoding="utf-8")


def test_plots_have_no_dirty_rows(results, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    directory = results(row(), row("onnxruntime", 2.0, commit="bbbbbbb-dirty"))
    assert main(["bench", "report", "--plots", str(tmp_path / "plots"), "--results", str(directory)]) == 0
    assert list((tmp_path / "plots").iterdir()) == []


def test_pages_name_no_dirty_commit():
    for page in PAGES:
        assert re.findall(r"[0-9a-f]{7}-dirty", (ROOT / page).read_text(encoding="utf-8")) == []
    assert not all(map(is_clean, read_rows(RESULTS)))  # which stay in the files


@pytest.mark.parametrize("command", sorted({block.command for block in BLOCKS.values()}))
def test_commands_of_blocks_exist(command, capsys):
    program, *arguments = command.split()
    assert program == "electra-fast"
    with pytest.raises(SystemExit):
        main([*arguments[:2], "--help"])
    shown = capsys.readouterr().out
    for argument in arguments[2:]:
        assert not argument.startswith("--") or argument in shown
