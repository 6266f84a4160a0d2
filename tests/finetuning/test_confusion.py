"""The confusion matrix and its picture."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.confusion import confusion_matrix, plot_confusion

LABELS = ("entailment", "neutral", "contradiction")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS))))
def test_the_matrix_is_that_of_scikit_learn(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    true, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    matrix = confusion_matrix(LABELS, true, predicted)
    assert matrix.shape == (3, 3) and matrix.dtype == np.int64
    if pairs:
        assert (matrix == metrics.confusion_matrix(true, predicted, labels=list(LABELS))).all()


def pixels(matrix, labels, path):
    plot_confusion(matrix, labels, path, "dev")
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return pytest.importorskip("matplotlib.image").imread(path)[..., :3]


@pytest.mark.parametrize("n", [1, 2, 12, 40])
def test_cells_are_coloured_by_their_share_of_the_true_class(tmp_path, n):
    """Each class has 10 examples more than the one before, all are told right: n cells of the darkest colour."""
    matrix = np.diag(10 * np.arange(1, n + 1))
    picture = pixels(matrix, [f"label {i}" for i in range(n)], tmp_path / "confusion.png")
    darkest = np.array([8, 48, 107]) / 255  # matplotlib's Blues at 1
    is_dark = np.abs(picture - darkest).max(-1) < 0.01
    rows, columns = np.nonzero(is_dark[:, : int(picture.shape[1] * 0.8)])  # without the colour bar
    assert len(rows) > 500
    # On the diagonal: the further down, the further right.
    assert n == 1 or np.corrcoef(rows, columns)[0, 1] > 0.7
    assert max(picture.shape) < 2600


def test_a_class_without_examples_and_a_matrix_without_any_can_be_drawn(tmp_path):
    for matrix in (np.array([[3, 1], [0, 0]]), np.zeros((2, 2), np.int64)):
        assert np.isfinite(pixels(matrix, ["a", "b"], tmp_path / "confusion.png")).all()


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'electra_fast\[train\]'"):
        plot_confusion(np.eye(2, dtype=np.int64), ["a", "b"], tmp_path / "confusion.png")
    assert list(tmp_path.iterdir()) == []
