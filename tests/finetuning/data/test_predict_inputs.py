"""Inputs of `predict`: every line and every row is an example, and a text is the same in every format."""

import csv
import gzip
import io
import json
import lzma
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from electra_fast.finetuning.data.predict_inputs import read_examples
from electra_fast.finetuning.data.tasks import Columns

TEXT = Columns(text="t")
PAIR = Columns(text="t", pair="u")
PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress, ".GZ": gzip.compress}
# Ends of lines for Python and for Unicode, none of which ends a line here; and blank texts.
HARD = [
    "",
    " ",
    "\xa0",
    "a\u2028b",
    "a\x85b",
    "a\x0cb",
    "a\x1cb",
    "a\x00b",
    "3",
    "1.50",
    "null",
    "NaN",
    '"',
    "a b " * 50_000,
]


def read(path, content, columns=TEXT, kind="classification"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_examples(kind, path, columns))


def texts(examples):
    assert [example.id for example in examples] == [str(number) for number in range(len(examples))]
    return [example.text if example.pair is None else (example.text, example.pair) for example in examples]


def csv_of(rows, quoting=csv.QUOTE_MINIMAL, end="\n"):
    content = io.StringIO(newline="")
    csv.writer(content, lineterminator=end, quoting=quoting).writerows(rows)
    return content.getvalue()


def jsonl_of(values):
    return "".join(json.dumps({"t": value}) + "\n" for value in values)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.sampled_from(HARD) | st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff")), min_size=1
    )
)
def test_the_same_texts_are_read_from_every_format(tmp_path_factory, expected):
    folder = tmp_path_factory.mktemp("same")
    lines = "".join(text + "\n" for text in expected)
    for mark in ("", "\ufeff"):
        found = {
            "tsv": read(folder / "a.tsv", f"{mark}t\n{lines}"),
            "tsv without a header": read(folder / "a.tsv", mark + lines, Columns(text=0, has_header=False)),
            "csv": read(folder / "a.csv", mark + csv_of([["t"], *([text] for text in expected)])),
            "csv of Windows": read(
                folder / "a.csv", mark + csv_of([["t"], *([text] for text in expected)], end="\r\n")
            ),
            "jsonl": read(folder / "a.jsonl", mark + jsonl_of(expected)),
            "lines": read(folder / "a.txt", mark + lines, Columns()),
            "lines of Windows": read(folder / "a.txt", mark + lines.replace("\n", "\r\n"), Columns()),
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((mark + lines).encode())))
            found["standard input"] = list(read_examples("classification", None, Columns()))
        for name, examples in found.items():
            # A blank line and an empty text are the same to the tokenizer.
            assert [text if text.strip() else "" for text in texts(examples)] == [
                text if text.strip() else "" for text in expected
            ], name


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("ending", PACK)
def test_blank_lines_are_rows_of_every_table(tmp_path, ending, end):
    """Those before the header are not: they come before the first row."""

    def of(name, *lines, columns=PAIR):
        return texts(read(tmp_path / (name + ending), PACK[ending](end.join(lines).encode() + end.encode()), columns))

    expected = [("a", "b"), ("", ""), ("c", ""), ("", ""), ("", "d"), ("", "")]
    assert of("a.tsv", "", "t\tu", "a\tb", "", "c", "\t", "\td", "") == expected
    assert of("a.csv", "", "t,u", "a,b", "", "c", ",", ",d", "") == expected
    numbered = Columns(text=0, pair=1, has_header=False)
    assert of("b.tsv", "", "a\tb", columns=numbered) == [("", ""), ("a", "b")]
    assert of("b.csv", "", "a,b", columns=numbered) == [("", ""), ("a", "b")]
    objects = ['{"t": "a", "u": "b"}', "", '{"t": "c"}', '{"u": null}', '{"t": null, "u": "d"}', "{}"]
    assert of("a.jsonl", *objects) == expected


