"""Rows without a text or a label: which splits leave them out, which keep them, and how many there were."""

import json

import pytest

from electra_fast.finetuning.data.examples import RowCounts, classes_in
from electra_fast.finetuning.data.splits import labels_of, open_splits
from electra_fast.finetuning.data.tasks import custom_task, task

NAN = float("nan")


def write(path, rows):
    """A table of dicts, in the form that the path's name says; None is an empty cell."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    separator = "\t" if path.suffix == ".tsv" else ","
    cells = [list(rows[0]), *([("" if v is None or v != v else str(v)) for v in row.values()] for row in rows)]
    path.write_text("".join(separator.join(row) + "\n" for row in cells))
    return path


def split_of(task, name, path, others=None):
    return open_splits(task, None, {**(others or {}), name: path})[name]


CLASSES = custom_task("classification", text="a", label="y")
PAIRS = custom_task("classification", text="a", pair="b", label="y")
NUMBERS = custom_task("regression", text="a", label="y")
CHOICES = custom_task("choice", text="a", endings=("e", "f"), label="y")
KINDS = {
    "classification": (CLASSES, {"a": "x", "y": "good"}, "a"),
    "pairs": (PAIRS, {"a": "x", "b": "z", "y": "good"}, "b"),
    "regression": (NUMBERS, {"a": "x", "y": 1.5}, "a"),
    "choice": (CHOICES, {"a": "x", "e": "p", "f": "q", "y": 1}, "f"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix, empty", [(".csv", None), (".tsv", None), (".jsonl", None), (".jsonl", NAN)])
def test_a_cell_that_is_empty(tmp_path, kind, suffix, empty):
    own, row, text = KINDS[kind]
    rows = [row, row | {text: empty}, row | {text: " "}, row | {"y": empty}, row]
    path = write(tmp_path / f"a{suffix}", rows)
    train = split_of(own, "train", path, {"dev": write(tmp_path / "b.jsonl", [row])})
    assert [example.id for example in train.examples] == ["0", "4"]
    assert (train.counts.read, train.counts.without_text, train.counts.without_label) == (5, 2, 1)
    assert train.counts.first.startswith(f"{path}, line {2 if suffix == '.jsonl' else 3}: ")
    dev = split_of(own, "dev", path)
    assert [example.id for example in dev.examples] == ["0", "1", "2", "4"]
    assert (dev.counts.without_text, dev.counts.kept_without_text, dev.counts.without_label) == (0, 2, 1)
    test = split_of(own, "test", path)
    assert [example.id for example in test.examples] == ["0", "1", "2", "3", "4"]
    assert [example.label is None for example in test.examples] == [False, False, False, True, False]
    assert (test.counts.kept_without_text, test.counts.kept_without_label, test.counts.without_label) == (2, 1, 0)


def test_a_field_that_is_absent(tmp_path):
    rows = [{"a": "x", "y": "1"}, {"y": "1"}, {"a": "x"}]
    path = write(tmp_path / "a.jsonl", rows)
    train = split_of(CLASSES, "train", path, {"dev": path})
    assert (len(train.examples), train.counts.without_text, train.counts.without_label) == (1, 1, 1)
    assert len(split_of(CLASSES, "test", path).examples) == 3
    # In a table a row that is too short is damaged, and a column that no row has is a slip.
    (tmp_path / "a.tsv").write_text("a\ty\nx\t1\nx\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 3: must have a field for column 'y'"):
        split_of(CLASSES, "train", tmp_path / "a.tsv")
    write(path, [{"a": "x", "lable": "1"}] * 3)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: must have a field for column 'y', got a, lable"):
        split_of(CLASSES, "train", path)


def test_blank_lines_are_rows_of_a_test_file_alone(tmp_path):
    named = custom_task("classification", text="a", label="y", id="i")
    for name, content in (
        ("a.tsv", "\ni\ta\ty\n7\tx\t1\n\n8\tz\t1\n\n"),
        ("a.csv", "\ni,a,y\n7,x,1\n\n8,z,1\n\n"),
        ("a.jsonl", '{"i": 7, "a": "x", "y": 1}\n\n{"i": 8, "a": "z", "y": 1}\n\n'),
    ):
        path = tmp_path / name
        path.write_text(content)
        for split in ("train", "dev"):
            found = split_of(named, split, path, {"train": path, "dev": path})
            assert ([example.id for example in found.examples], found.counts.read) == (["7", "8"], 2)
        test = split_of(named, "test", path)
        assert [(example.id, example.text, example.label) for example in test.examples] == [
            ("7", "x", "1"),
            ("", "", None),
            ("8", "z", "1"),
            ("", "", None),
        ]
        assert test.counts == RowCounts(read=4, kept_without_text=2, kept_without_label=2)
    # Every other row that is short is damaged.
    for name, content in (("b.tsv", "y\ta\n1\n"), ("b.csv", "y,a\n1\n")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=rf"{name}, line 2: must have a field for column 'a', got y"):
            split_of(CLASSES, "test", tmp_path / name)


def test_where_texts_may_lack_a_field_that_no_row_has_is_a_slip_and_numbers_are_texts(tmp_path):
    slip = write(tmp_path / "a.jsonl", [{"text": "x", "y": 1}] * 3)
    number = write(tmp_path / "b.jsonl", [{"a": 3, "y": 1}])
    for split in ("dev", "test"):
        with pytest.raises(ValueError, match=r"a\.jsonl, line 1: there must be a field 'a', .* got text, y"):
            split_of(CLASSES, split, slip)
        assert split_of(CLASSES, split, number).examples[0].text == "3"
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: the text in column 'a' must be text, got 3"):
        split_of(CLASSES, "train", number)


@pytest.mark.parametrize("value", ["nan", "NaN", "", "NA", "null", "<NA>", None, NAN])
def test_numbers_that_are_missing(tmp_path, value):
    path = write(tmp_path / "a.jsonl", [{"a": "x", "y": 1.0}, {"a": "x", "y": value}])
    train = split_of(NUMBERS, "train", path, {"dev": path})
    assert (len(train.examples), train.counts.without_label) == (1, 1)


@pytest.mark.parametrize("value", ["inf", float("-inf"), 1e30, 10**400, True, "high", "1,5", [1]])
def test_numbers_that_are_none_are_refused(tmp_path, value):
    path = write(tmp_path / "a.jsonl", [{"a": "x", "y": 1.0}, {"a": "x", "y": value}])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: the label in column 'y' must be a number, got "):
        split_of(NUMBERS, "train", path, {"dev": path})


def test_floats_that_are_integers_are_the_same_classes(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"a": "x", "e": "p", "f": "q", "y": y} for y in (1.0, 0, "1.0", 1)])
    assert [example.label for example in split_of(CLASSES, "train", path, {"dev": path}).examples] == [
        "1",
        "0",
        "1.0",
        "1",
    ]
    assert [example.label for example in split_of(CHOICES, "train", path, {"dev": path}).examples] == [1, 0, 1, 1]


def test_sentences(tmp_path):
    own = custom_task("tagging", words="w", tags="t")
    rows = [
        {"w": ["A", "b"], "t": ["O", "X"]},
        {"w": ["A", ""], "t": ["O", "X"]},
        {"w": [], "t": []},
        {"w": None, "t": []},
        {"w": None, "t": ["O"]},
        {"w": ["A"], "t": None},
        {"w": ["A", "b"], "t": ["O", None]},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    train = split_of(own, "train", path, {"dev": path})
    assert (len(train.examples), train.counts.without_text, train.counts.without_label) == (1, 4, 2)
    dev = split_of(own, "dev", path)
    assert [example.words for example in dev.examples] == [("A", "b"), ("A", ""), (), ()]
    test = split_of(own, "test", path)
    assert [example.id for example in test.examples] == list("0123456")
    assert [example.tags is None for example in test.examples] == [False, False, False, False, True, True, True]


def test_words_of_conll(tmp_path):
    own = custom_task("tagging", words=0, tags=1)
    path = tmp_path / "a.txt"
    path.write_text("A\tO\n\nb\tO\n\tX\n\nc\t\n\nd\tX\n")
    train = split_of(own, "train", path, {"dev": path})
    assert [example.id for example in train.examples] == ["0", "3"]
    assert train.counts.said(path) == (
        f"{path}: of 4 rows left out 2 (1 without a text, 1 without a label); the first left out: {path}, line 4: "
        "the word must not be empty"
    )
    assert [example.words for example in split_of(own, "dev", path).examples] == [("A",), ("b", ""), ("d",)]
    assert [example.tags for example in split_of(own, "test", path).examples] == [("O",), ("O", "X"), None, ("X",)]


def test_tags_that_nobody_has_filled_in(tmp_path):
    rows = [("A", "NOUN", "_"), ("b", "_", "Case=Nom")]
    path = tmp_path / "a.conllu"
    path.write_text("\n".join(f"1\t{w}\t_\t{u}\t_\t{f}\t_\t_\t_\t_\n" for w, u, f in rows))
    upos = split_of(custom_task("tagging", tags="upos"), "train", path, {"dev": path})
    assert ([e.tags for e in upos.examples], upos.counts.without_label) == ([("NOUN",)], 1)
    # No feature is a value like others.
    feats = split_of(custom_task("tagging", tags="feats"), "train", path, {"dev": path})
    assert [e.tags for e in feats.examples] == [("_",), ("Case=Nom",)]


def test_questions(tmp_path):
    answer = {"text": "Rome", "answer_start": 3}
    qas = [
        {"id": "a", "question": "Where?", "answers": [answer]},
        {"id": "b", "question": " ", "answers": [answer]},
        {"id": "c", "question": None, "answers": [answer]},
        {"id": "d", "question": "Who?"},
    ]
    paragraphs = [{"context": "In Rome.", "qas": qas}, {"context": "", "qas": [{**qas[0], "id": "e"}]}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    own = task("squad1")
    train = split_of(own, "train", path, {"dev": path})
    assert (len(train.examples), train.counts.without_text, train.counts.without_label) == (1, 3, 1)
    # No network can find an answer in a context that is not there.
    dev = split_of(own, "dev", path)
    assert ([example.question for example in dev.examples], dev.counts.without_text) == (["Where?", " ", ""], 1)
    assert [example.answers is None for example in split_of(own, "test", path).examples] == [0, 0, 0, 1, 1]


def test_an_empty_question_of_dev_does_not_refuse_qqp(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    (tmp_path / "train.tsv").write_text(header + "1\t1\t2\tA?\tB?\t0\n")
    (tmp_path / "dev.tsv").write_text(header + '1\t1\t2\tA?\t\t0\n2\t1\t2\t"A?\tB?\t1\n')
    (tmp_path / "test.tsv").write_text("id\tquestion1\tquestion2\n0\tA?\t\n1\t\tB?\n")
    splits = open_splits(task("qqp"), tmp_path)
    assert [(e.text, e.pair) for e in splits["dev"].examples] == [("A?", ""), ('"A?', "B?")]
    assert splits["dev"].counts == RowCounts(read=2, kept_without_text=1)
    assert [e.id for e in splits["test"].examples] == ["0", "1"]


def test_labels_of_a_test_file_that_are_all_empty_are_unknown(tmp_path):
    for own, row in [
        (CLASSES, {"a": "x", "y": None}),
        (NUMBERS, {"a": "x", "y": None}),
        (custom_task("multilabel", text="a", label="y"), {"a": "x", "y": None}),
    ]:
        test = split_of(own, "test", write(tmp_path / "a.csv", [row, row]))
        assert [example.label for example in test.examples] == [None, None]
        assert test.counts.said(test.path) is None


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_of_a_test_file_that_are_minus_one_are_unknown(tmp_path, suffix):
    """The Hub's copies of GLUE and SWAG hide labels so."""
    named = custom_task("classification", text="a", label="y", labels=("0", "1"))
    for own, row in [(CLASSES, {"a": "x"}), (named, {"a": "x"}), (NUMBERS, {"a": "x"}), (CHOICES, KINDS["choice"][1])]:
        hidden = write(tmp_path / f"a{suffix}", [row | {"y": -1}, row | {"y": -1.0}])
        assert [example.label for example in split_of(own, "test", hidden).examples] == [None, None]
    with pytest.raises(ValueError, match="must be one of 0, 1, got '-1"):
        split_of(named, "dev", hidden)
    some = write(tmp_path / f"a{suffix}", [{"a": "x", "y": y} for y in (-1, 0)])
    assert [example.label for example in split_of(named, "test", some).examples] == [None, "0"]
    assert [example.label for example in split_of(CLASSES, "test", some).examples] == ["-1", "0"]


