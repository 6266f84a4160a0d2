"""Tables are read back as they were written, and a bad row is named."""

import csv
import gzip
import io
import json
import lzma

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.examples import ChoiceExample, TaggedExample, TextExample
from electra_fast.finetuning.data.tables import read_table
from electra_fast.finetuning.data.tasks import Columns

BOTH = ("text", "label")
SENTENCE = Columns(text="sentence", label="label")
PAIR = Columns(text="a", pair="b", label="label")

texts = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r\ufeff"), min_size=1).filter(str.strip)
# In CSV and JSON a text may have anything.
free_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1).filter(str.strip)
labels = st.sampled_from(["0", "1", "entailment"])


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path, kind="classification", columns=SENTENCE, **options):
    return list(read_table(path, kind, columns, **options))


def tsv(rows):
    return "".join("\t".join(row) + "\n" for row in rows)


def pairs(rows, lines):
    return [TextExample(str(i), line, *row) for i, (line, row) in enumerate(zip(lines, rows, strict=True))]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(texts, texts, labels), min_size=1))
def test_tsv_is_read_as_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    write(path, tsv([("a", "b", "label"), *rows]))
    expected = pairs(rows, range(2, len(rows) + 2))
    assert read(path, columns=PAIR) == expected
    # Carriage returns before line feeds are no text, and neither are columns that nobody named.
    write(path, tsv([("label", "x", "b", "a"), *((label, "?", b, a) for a, b, label in rows)]).replace("\n", "\r\n"))
    assert read(path, columns=PAIR) == expected
    # Columns by number, without a header.
    write(path, tsv(rows))
    numbered = Columns(text=0, pair=1, label=2, has_header=False)
    assert read(path, columns=numbered) == pairs(rows, range(1, len(rows) + 1))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(free_texts, free_texts, labels), min_size=1))
def test_csv_and_jsonl_are_read_as_written(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("csv")
    content = io.StringIO(newline="")
    writer = csv.writer(content, lineterminator="\n", quoting=csv.QUOTE_ALL)
    lines = []
    for row in [("a", "b", "label"), *rows]:
        lines.append(content.getvalue().count("\n") + 1)
        writer.writerow(row)
    assert read(write(folder / "a.csv", content.getvalue()), columns=PAIR) == pairs(rows, lines[1:])
    objects = "".join(json.dumps(dict(zip(("a", "b", "label"), row, strict=True))) + "\n" for row in rows)
    assert read(write(folder / "a.jsonl", objects), columns=PAIR) == pairs(rows, range(1, len(rows) + 1))


@pytest.mark.parametrize(
    "ending, pack", [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.compress)]
)
def test_compressed_tables_and_byte_order_marks(tmp_path, ending, pack):
    path = write(tmp_path / f"a.tsv{ending}", pack('\ufeffsentence\tlabel\n"quoted\t0\n\nthrée\t1\tstray\n'.encode()))
    assert read(path) == [TextExample("0", 2, '"quoted', None, "0"), TextExample("1", 4, "thrée", None, "1")]


def test_kinds_of_labels(tmp_path):
    path = tmp_path / "a.jsonl"

    def of(kind, *values, **options):
        write(path, "".join(json.dumps({"sentence": "x", "label": value}) + "\n" for value in values))
        return [example.label for example in read(path, kind, **options)]

    assert of("classification", "a", 1, True, False) == ["a", "1", "true", "false"]
    assert of("regression", "2.5", 3, -1e-3) == [2.5, 3.0, -1e-3]
    assert of("multilabel", ["a", 1], [], "") == [("a", "1"), (), ()]
    assert [text.classes(True) for text in of("multilabel", "a|b", "3, 27")] == [("a", "b"), ("3", "27")]
    for kind, value, message in [
        ("classification", "", "must not be empty"),
        ("classification", None, "must be text, got null"),
        ("classification", ["a"], "must be one class"),
        ("classification", {"a": 1}, "must be one class"),
        ("classification", "2", "must be one of 0, 1, got '2'"),
        ("regression", "high", 'must be a number, got "high"'),
        *(("regression", text, f'must be a number, got "{text}"') for text in ("1_000", "-1_0.5", "1e1_0", "1,5", "_")),
        ("regression", True, "must be a number, got true"),
        ("regression", "nan", "must be a number"),
        ("regression", float("inf"), "must be a number"),
        ("multilabel", ["0", "2"], "must be one of 0, 1, got '2'"),
        ("multilabel", 3, "must be a list"),
    ]:
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 1: the label in column 'label' {message}"):
            of(kind, value, labels=None if kind == "regression" else ("0", "1"))


