"""The picture of a run."""

import sys

import numpy as np
import pytest

from electra_fast.pretraining.results import PANELS
from electra_fast.training.plot import plot_run
from electra_fast.training.progress import JsonLines


def write_log(path, steps=(50, 100, 150), names=("generator_loss", "discriminator_loss", "discriminator_auc", "lr")):
    with JsonLines(path) as log:
        log.write("run", recipe={"name": "tiny"}, n_parameters=1_200_000)
        log.write("evaluation", step=0, generator_loss=8.4, unigram_loss=6.0, discriminator_auc=0.5)
        for step in steps:
            log.write("train", step=step, tokens_per_second=1e4, **{name: 100.0 / step for name in names})


def pixels(path):
    image = pytest.importorskip("matplotlib.image")
    return image.imread(path)


def test_it_draws_a_panel_for_each_metric_that_is_there(tmp_path):
    write_log(tmp_path / "all.jsonl")
    write_log(tmp_path / "lr.jsonl", names=("lr",))
    heights = []
    for name in ("all", "lr"):
        plot_run(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png", PANELS, "ELECTRA tiny")
        picture = pixels(tmp_path / f"{name}.png")
        heights.append(picture.shape[0])
        for colour in (0x3B6EA8, 0xD1495B, 0x8A8A8A):  # training, held out, constant guess
            rgb = np.array([colour >> 16, colour >> 8 & 255, colour & 255]) / 255
            assert (np.abs(picture[..., :3] - rgb).max(-1) < 0.01).sum() > 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "all.png", "lr.jsonl", "lr.png"]
    # 4 panels in two rows; of the other, the learning rate and what only evaluations have: 3 panels in two rows.
    assert heights == [660, 660]


def test_of_a_step_that_was_done_twice_the_later_record_counts(tmp_path):
    write_log(tmp_path / "once.jsonl")
    write_log(tmp_path / "resumed.jsonl", steps=(50, 100))
    with JsonLines(tmp_path / "resumed.jsonl") as log:
        log.write("train", step=150, lr=1e6)
    write_log(tmp_path / "resumed.jsonl", steps=(100, 150))
    for name in ("once", "resumed"):
        plot_run(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.png", PANELS, "ELECTRA tiny")
    assert (pixels(tmp_path / "once.png") == pixels(tmp_path / "resumed.png")).all()


def test_a_log_without_training_is_refused(tmp_path):
    write_log(tmp_path / "log.jsonl", steps=())
    with pytest.raises(ValueError, match=r"at least one record of kind train, got none in .*log\.jsonl"):
        plot_run(tmp_path / "log.jsonl", tmp_path / "run.png", PANELS, "ELECTRA tiny")
    assert not (tmp_path / "run.png").exists()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    write_log(tmp_path / "log.jsonl")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'electra_fast\[train\]'"):
        plot_run(tmp_path / "log.jsonl", tmp_path / "run.png", PANELS, "ELECTRA tiny")
