"""Predictions that travel: those of `predict` for every kind, from rows and from tables, and whole mistakes."""

import pickle

import numpy as np
import pytest
from finetuned_models import KINDS, write_finetuned

from electra_fast.finetuning import Predictor
from electra_fast.finetuning.data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from electra_fast.finetuning.prediction import load_for_prediction, predict
from electra_fast.parquet import arrow_type

pyarrow = pytest.importorskip("pyarrow")

ROWS = {
    "classification": [("a b c", "d"), ("", "a"), ("a b c d e f", "")],
    "regression": [("a b c",), ("",), ("a b c d e f",)],
    "multilabel": [("a b c",), ("",), ("a b c d e f",)],
    "tagging": [(["a", "b"],), ([],), (["c", "", "d"],)],
    "qa": [("a b", "c d e f"), ("a", ""), ("", "a b")],
    "choice": [("a b", "c", "d", "e f"), ("a", "", "b", ""), ("", "", "", "a")],
}
MAKE = {
    "tagging": lambda id, line, words: TaggedExample(id, line, tuple(words)),
    "qa": QuestionExample,
    "choice": lambda id, line, text, start, *endings: ChoiceExample(id, line, text, start, endings),
}


@pytest.fixture(scope="module", params=KINDS)
def case(request, tmp_path_factory):
    """A kind, a predictor of it, and what `predict` gives for its rows."""
    path = tmp_path_factory.mktemp(request.param)
    write_finetuned(path, request.param)
    make = MAKE.get(request.param, TextExample)
    examples = [make(str(i), i + 1, *row) for i, row in enumerate(ROWS[request.param])]
    expected = list(predict(load_for_prediction(path, device="cpu"), examples))
    return request.param, Predictor(str(path), device="cpu"), expected


def test_rows_are_predicted_as_by_predict(case):
    name, predictor, expected = case
    assert predictor(ROWS[name]) == expected
    received = pickle.loads(pickle.dumps(predictor))
    assert received == predictor and len(pickle.dumps(predictor)) < 1000
    assert received(iter(ROWS[name])) == expected


def test_tables_are_predicted_and_null_is_empty(case):
    name, predictor, expected = case
    columns = [[value or None for value in column] for column in zip(*ROWS[name], strict=True)]
    kind = pyarrow.list_(pyarrow.string()) if name == "tagging" else pyarrow.string()
    table = pyarrow.table({f"column {i}": pyarrow.array(column, kind) for i, column in enumerate(columns)})
    found = predictor.of_table(table)
    assert found.type == predictor.arrow_type()
    assert found.to_pylist() == [{key: row[key] for key in row if key != "id"} for row in expected]


def test_the_named_types_hold_every_prediction(case):
    _, predictor, expected = case
    kind = arrow_type(predictor.load().kind.fields())
    assert pyarrow.array(expected, kind).to_pylist() == expected
    assert {field.name for field in kind} == set(expected[0])


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        (None, TypeError, "row 1 must be a text or a tuple, got NoneType"),
        ((None,), TypeError, "the text in row 1 must be a str, got NoneType"),
        (("a", "\ud800"), ValueError, "the text in row 1 must be well-formed Unicode"),
        (("a", "b", "c"), ValueError, "row 1 must have a text, or a text and its pair, got 3"),
    ],
    ids=["none", "none-inside", "half", "three"],
)
def test_rows_that_are_refused(tmp_path, row, error, message):
    write_finetuned(tmp_path, "classification")
    with pytest.raises(error, match=message):
        Predictor(str(tmp_path), device="cpu")([("a", "b"), row])


def test_what_is_no_batch_is_refused(tmp_path):
    write_finetuned(tmp_path, "classification")
    with pytest.raises(TypeError, match="rows must be a list of texts or of tuples, got str"):
        Predictor(str(tmp_path), device="cpu")("one text")
    with pytest.raises(ValueError, match="predictions are of columns of texts or words, got none"):
        Predictor(str(tmp_path), device="cpu").of_table(pyarrow.table({}))


def test_words_are_divided_at_white_space(tmp_path):
    write_finetuned(tmp_path, "tagging")
    predictor = Predictor(str(tmp_path), device="cpu", precision="fp32")
    assert predictor(["a b  c"]) == predictor([(["a", "b", "c"],)])
    with pytest.raises(ValueError, match=r"the column 'words' must hold lists of text, got string: cast it before"):
        predictor.of_table(pyarrow.table({"words": ["a b"]}))
    with pytest.raises(ValueError, match="row 0 must have one list of words, got 2"):
        predictor([("a", "b")])
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, fp16, got 'int8'"):
        Predictor(str(tmp_path), device="cpu", precision="int8").load()


def test_many_rows_are_in_order(tmp_path):
    write_finetuned(tmp_path, "regression")
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(list("abcdefgh"), draw.integers(0, 20))) for _ in range(300)]
    predictor = Predictor(str(tmp_path), device="cpu", batch_tokens=64)
    one_by_one = [predictor([text])[0]["value"] for text in texts[::50]]
    found = predictor(texts)
    assert [row["id"] for row in found] == [str(i) for i in range(300)]
    np.testing.assert_allclose([row["value"] for row in found[::50]], one_by_one, rtol=1e-5)
