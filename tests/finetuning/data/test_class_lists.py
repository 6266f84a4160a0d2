"""Several classes in one field are read in the forms that people's files have; half a list is refused."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.class_lists import (
    Undivided,
    are_commas_separators,
    class_list,
    classes_of,
    is_written_list,
    vector_width,
)


def classes_in(text):
    """The classes of a column of one field."""
    found = class_list(text, "it")
    return list(found.classes(are_commas_separators([found]))) if isinstance(found, Undivided) else found


names = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1).filter(lambda s: s == s.strip())


@settings(deadline=None, max_examples=200)
@given(st.lists(names))
def test_lists_are_read_as_python_numpy_and_json_print_them(classes):
    for text in (str(classes), json.dumps(classes), str(tuple(classes))):
        assert class_list(text, "it") == classes
    assert class_list(np.array2string(np.array(classes, object), threshold=10**6), "it") == classes
    assert class_list(repr(np.array(classes, object)), "it") == classes


@pytest.mark.parametrize(
    "text, classes",
    [
        ("a|b", ["a", "b"]),
        ("a, b; c\nd", ["a, b", "c", "d"]),
        ("Smith, John; Doe, Jane", ["Smith, John", "Doe, Jane"]),
        ("Smith, John\uff5cDoe, Jane", ["Smith, John", "Doe, Jane"]),
        ("a (b, c); d", ["a (b, c)", "d"]),
        ("动作，喜剧、爱情", ["动作", "喜剧", "爱情"]),
        ("a,b,", ["a", "b"]),
        ("'a', 'b'", ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("['a'\n 'b c']", ["a", "b c"]),
        ('{a,"b c"}', ["a", "b c"]),
        ("{'a', 'b'}", ["a", "b"]),
        ("frozenset({'a'})", ["a"]),
        ("Index(['a', 'b'], dtype='object')", ["a", "b"]),
        ('"[""a"", ""b""]"', ["a", "b"]),
        ("[sci fi, drama]", ["sci fi", "drama"]),
        ("[01, 02]", ["01", "02"]),
        ("(unknown)", ["(unknown)"]),
        ("a (old), b", ["a (old)", "b"]),
        ("[0 1 0]", [0, 1, 0]),
        ("[0. 1. 0.]", [0, 1, 0]),
        ("[0, 1, 0]", [0, 1, 0]),
        ("(0, 1)", [0, 1]),
        ("tensor([1., 0.])", [1, 0]),
        ("[True, False]", [True, False]),
        ("0 1 0", ["0", "1", "0"]),
        *((empty, []) for empty in ("", " ", "[]", "()", "{}", "set()", "[ ]")),
    ],
)
def test_what_people_have(text, classes):
    assert classes_in(text) == classes


@pytest.mark.parametrize(
    "text",
    [
        "['a', 'b'",
        "b']",
        "['a''b']",
        "['a', None]",
        "[nan]",
        "[['a'], ['b']]",
        "{'a': 1, 'b': 0}",
        "[0 0 ... 1]",
        "['a' 'b' ... 'z']",
        "[drama comedy]",
        "(a, b)",
        "a|[b]",
        "<ArrowStringArray>\n['a', 'b c']\nLength: 2, dtype: string",
        "0    a\n1    b\nName: y, dtype: object",
        "masked_array(data=['a', 'b'], mask=False)",
        "a (b, c), d",
    ],
)
def test_what_is_no_clear_list_is_refused(text):
    with pytest.raises(ValueError, match=r"it must be a whole list, such as \['a', 'b'\], got "):
        classes_in(text)
    with pytest.raises(ValueError, match="it must be a list, or text"):
        class_list({"a": 1}, "it")


def test_a_comma_separates_where_no_other_separator_is_in_the_column():
    fields = [class_list(text, "it") for text in ("Smith, John", "Doe, Jane|Roe, Jo")]
    assert are_commas_separators(fields[:1]) and not are_commas_separators(fields)
    assert fields[0].classes(True) == ("Smith", "John")
    assert fields[0].classes(False) == ("Smith, John",)
    for text in ("a;b|c", "a\uff1bb\uff5cc"):
        with pytest.raises(ValueError, match=r"it must have one separator between the labels, got ; and \| in \"a"):
            classes_in(text)


@pytest.mark.parametrize(
    "text", ["['a']", '["a"]', "[]", "('a', 'b')", "{'a'}", "['a' 'b']", "[0 1 0]", "[1]", '{"a": 1}', "[null]"]
)
def test_text_that_is_a_list(text):
    assert is_written_list(text) and is_written_list(f" {text}\n")


@pytest.mark.parametrize("text", ["", "a", "[a]", "(unknown)", "(1)", "[a, b]", "{a}", "['a'", "-LRB-", "[UNK] ['a']x"])
def test_names_that_are_no_lists(text):
    assert not is_written_list(text)


def lists(*rows):
    return list(enumerate(rows, start=2))


def test_vectors_are_told_from_names():
    assert vector_width(lists(["0", "1", "0"], ["1", "1", "0"])) == 3
    assert vector_width(lists(["0", "1."], ["1.0", "true"])) == 2
    assert vector_width(lists(["a"], ["0", "1"])) is None
    assert vector_width(lists(["1"], ["0", "1"], [])) is None
    assert vector_width(lists(["1"], ["0"])) is None
    assert vector_width([]) is None
    assert classes_of(["1", "0", "true"], "abc") == ("a", "c")
    with pytest.raises(ValueError, match="line 3: a vector must have 3 items, as the first row's, got 2"):
        vector_width(lists(["0", "0", "1"], ["0", "1"]))
    with pytest.raises(ValueError, match=r"line 2: a vector must be a list, such as \[0, 1, 0\], got 010"):
        vector_width(lists(["010"], ["110"]))
    for wrong in (["1", "0"], ["1", "0", "2"], []):
        with pytest.raises(ValueError, match="must be a vector of 3 zeros and ones"):
            classes_of(wrong, "abc")


def test_lists_that_pass_through_csv():
    for value in (["a", "b"], ("a",), np.array([0, 1])):
        file = io.StringIO()
        csv.writer(file).writerow(["text", value])
        assert class_list(next(csv.reader(io.StringIO(file.getvalue())))[1], "it") == list(value)