def test_fields_that_a_row_lacks_are_empty_and_more_that_are_empty_do_no_harm(tmp_path):
    """Spreadsheets leave out what is empty at the end of a row, or write the commas of another row's columns."""
    content = 't,u,v\na\nb,c,d,,\n,,,,\n"e\nf",g,h\n'
    expected = [("a", ""), ("b", "c"), ("", ""), ("e\nf", "g")]
    assert texts(read(tmp_path / "a.csv", content, PAIR)) == expected
    numbered = Columns(text=0, pair=1, has_header=False)
    assert texts(read(tmp_path / "b.csv", "b,c\na\n,,,\n", numbered)) == [("b", "c"), ("a", ""), ("", "")]
    assert texts(read(tmp_path / "b.tsv", "a\nb\tc\td\n\n", numbered)) == [("a", ""), ("b", "c"), ("", "")]
    with pytest.raises(ValueError, match=r"a\.csv, line 3: must have 2 fields, as the first row, got 3"):
        read(tmp_path / "a.csv", "t,u\na,b\nc,d,e\n", PAIR)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('t\tu\na\tb\n"c\nd"\te\n', 3),
        ('t\tu\na\tb\nc\t"d\ne\nf"\n', 5),
        ('t\tu\n"a\tb"\tc\n', 2),
        ('u\tt\na\t"b\tc ""d"" e"\n', 2),
    ],
)
def test_quoted_tabs_and_line_ends_of_data_frames_need_csv(tmp_path, content, line):
    """Quotes are text between tabs, so such a cell would be cut, and its rest would be rows."""
    with pytest.raises(ValueError, match=rf"a\.tsv, line {line}: must have 2 fields, .* needs CSV"):
        read(tmp_path / "a.tsv", content, PAIR)
    # Quotes in whole rows, and closed ones, are text.
    found = read(tmp_path / "a.tsv", 't\tu\n"a\tb\n"c"\n"d\t\t\n"e" f\tg\th\n', PAIR)
    assert texts(found) == [('"a', "b"), ('"c"', ""), ('"d', ""), ('"e" f', "g")]


def test_values_of_json_are_texts_as_they_are_in_other_formats(tmp_path):
    values = [None, float("nan"), 3, -1.5, True, "", " "]
    assert texts(read(tmp_path / "a.jsonl", jsonl_of(values))) == ["", "", "3", "-1.5", "true", "", " "]
    found = read(tmp_path / "a.jsonl", '{"t": 1, "k": 7}\n{"t": 2, "k": null}\n', Columns(text="t", id="k"))
    assert [(example.id, example.text) for example in found] == [("7", "1"), ("", "2")]
    for value, shown in ((["a"], r"\[\"a\"\]"), ({}, r"\{\}"), ("\ud800", "")):
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 2: the text in column 't' must be text, got.* {shown}"):
            read(tmp_path / "a.jsonl", jsonl_of(["a", value]))


def test_a_column_that_no_row_has_is_a_slip(tmp_path):
    for name, content, columns in (
        ("a.jsonl", '\n{"text": "a"}\n', TEXT),
        ("a.jsonl", '{"t": "a"}\n{"t": "b"}\n', PAIR),
        ("a.csv", "a,b\nc\n", Columns(text=2, has_header=False)),
        ("a.tsv", "a\tb\nc\n", Columns(text=2, has_header=False)),
    ):
        with pytest.raises(ValueError, match=rf"{name}, line \d: there must be a field .*, and none of the first rows"):
            read(tmp_path / name, content, columns)
    # A field that the first rows lack may come later, and tables of blank rows lack none.
    assert texts(read(tmp_path / "a.jsonl", "{}\n" * 500 + jsonl_of(["a"]))) == [""] * 500 + ["a"]
    assert texts(read(tmp_path / "a.jsonl", "\n{}\n")) == ["", ""]
    assert texts(read(tmp_path / "a.csv", "t,u\n\n\n", PAIR)) == [("", ""), ("", "")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\n\nb\n", ["a", "", "b"]),
        ("\na\tb\n \nc\t\n\td\n\t\n", [("", ""), ("a", "b"), ("", ""), ("c", ""), ("", "d"), ("", "")]),
        ("\t\na\n\t\t\n", ["", "a", ""]),
        ("\n\n", ["", ""]),
    ],
)
def test_the_first_line_with_text_says_whether_lines_are_pairs(tmp_path, content, expected):
    assert texts(read(tmp_path / "a.txt", content, Columns())) == expected


