"""Splits: their files, the examples that are held out, and the labels."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.finetuning.data.examples import TextExample
from electra_fast.finetuning.data.splits import fingerprint, labels_of, open_splits, swapped
from electra_fast.finetuning.data.tasks import custom_task, task

SST2 = Path(__file__).resolve().parents[4] / "shared" / "data" / "sst2"
CLASSES = custom_task("classification", text="sentence", label="label")


def write(path, n, label="1", name="x"):
    path.write_text("sentence\tlabel\n" + "".join(f"{name}{i}\t{label}\n" for i in range(n)), encoding="utf-8")
    return path


def texts(split):
    return [example.text for example in split.examples]


def test_files_by_name_in_a_directory(tmp_path):
    write(tmp_path / "Train.TSV", 3)
    write(tmp_path / "validation.txt", 2)
    write(tmp_path / "dev.csv.bak", 9)
    splits = open_splits(CLASSES, tmp_path)
    assert {name: (split.path.name, len(split.examples)) for name, split in splits.items()} == {
        "train": ("Train.TSV", 3),
        "dev": ("validation.txt", 2),
    }
    # A file that is named goes before, and need not be there.
    other = write(tmp_path / "mine.tsv", 4)
    assert open_splits(CLASSES, tmp_path, {"dev": other, "test": other})["dev"].path == other
    assert list(open_splits(CLASSES, None, {"test": other})) == ["test"]
    (tmp_path / "Train.TSV").unlink()
    moved = open_splits(CLASSES, tmp_path, {"train": other})
    assert fingerprint(moved) == fingerprint(dict(reversed(moved.items()))) and set(moved) == {"train", "dev"}


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold the training examples of custom as one of train\.tsv, .*"):
        open_splits(CLASSES, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such data file or directory"):
        open_splits(CLASSES, tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.tsv"):
        open_splits(CLASSES, None, {"train": tmp_path / "none.tsv"})
    with pytest.raises(ValueError, match="got neither"):
        open_splits(CLASSES)
    with pytest.raises(ValueError, match="a split must be one of train, dev, test, got 'eval'"):
        open_splits(CLASSES, None, {"eval": write(tmp_path / "a.tsv", 2)})


def test_train_and_dev_must_have_labels_and_test_may(tmp_path):
    train = write(tmp_path / "train.tsv", 3)
    bare = tmp_path / "bare.tsv"
    bare.write_text("sentence\nx\n")
    assert open_splits(CLASSES, None, {"train": train, "dev": train, "test": bare})["test"].examples[0].label is None
    for name in ("train", "dev"):
        with pytest.raises(ValueError, match=r"bare\.tsv, line 1: the header must have one 'label', got sentence"):
            open_splits(CLASSES, None, {"train": train, name: bare})


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 60), seed=st.integers(0, 2**32 - 1), share=st.floats(0.01, 0.6))
def test_held_out_examples(tmp_path_factory, n, seed, share):
    path = write(tmp_path_factory.mktemp("one") / "a.tsv", n)
    splits = open_splits(CLASSES, path, seed=seed, dev_share=share)
    train, dev = splits["train"], splits["dev"]
    # The path tells that dev is a part of train.
    assert train.path == dev.path == path
    assert len(dev.examples) == max(1, round(share * n))
    assert (
        sorted([*train.examples, *dev.examples], key=lambda e: e.line)
        == open_splits(CLASSES, None, {"train": path, "dev": path})["train"].examples
    )
    assert [e.line for e in dev.examples] == sorted(e.line for e in dev.examples)
    assert fingerprint(splits) == fingerprint(open_splits(CLASSES, path, seed=seed, dev_share=share))
    # A subset is drawn of what remains.
    few = open_splits(CLASSES, path, seed=seed, dev_share=share, n_train=1)
    assert few["dev"] == dev and few["train"].examples[0] in train.examples and len(few["train"].examples) == 1


def test_the_seed_chooses(tmp_path):
    path = write(tmp_path / "a.tsv", 200)
    a, b = (open_splits(CLASSES, path, seed=seed) for seed in (0, 1))
    assert texts(a["dev"]) != texts(b["dev"])
    named = {"train": path, "dev": path}
    a, b = (open_splits(CLASSES, None, named, seed=seed, n_train=50)["train"] for seed in (0, 1))
    assert len(set(texts(a))) == 50 and texts(a) != texts(b)
    with pytest.raises(ValueError, match=r"a\.tsv: n_train must be between 1 and the 200 training examples, got 201"):
        open_splits(CLASSES, None, named, n_train=201)
    with pytest.raises(ValueError, match=r"cannot hold out a share of 0\.1 of 1 training examples"):
        open_splits(CLASSES, write(tmp_path / "b.tsv", 1))


def labels(tmp_path, found, dev=None, kind="classification"):
    for name, values in (("train", found), ("dev", dev or found)):
        rows = ({"sentence": "x", "label": value} for value in values)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = custom_task(kind, text="sentence", label="label")
    return labels_of(own, open_splits(own, tmp_path))


def test_labels_of_the_training_examples(tmp_path):
    assert labels(tmp_path, ["b", "a", "b"]) == ("a", "b")
    assert labels(tmp_path, [10, 9, -1]) == ("-1", "9", "10")
    assert labels(tmp_path, ["10", "9.5", "nan", "x", "1e"]) == ("9.5", "10", "1e", "nan", "x")
    assert labels(tmp_path, [["b", "c"], [], ["a"]], kind="multilabel") == ("a", "b", "c")
    assert labels(tmp_path, [1.5, 2], kind="regression") == ()
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 2: .* \(a, b\) or all labels must be named, got 'c'"):
        labels(tmp_path, ["a", "b"], dev=["a", "c"])
    with pytest.raises(ValueError, match=r"dev\.jsonl, line 1: .* got 'c'"):
        labels(tmp_path, [["a", "b"]], dev=[["a", "c"]], kind="multilabel")


def test_tags_of_the_training_examples(tmp_path):
    tagging = custom_task("tagging", tags=-1)
    for name, tags in (("train", "B-X O 3"), ("dev", "O B-X")):
        (tmp_path / f"{name}.conll").write_text("\n".join(f"w {tag}" for tag in tags.split()))
    assert labels_of(tagging, open_splits(tagging, tmp_path)) == ("O", "3", "B-X")
    (tmp_path / "test.conll").write_text("w O\n\nw I-X\n")
    with pytest.raises(ValueError, match=r"test\.conll, line 3: .*, got 'I-X'"):
        labels_of(tagging, open_splits(tagging, tmp_path))


def test_a_few_damaged_rows_of_qqp_are_left_out_of_training(tmp_path):
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    good, broken, empty = "1\t1\t2\tA?\tB?\t0\n", "\tWas he?\t0\n", "2\t1\t2\tA?\t\t0\n"
    path, dev = tmp_path / "train.tsv", tmp_path / "dev.tsv"
    path.write_text(header + good + broken + empty + good)
    dev.write_text(header + good)
    with pytest.warns(
        UserWarning, match=r"train\.tsv: 2 damaged rows are left out; the first: .*train\.tsv, line 3: must"
    ):
        assert len(open_splits(task("qqp"), tmp_path)["train"].examples) == 2
    path.write_text(header + good + broken * 101)
    with pytest.raises(ValueError, match=r"train\.tsv, line 103: "):
        open_splits(task("qqp"), tmp_path)
    path.write_text(header + good)
    dev.write_text(header + good + broken)
    with pytest.raises(ValueError, match=r"dev\.tsv, line 3: "):
        open_splits(task("qqp"), tmp_path)


def test_swapped_pairs():
    assert swapped([TextExample("7", 3, "a", "b", 2.5)]) == [TextExample("7", 3, "b", "a", 2.5)]


def test_a_fingerprint_is_of_examples_alone(tmp_path):
    def of(n, label="1", name="x", folder="a"):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = write(tmp_path / folder / f"{name}.tsv", n, label)
        return fingerprint(open_splits(CLASSES, None, {"train": path, "dev": path}))

    assert of(3) == of(3, folder="b")
    assert len({of(3), of(4), of(3, label="0")}) == 3


@pytest.mark.skipif(not SST2.is_dir(), reason="real data (shared/data/sst2) is not on this machine")
def test_sst2_as_it_is():
    splits = open_splits(task("sst2"), SST2)
    assert {name: len(split.examples) for name, split in splits.items()} == {"train": 60_614, "dev": 6_735, "test": 872}
    assert labels_of(task("sst2"), splits) == ("0", "1")
    assert all(example.label in ("0", "1") for example in splits["test"].examples)