GENRES = custom_task("multilabel", text="a", label="y")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("form", [str, json.dumps, lambda v: str(v).replace(",", ""), "|".join, "; ".join])
def test_several_labels(tmp_path, suffix, form):
    values = [["a", "b c"], ["b c"], []]
    rows = [{"a": "x", "y": '"' + form(v).replace('"', '""') + '"'} for v in values]
    if suffix == ".jsonl":
        rows = [{"a": "x", "y": form(v)} for v in values]
    path = write(tmp_path / f"a{suffix}", rows)
    splits = open_splits(GENRES, None, {"train": path, "dev": path})
    assert [example.label for example in splits["train"].examples] == [("a", "b c"), ("b c",), ()]
    assert labels_of(GENRES, splits) == ("a", "b c")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_comma_belongs_to_a_name_where_another_separator_is_in_the_files(tmp_path, suffix):
    def file(name, *values):
        quote = '"' if suffix == ".csv" else ""
        return write(tmp_path / f"{name}{suffix}", [{"a": "x", "y": f"{quote}{value}{quote}"} for value in values])

    files = {"train": file("a", "Smith, John; Doe, Jane", "Doe, Jane"), "dev": file("b", "Smith, John")}
    splits = open_splits(GENRES, None, files)
    assert [example.label for example in splits["train"].examples] == [("Smith, John", "Doe, Jane"), ("Doe, Jane",)]
    assert splits["dev"].examples[0].label == ("Smith, John",)
    assert labels_of(GENRES, splits) == ("Doe, Jane", "Smith, John")
    files["train"] = file("a", "Doe, Jane", "a; b|c")
    with pytest.raises(
        ValueError,
        match=rf"a\{suffix}, line {3 if suffix == '.csv' else 2}: the label in column 'y' must"
        " have one separator between the labels, got ; and",
    ):
        open_splits(GENRES, None, files)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_with_separators_that_are_not_read_are_told(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", [{"a": "x", "y": y} for y in ("a b", "a", "b c", "c")])
    with pytest.warns(UserWarning, match=rf"a\{suffix}: 'a b', 'b c' may each be several labels \(2 of 4 look so\)"):
        assert labels_of(GENRES, open_splits(GENRES, None, {"train": path, "dev": path})) == ("a", "a b", "b c", "c")


@pytest.mark.parametrize(
    "name, value",
    [("a.csv", "['b']"), ("a.csv", '"[""b""]"'), ("a.tsv", '"[""b""]"'), ("a.tsv", "['b']")]
    + [("a.jsonl", value) for value in (["b"], "['b']", '["b"]')],
)
def test_a_list_is_no_class_in_any_file(tmp_path, name, value):
    path = write(tmp_path / name, [{"a": "x", "y": value}])
    with pytest.raises(
        ValueError, match=r"the label in column 'y' must be one class \(lists are for the kind multilabel"
    ):
        open_splits(CLASSES, None, {"train": path, "dev": path})


def test_a_label_that_is_named_may_look_like_a_list(tmp_path):
    path = write(tmp_path / "a.csv", [{"a": "x", "y": "['b']"}])
    named = custom_task("classification", text="a", label="y", labels=("['b']", "c"))
    assert open_splits(named, None, {"train": path, "dev": path})["dev"].examples[0].label == "['b']"


def test_truth_beside_numbers_is_told(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"a": "x", "y": y} for y in (0, 1, True, "0")])
    with pytest.warns(UserWarning, match=r"a\.jsonl: '1', 'true' differ by a slip alone"):
        assert labels_of(CLASSES, open_splits(CLASSES, None, {"train": path, "dev": path})) == ("0", "1", "true")


