"""The picture of the confusion matrix."""

import sys

import numpy as np
import pytest

from electra_fast.finetuning.confusion import plot_confusion


def pixels(labels, true, predicted, path):
    plot_confusion(labels, true, predicted, path, "dev")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return pytest.importorskip("matplotlib.image").imread(path)[..., :3]


@pytest.mark.parametrize("n", [2, 30])
def test_cells_are_coloured_by_their_share_of_the_true_class(tmp_path, n):
    """Each class has an example more than the one before, all are told right: n cells of the darkest colour."""
    pytest.importorskip("sklearn")
    labels = [f"label {i} {'x' * 200}" for i in range(n)]
    true = [label for i, label in enumerate(labels) for _ in range(i + 1)]
    picture = pixels(labels, true, true, tmp_path / "confusion.png")
    darkest = np.array([8, 48, 107]) / 255  # matplotlib's Blues at 1
    rows, columns = np.nonzero(np.abs(picture - darkest).max(-1) < 0.01)
    assert len(rows) > 500
    assert np.corrcoef(rows, columns)[0, 1] > 0.7  # on the diagonal: the further down, the further right
    assert max(picture.shape) < 2600


def test_a_class_without_examples_can_be_drawn(tmp_path):
    pytest.importorskip("sklearn")
    assert np.isfinite(pixels(["a", "b"], ["a", "a"], ["a", "b"], tmp_path / "confusion.png")).all()


@pytest.mark.parametrize(("module", "extra"), [("matplotlib.figure", "train"), ("sklearn", "eval")])
def test_without_a_library_the_extra_is_named(tmp_path, monkeypatch, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install 'electra_fast\[{extra}\]'"):
        plot_confusion(["a", "b"], ["a"], ["a"], tmp_path / "confusion.png", "dev")
    assert list(tmp_path.iterdir()) == []
