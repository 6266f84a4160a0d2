"""Metrics, on numbers that can be checked by hand."""

import math
import sys
import warnings

import numpy as np
import pytest

from electra_fast.finetuning.kinds.metrics import (
    accuracy,
    classification_metrics,
    multilabel_metrics,
    regression_metrics,
)

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_accuracy():
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_two_classes():
    true, predicted = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    # Of class 1: 2 right, 1 missed, 1 too many; of class 0: 1 right.
    expected = {"accuracy": 0.6, "f1": 4 / 6, "matthews": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)}
    assert classification_metrics(true, predicted, 2) == pytest.approx(expected)
    assert list(classification_metrics(true, predicted, 2)) == ["accuracy", "f1", "matthews"]


def test_f1_of_two_classes_is_of_the_second():
    assert classification_metrics(np.array([0, 0, 1]), np.array([0, 0, 0]), 2)["f1"] == 0.0


def test_more_classes_have_the_mean_of_their_f1():
    true, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    found = classification_metrics(true, predicted, 3)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["accuracy"] == 0.75
    # A class that neither has does not count.
    assert classification_metrics(true, predicted, 4) == found


def test_regression():
    true, predicted = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 4.0, 3.0])
    found = regression_metrics(true, predicted)
    assert list(found) == ["pearson", "spearman", "mse"]
    assert found["pearson"] == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    assert found["spearman"] == pytest.approx(0.8)  # ranks 1 2 4 3: 1 - 6 * 2 / (4 * 15)
    assert found["mse"] == 1.0


@pytest.mark.parametrize("true", [np.array([0, 1, 1]), np.array([1, 1, 1])])
def test_constant_predictions_have_no_correlation_and_no_warning(true):
    assert classification_metrics(true, np.ones(3, int), 2)["matthews"] == 0.0
    assert classification_metrics(true, np.zeros(3, int), 3)["matthews"] == 0.0
    found = regression_metrics(true.astype(float), np.full(3, 2.5))
    assert found["pearson"] == found["spearman"] == 0.0
    assert regression_metrics(np.full(3, 2.5), true.astype(float))["pearson"] == 0.0


def test_one_example():
    assert classification_metrics(np.array([0]), np.array([0]), 2) == {"accuracy": 1.0, "f1": 0.0, "matthews": 0.0}
    assert regression_metrics(np.array([1.0]), np.array([3.0])) == {"pearson": 0.0, "spearman": 0.0, "mse": 4.0}


def test_a_prediction_that_is_no_number_shows():
    assert math.isnan(regression_metrics(np.array([1.0, 2.0]), np.array([math.nan, 1.0]))["mse"])


def test_several_labels():
    true = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], bool)
    predicted = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]], bool)
    assert multilabel_metrics(true, predicted) == pytest.approx({"f1": 6 / 7, "accuracy": 2 / 3})
    assert list(multilabel_metrics(true, predicted)) == ["f1", "accuracy"]


def test_nothing_told_of_several_labels():
    nothing = np.zeros((2, 3), bool)
    assert multilabel_metrics(nothing, nothing) == {"f1": 0.0, "accuracy": 1.0}


def test_one_label_of_which_each_is_true_or_not():
    true, predicted = np.array([[1], [0], [1]], bool), np.array([[1], [1], [0]], bool)
    assert multilabel_metrics(true, predicted) == pytest.approx({"f1": 0.5, "accuracy": 1 / 3})


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"scikit-learn: pip install 'electra_fast\[eval\]'"):
        classification_metrics(np.array([0, 1]), np.array([0, 1]), 2)
    with pytest.raises(ImportError, match=r"scipy: pip install 'electra_fast\[eval\]'"):
        regression_metrics(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