@pytest.mark.parametrize("form", [list, str, lambda v: f"[{' '.join(map(str, v))}]", lambda v: " ".join(map(str, v))])
def test_vectors(tmp_path, form):
    def file(name, *vectors):
        return write(tmp_path / name, [{"a": "x", "y": form(v)} for v in vectors])

    files = {"train": file("a.jsonl", [0, 1, 0], [1, 1, 0]), "dev": file("b.jsonl", [0, 0, 1])}
    with pytest.warns(
        UserWarning, match=r"a\.jsonl: the labels are vectors of 3 zeros and ones, and are called 0 to 2"
    ):
        splits = open_splits(GENRES, None, files)
    assert [example.label for example in splits["train"].examples] == [("1",), ("0", "1")]
    assert splits["dev"].examples[0].label == ("2",)
    with pytest.warns(UserWarning, match="no example is left to train on with the label 2"):
        assert labels_of(GENRES, splits) == ("0", "1", "2")
    named = custom_task("multilabel", text="a", label="y", labels=("p", "q", "r"))
    assert open_splits(named, None, files)["dev"].examples[0].label == ("r",)
    few = custom_task("multilabel", text="a", label="y", labels=("p", "q"))
    with pytest.raises(ValueError, match=r"a\.jsonl: vectors of 3 zeros and ones need 3 labels, got 2"):
        open_splits(few, None, files)
    files["dev"] = file("b.jsonl", [0, 0])
    with pytest.raises(ValueError, match=r"b\.jsonl, line 1: the label must be a vector of 3 zeros and ones, got 0, 0"):
        open_splits(named, None, files)