def test_sentences_questions_and_choices_may_be_empty(tmp_path):
    sentences = ["a b", "", " ", "c"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"w": text.split()}) + "\n" for text in sentences))
    expected = [TaggedExample(str(i), i + 1, tuple(text.split())) for i, text in enumerate(sentences)]
    assert list(read_examples("tagging", tmp_path / "a.jsonl", Columns(words="w"))) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(sentences).encode())))
        assert list(read_examples("tagging", None, Columns())) == expected
    found = read(tmp_path / "a.jsonl", '{"w": ["a", "", null, 3]}\n{"w": null}\n\n', Columns(words="w"), "tagging")
    assert [example.words for example in found] == [("a", "", "", "3"), (), ()]
    found = read(tmp_path / "a.conll", "a X\n\xa0 X\n\nb X\n", Columns(), "tagging")
    assert [example.words for example in found] == [("a", "\xa0"), ("b",)]

    lines = '{"question": "a", "context": "b"}\n\n{"question": null, "context": ""}\n{"id": 7}\n'
    found = read(tmp_path / "a.jsonl", lines, Columns(), "qa")
    assert found == [
        QuestionExample("0", 1, "a", "b"),
        *(QuestionExample(id, n, "", "") for id, n in (("1", 2), ("2", 3), ("7", 4))),
    ]
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: there must be a field 'question', .* got query, context"):
        read(tmp_path / "a.jsonl", '{"query": "a", "context": "b"}\n', Columns(), "qa")
    questions = [{"id": "p", "question": ""}, {"id": "q", "question": None}, {"id": "r", "question": "a"}]
    squad = {"data": [{"paragraphs": [{"context": "", "qas": questions}]}]}
    found = read(tmp_path / "a.json", json.dumps(squad), Columns(), "qa")
    assert [(example.id, example.question, example.context) for example in found] == [
        ("p", "", ""),
        ("q", "", ""),
        ("r", "a", ""),
    ]

    content = "sent1,sent2,ending0,ending1,ending2,ending3\na,b,c,d,e,f\n\ng,,,h\n"
    assert read(tmp_path / "a.csv", content, Columns(), "choice") == [
        ChoiceExample("0", 2, "a", "b", ("c", "d", "e", "f")),
        ChoiceExample("1", 3, "", "", ("", "", "", "")),
        ChoiceExample("2", 4, "g", "", ("", "h", "", "")),
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there must be examples, got none"),
        (b"t\ra\rb\r", "lines must end with line feeds, got carriage returns alone"),
        (b"t\na\n\xe4\n", "must be UTF-8, got byte 0xe4|must be a JSON object"),
    ],
)
def test_what_holds_no_lines_of_text_is_refused_alike(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=rf"{name}, line \d: ({message})"):
        read(tmp_path / name, content, Columns() if name == "a.txt" else TEXT)


def test_the_limit_of_csv_fields_is_left_as_it_was(tmp_path):
    limit = csv.field_size_limit()
    examples = read_examples("classification", tmp_path / "a.csv", TEXT)
    (tmp_path / "a.csv").write_text("t\n" + "a" * 2 * limit + "\nb\n")
    assert len(next(examples).text) == 2 * limit
    assert csv.field_size_limit() == limit


def test_pairs_keep_their_fields(tmp_path):
    assert read(tmp_path / "a.csv", "t,u\na,\n", PAIR) == [TextExample("0", 2, "a", "")]