def test_labels_may_be_absent_of_a_test_file(tmp_path):
    without = write(tmp_path / "a.tsv", "index\tsentence\n0\tx\n")
    assert read(without, may_lack=BOTH)[0].label is None
    # Labels that are there are read and checked.
    some = write(tmp_path / "b.tsv", "sentence\tlabel\nx\t1\ny\t2\n")
    assert [example.label for example in read(some, may_lack=BOTH)] == ["1", "2"]
    with pytest.raises(ValueError, match=r"b\.tsv, line 3: .* one of 0, 1, got '2'"):
        read(some, may_lack=BOTH, labels=("0", "1"))
    mixed = write(tmp_path / "c.jsonl", '{"sentence": "x", "label": 1}\n{"sentence": "y"}\n')
    assert [example.label for example in read(mixed, may_lack=BOTH)] == ["1", None]
    with pytest.raises(ValueError, match=r"c\.jsonl, line 2: must have a field for column 'label', got sentence"):
        read(mixed)
    hidden = write(tmp_path / "d.jsonl", '{"sentence": "x", "label": null}\n{"sentence": "y"}\n')
    assert [example.label for example in read(hidden, may_lack=BOTH)] == [None, None]
    assert read(hidden, columns=Columns(text="sentence"), may_lack=BOTH)[1].text == "y"


def test_choices(tmp_path):
    columns = Columns(text="sent1", start="sent2", endings=("e0", "e1"), label="label", id="key")
    path = write(tmp_path / "a.csv", 'key,sent1,sent2,e0,e1,label\nq7,"One, two.",Three,four.,five.,1\n')
    assert read(path, "choice", columns) == [ChoiceExample("q7", 2, "One, two.", "Three", ("four.", "five."), 1)]
    for label, message in [
        ("2", "the number of one of 2 endings, got 2"),
        ("-1", "number of an ending"),
        ("b", "number"),
    ]:
        write(path, f"key,sent1,sent2,e0,e1,label\nq7,One,Three,four.,five.,{label}\n")
        with pytest.raises(ValueError, match=rf"line 2: .*{message}"):
            read(path, "choice", columns)


def test_words_and_tags_of_json(tmp_path):
    columns = Columns(words="words", tags="tags")
    path = write(tmp_path / "a.jsonl", '{"words": ["A", "b"], "tags": ["O", 3]}\n')
    assert read(path, "tagging", columns) == [TaggedExample("0", 1, ("A", "b"), ("O", "3"))]
    assert read(path, "tagging", Columns(words="words"), may_lack=BOTH)[0].tags is None
    for row, message in [
        ({"words": ["A"], "tags": ["O", "O"]}, "a tag for each of the 1 words, got 2"),
        ({"words": "A b", "tags": ["O", "O"]}, "must be a list of text"),
        ({"words": ["A", ""], "tags": ["O", "O"]}, "must not be empty"),
        ({"words": ["A"], "tags": "O"}, "must be a list of tags"),
    ]:
        write(path, json.dumps(row))
        with pytest.raises(ValueError, match=rf"line 1: .*{message}"):
            read(path, "tagging", columns)
    with pytest.raises(ValueError, match="needs the column 'words'"):
        read(path, "tagging", Columns(tags="tags"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.tsv", "", r"line 1: the file must hold examples, got none"),
        ("a.tsv", "sentence\tlabel\n", r"line 1: the file must hold examples, got none"),
        ("a.jsonl", "\n", r"line 1: the file must hold examples, got none"),
        ("a.tsv", "text\tlabel\nx\t0\n", r"line 1: the header must have one 'sentence', got text, label"),
        ("a.tsv", "sentence\tsentence\tlabel\nx\ty\t0\n", r"line 1: the header must have one 'sentence'"),
        ("a.tsv", "sentence\tlabel\nx\t0\ny\n", r"line 3: must have a field for column 'label', got sentence"),
        ("a.tsv", "sentence\tlabel\nx\t0\n \t1\n", r"line 3: the text in column 'sentence' must not be empty"),
        ("a.tsv", b"sentence\tlabel\nx\t0\n\xff\t1\n", r"line 3: must be UTF-8"),
        ("a.csv", "sentence,label\nx,0\ny, z,1\n", r"line 3: must have 2 fields, as the first row, got 3"),
        ("a.csv", 'sentence,label\nx,0\n"y\nz,1\n', r"line 3: must be CSV"),
        ("a.jsonl", '{"sentence": "x", "label": 0}\n{"sentence"\n', r"line 2: must be a JSON object, got: "),
        ("a.jsonl", '["x", 0]\n', r"line 1: must be a JSON object, got \[\"x\", 0\]"),
        ("a.jsonl", '{"sentence": 3, "label": 0}\n', r"line 1: the text in column 'sentence' must be text, got 3"),
        ("a.jsonl", '{"sentence": "\\ud800", "label": 0}\n', r"line 1: the text in column 'sentence' must be text"),
        ("a.tsv.gz", gzip.compress(b"sentence\tlabel\nx\t0\n" * 99, mtime=0)[:-9], r"the compressed file is damaged"),
        ("a.tsv.gz", "sentence", r"line 1: the compressed file is damaged"),
        ("a.orc", "", r"must end with \.tsv, \.txt, \.csv, \.jsonl, \.json, \.parquet, got .*a\.orc"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "a.tsv", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read(path if path.suffix else path.rename(tmp_path.with_suffix(".tsv")))


def test_bad_rows_can_be_left_out_and_ids_stay(tmp_path):
    path = write(tmp_path / "a.tsv", "sentence\tlabel\nx\t0\n\t1\ny\nz\t1\n")
    errors = []
    assert [(example.id, example.text) for example in read(path, bad_row=errors.append)] == [("0", "x"), ("3", "z")]
    assert [str(error).split(": ")[0] for error in errors] == [f"{path}, line 3", f"{path}, line 4"]