def test_a_label_that_is_not_among_several(tmp_path):
    own = custom_task("multilabel", text="a", label="y", labels=("p", "q"))
    path = write(tmp_path / "a.jsonl", [{"a": "x", "y": "p, z"}])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: the label in column 'y' must be one of p, q, got 'z'"):
        open_splits(own, None, {"train": path})


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_column_for_each_label(tmp_path, suffix):
    rows = [{"a": "x", "toxic": 1, "insult": "0.0"}, {"a": "x", "toxic": "True", "insult": 1}]
    path = write(tmp_path / f"a{suffix}", [*rows, {"a": "x", "toxic": 1, "insult": None}])
    for own in (
        custom_task("multilabel", text="a", labels=("toxic", "insult")),
        custom_task("multilabel", text="a", label=("toxic", "insult")),
        custom_task("multilabel", text="a", label=("toxic", "insult"), labels=("t", "i")),
    ):
        splits = open_splits(own, None, {"train": path, "dev": path})
        toxic, insult = labels_of(own, splits)
        assert [example.label for example in splits["train"].examples] == [(toxic,), (toxic, insult)]
        assert splits["train"].counts.without_label == 1
    hidden = write(path, [{"a": "x", "toxic": 1, "insult": 0}, {"a": "x", "toxic": -1, "insult": -1}])
    assert [example.label for example in split_of(own, "test", hidden).examples] == [("t",), None]
    write(path, [{"a": "x", "toxic": 2, "insult": 0}])
    with pytest.raises(ValueError, match="the label in column 'toxic' must be 0 or 1, got"):
        open_splits(own, None, {"train": path})
    with pytest.raises(ValueError, match="only multilabel has several columns of labels"):
        custom_task("classification", text="a", label=("toxic", "insult"))


