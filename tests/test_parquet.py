"""Parquet files: what is written is read back, every command takes and gives them, and mistakes are one error."""

import sys

import numpy as np
import pytest
from tiny_models import random_model

from electra_fast import ElectraForSequenceClassification, ElectraTokenizer, embed
from electra_fast.cli.main import main
from electra_fast.finetuning.data.examples import TextExample
from electra_fast.finetuning.data.predict_inputs import read_examples, read_texts
from electra_fast.finetuning.data.tables import read_table
from electra_fast.finetuning.data.tasks import Columns
from electra_fast.parquet import read_rows, written_rows, written_vectors
from electra_fast.pretraining.text.sources import find_sources

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

TEXTS = ["a b", None, "c d e", "", "f\ng", "a b c d e f g"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    labels = ["x", "y", "x", None, "y", "x"]
    columns = {"text": TEXTS, "label": labels, "number": range(6), "words": [["a", "b"], [], None, ["c"], ["d"], ["e"]]}
    parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), path, row_group_size=2)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    random_model(ElectraForSequenceClassification, num_labels=2).save_pretrained(path)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    ElectraTokenizer({token: i for i, token in enumerate(tokens)}).save_pretrained(path)
    return path


# Reading


def test_rows_have_the_columns_that_are_asked_for(table):
    rows = list(read_rows(table, ["text"], ["label", "other"]))
    assert [number for number, _ in rows] == list(range(1, 7))
    assert rows[0][1] == {"text": "a b", "label": "x"} and rows[1][1]["text"] is None


def test_texts_examples_and_words_are_read(table):
    assert list(read_texts(table, Columns(text="text"))) == ["" if text is None else text for text in TEXTS]
    found = list(read_examples("classification", table, Columns(text="text", id="number")))
    assert found[2] == TextExample("2", 3, "c d e", None, None)
    found = list(read_examples("tagging", table, Columns(words="words")))
    assert [example.words for example in found[:3]] == [("a", "b"), (), ()]


def test_training_reads_labels_and_checks_every_row(table, tmp_path):
    columns = Columns(text="text", label="label")
    with pytest.raises(ValueError, match=r"in\.parquet, line 2: the text in column 'text' must be text, got null"):
        list(read_table(table, "classification", columns))
    found = list(read_table(table, "classification", columns, may_lack=("text", "label")))
    assert [example.label for example in found] == ["x", "y", "x", None, "y", "x"]


def test_documents_of_pre_training(table, tmp_path):
    (tmp_path / "more").mkdir()
    table.rename(tmp_path / "more" / "in.parquet")
    (source,) = find_sources(tmp_path / "more")
    assert list(source.documents()) == ["a b", "c d e", "f\ng", "a b c d e f g"]
    (source,) = find_sources(tmp_path / "more" / "in.parquet", text_key="number")
    with pytest.raises(ValueError, match=r"in\.parquet, row 1 must have text under 'number', got 0"):
        list(source.documents())


# Writing


def test_vectors_are_written_in_portions(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    with written_vectors(tmp_path / "out.parquet", 3) as write:
        write(vectors[:5])
        write(vectors[5:])
    found = parquet.read_table(tmp_path / "out.parquet")["embedding"]
    assert found.type == pyarrow.list_(pyarrow.float32(), 3)
    np.testing.assert_array_equal(np.array(found.to_pylist(), np.float32), vectors)


def test_rows_are_written_with_the_types_that_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("electra_fast.parquet._ROWS", 2)
    fields = {"id": str, "answer": str, "scores": [{"n": int, "x": float}]}
    rows = [{"id": str(i), "answer": None, "scores": []} for i in range(2)]
    rows.append({"id": "2", "answer": "x", "scores": [{"n": 1, "x": None}]})
    with written_rows(tmp_path / "out.parquet", fields) as write:
        for row in rows:
            write(row)
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == rows
    with written_rows(tmp_path / "none.parquet", fields):
        pass
    found = parquet.read_table(tmp_path / "none.parquet")
    assert found.num_rows == 0 and found.schema.names == list(fields)


@pytest.mark.parametrize(
    ("writer", "row"),
    [
        (lambda path: written_vectors(path, 2), np.zeros((1, 2), np.float32)),
        (lambda path: written_rows(path, {"a": int}), {"a": 1}),
    ],
    ids=["vectors", "rows"],
)
def test_an_error_leaves_no_file(tmp_path, writer, row):
    with pytest.raises(RuntimeError, match="stop"), writer(tmp_path / "out.parquet") as write:
        write(row)
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


# The commands


def test_commands_read_and_write_it(table, model, tmp_path, capsys):
    given = ["--model", str(model), "--input", str(table), "--text", "text", "--device", "cpu", "--output"]
    assert main(["embed", *given, str(tmp_path / "v.parquet")]) == 0
    found = np.array(parquet.read_table(tmp_path / "v.parquet")["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(found, embed([text or "" for text in TEXTS], model), rtol=1e-4, atol=1e-5)
    assert main(["predict", *given, str(tmp_path / "p.parquet")]) == 0
    rows = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["id"] for row in rows] == list("012345")
    assert {row["label"] for row in rows} <= {"LABEL_0", "LABEL_1"} and rows[0]["probabilities"].keys() == {
        "LABEL_0",
        "LABEL_1",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "title"], "must have one column 'title', got text, label, number, words"),
        (["--text", "words"], "line 1: the text in column 'words' must be text, got "),
        ([], "is a table: --text must name the column to read"),
        (["--text", "0", "--no-header"], "the columns of a Parquet file have names, got numbers for"),
    ],
    ids=["no-column", "lists", "unnamed", "no-header"],
)
def test_mistakes_are_told_in_one_line(table, model, tmp_path, capsys, arguments, message):
    given = [
        "embed",
        "--model",
        str(model),
        "--input",
        str(table),
        "--output",
        str(tmp_path / "v.npy"),
        "--device",
        "cpu",
    ]
    assert main([*given, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize("content", [b"", b"text\na b\n", None], ids=["empty", "no-parquet", "cut"])
def test_a_damaged_file_is_told(table, tmp_path, content):
    path = tmp_path / "bad.parquet"
    path.write_bytes(table.read_bytes()[:-9] if content is None else content)
    with pytest.raises(ValueError, match=r"bad\.parquet must be a whole Parquet file, got"):
        list(read_rows(path, ["text"]))


def test_a_missing_package_is_named(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install 'electra_fast"):
        list(read_rows(table, ["text"]))