def test_labels_come_from_the_whole_file(tmp_path):
    path = write(tmp_path / "a.csv", [{"a": "x", "y": "rare" if i == 7 else f"y{i % 2}"} for i in range(40)])
    told = 0
    for seed in range(12):
        splits = open_splits(CLASSES, path, seed=seed, dev_share=0.3)
        is_held_out = any(example.label == "rare" for example in splits["dev"].examples)
        told += is_held_out
        with (pytest.warns if is_held_out else _nothing)(UserWarning, match="no example is left to train .* rare"):
            assert labels_of(CLASSES, splits) == ("rare", "y0", "y1")
    assert 0 < told < 12
    files = {"train": path, "dev": write(tmp_path / "b.csv", [{"a": "x", "y": "Y0"}])}
    with pytest.raises(ValueError, match=r"b\.csv, line 2: .*got 'Y0', which differs from 'y0' by a slip alone"):
        labels_of(CLASSES, open_splits(CLASSES, None, files))
    # A subset to train on has the labels of the file, too.
    files["dev"] = path
    with pytest.warns(UserWarning, match="no example is left"):
        assert labels_of(CLASSES, open_splits(CLASSES, None, files, n_train=1)) == ("rare", "y0", "y1")


def test_tags_and_classes_come_from_the_whole_file(tmp_path):
    tagging = custom_task("tagging", words=0, tags=1)
    (tmp_path / "a.txt").write_text("".join(f"w {'RARE' if i == 3 else 'O'}\n\n" for i in range(10)))
    several = write(tmp_path / "a.jsonl", [{"a": "x", "y": ["rare" if i == 3 else "a"]} for i in range(10)])
    for own, path, labels in [(tagging, tmp_path / "a.txt", ("O", "RARE")), (GENRES, several, ("a", "rare"))]:
        for seed in range(100):
            splits = open_splits(own, path, seed=seed)
            if labels[-1] in classes_in(splits["dev"].examples[0]):
                with pytest.warns(UserWarning, match="no example is left"):
                    assert labels_of(own, splits) == labels
                break
        else:
            pytest.fail("no seed holds the rare label out")


def test_slips_in_labels_are_told(tmp_path):
    path = write(tmp_path / "a.csv", [{"a": "x", "y": y} for y in ("good", "bad", "Good", " good")])
    with pytest.warns(UserWarning, match=r"a\.csv: ' good', 'Good', 'good' differ by a slip alone"):
        assert labels_of(CLASSES, open_splits(CLASSES, None, {"train": path, "dev": path})) == (
            " good",
            "Good",
            "bad",
            "good",
        )


class _nothing:
    """Stands for `pytest.warns` where there is nothing to warn of."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass
