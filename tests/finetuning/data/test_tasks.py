"""Every task reads files of the layout that its benchmark publishes."""

import json
from pathlib import Path

import pytest

from electra_fast.finetuning.data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from electra_fast.finetuning.data.splits import labels_of, open_splits
from electra_fast.finetuning.data.tasks import ALIASES, TASKS, Columns, custom_task, task

MNLI = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2"
QUESTIONS = "index\tquestion\tsentence"
SENTENCES = "index\tsentence1\tsentence2"


def table(header, *fields):
    return "\t".join(header.split() if "\t" not in header else header.split("\t")) + "\n" + "\t".join(fields) + "\n"


# By task: files as GLUE has them, and the example in each split.
GLUE = {
    "cola": {
        "train.tsv": ("gj04\t1\t\tThe sun rose.\n", "The sun rose.", None, "1"),
        "dev.tsv": ("gj04\t0\t*\tRose sun the.\n", "Rose sun the.", None, "0"),
        "test.tsv": (table("index\tsentence", "0", "It did."), "It did.", None, None),
    },
    "sst2": {
        "train.tsv": (table("sentence\tlabel", 'an "odd film ', "0"), 'an "odd film ', None, "0"),
        "dev.tsv": (table("sentence\tlabel", "a fine film", "1"), "a fine film", None, "1"),
        "test.tsv": (table("index\tsentence", "0", "a film"), "a film", None, None),
    },
    "mrpc": {
        "train.tsv": (
            "\ufeff"
            + table("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1", "7", "8", "A.", "B.").replace("\n", "\r\n"),
            *("A.", "B.", "1"),
        ),
        "test.tsv": (table("index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0", "7", "8", "A.", "B."), "A.", "B.", None),
    },
    "stsb": {
        "train.tsv": (table(STSB + " score", *"0 g f 2012 1 n n A B 3.800".split()), "A", "B", 3.8),
        "test.tsv": (table(STSB, *"0 g f 2012 1 n n A B".split()), "A", "B", None),
    },
    "qqp": {
        "train.tsv": (
            table("id qid1 qid2 question1 question2 is_duplicate", *"9 1 2 A? B? 0".split()),
            "A?",
            "B?",
            "0",
        ),
        "test.tsv": (table("id\tquestion1\tquestion2", "0", "A?", "B?"), "A?", "B?", None),
    },
    "mnli": {
        "train.tsv": (
            table(MNLI + " sentence1 sentence2 label1 gold_label", *"0 1 2 g x x x x A B neutral neutral".split()),
            "A",
            "B",
            "neutral",
        ),
        "dev_matched.tsv": (
            table(
                MNLI + " sentence1 sentence2 label1 label2 gold_label",
                *"0 1 2 g x x x x A B neutral neutral entailment".split(),
            ),
            "A",
            "B",
            "entailment",
        ),
        "dev_mismatched.tsv": (
            table("sentence1 sentence2 gold_label", *"A B contradiction".split()),
            "A",
            "B",
            "contradiction",
        ),
        "test_matched.tsv": (table(MNLI + " sentence1 sentence2", *"0 1 2 g x x x x A B".split()), "A", "B", None),
        "test_mismatched.tsv": (table(MNLI + " sentence1 sentence2", *"0 1 2 g x x x x C D".split()), "C", "D", None),
        "AX.tsv": (table(SENTENCES, "0", "A", "B"), "A", "B", None),
    },
    "qnli": {
        "train.tsv": (table(QUESTIONS + "\tlabel", "0", "A?", "B.", "not_entailment"), "A?", "B.", "not_entailment"),
        "test.tsv": (table(QUESTIONS, "0", "A?", "B."), "A?", "B.", None),
    },
    "rte": {"train.tsv": (table(SENTENCES + "\tlabel", "0", "A", "B", "entailment"), "A", "B", "entailment")},
    "wnli": {"train.tsv": (table(SENTENCES + "\tlabel", "0", "A", "B", "1"), "A", "B", "1")},
}


@pytest.mark.parametrize("name", GLUE)
def test_glue(tmp_path, name):
    for file, (content, *_) in GLUE[name].items():
        (tmp_path / file).write_bytes(content.encode())
    dev = {} if any(file.startswith("dev") for file in GLUE[name]) else {"dev": tmp_path / "train.tsv"}
    splits = open_splits(task(name), tmp_path, dev)
    of_files = {"diagnostics" if file == "AX.tsv" else Path(file).stem: row for file, row in GLUE[name].items()}
    assert set(splits) == of_files.keys() | dev.keys()
    for split, (_, text, pair, label) in of_files.items():
        first_line = 1 if name == "cola" and split != "test" else 2
        assert splits[split].examples == [TextExample("0", first_line, text, pair, label)]
    labels = labels_of(task(name), splits)
    assert labels == (() if name == "stsb" else tuple(sorted(labels)))
    assert set(task(name).submission) <= set(task(name).files)


@pytest.mark.parametrize("name, version, unanswerable", [("squad1", "1.1", False), ("squad2", "2.0", True)])
def test_squad(tmp_path, name, version, unanswerable):
    def write(path, *questions):
        path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "In Rome.", "qas": questions}]}]}))

    answered = {"id": "a", "question": "Where?", "answers": [{"text": "Rome", "answer_start": 3}]}
    unanswered = {"id": "b", "question": "When?", "answers": [], "is_impossible": True}
    write(tmp_path / f"train-v{version}.json", answered)
    write(tmp_path / f"dev-v{version}.json", answered, unanswered)
    if unanswerable:
        splits = open_splits(task(name), tmp_path)
        assert splits["train"].examples == [QuestionExample("a", 1, "Where?", "In Rome.", (("Rome", 3),))]
        assert splits["dev"].examples[1].answers == ()
        assert labels_of(task(name), splits) == ()
    else:
        with pytest.raises(
            ValueError, match=r"dev-v1\.1\.json, line 1: question b has no answer, but all of .* squad1"
        ):
            open_splits(task(name), tmp_path)


@pytest.mark.parametrize("name, tags", [("chunking", ("I-NP", "O")), ("ner", ("B-ORG", "O")), ("pos", ("NNP", "."))])
def test_conll(tmp_path, name, tags):
    for file in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / file).write_text("-DOCSTART- -X- -X- O\n\nEU NNP I-NP B-ORG\n. . O O\n", encoding="utf-8")
    splits = open_splits(task(name), tmp_path)
    assert list(splits) == ["train", "dev", "test"]
    assert splits["dev"].examples == [TaggedExample("0", 3, ("EU", "."), tags)]
    labels = labels_of(task(name), splits)
    assert set(tags) <= set(labels) and (name == "pos" or labels[0] == "O")
    assert len(labels) == (23 if name == "chunking" else 2)


def test_mrqa(tmp_path):
    record = {"qid": "a", "question": "Where?", "detected_answers": [{"text": "Rome", "char_spans": [[3, 6]]}]}
    lines = [{"header": {}}, {"context": "In Rome.", "qas": [record]}]
    for file in ("train.jsonl", "dev.jsonl"):
        (tmp_path / file).write_text("\n".join(map(json.dumps, lines)))
    for name in ("newsqa", "naturalqs", "triviaqa", "searchqa"):
        assert open_splits(task(name), tmp_path)["dev"].examples[0].answers == (("Rome", 3),)


def test_swag(tmp_path):
    header = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label"
    for file in ("train.csv", "val.csv"):
        (tmp_path / file).write_text(f"{header}\n0,v,1,A. She,A.,She,gold,sits.,runs.,eats.,flies.,2\n")
    found = open_splits(task("swag"), tmp_path)["train"].examples
    assert found == [ChoiceExample("0", 2, "A.", "She", ("sits.", "runs.", "eats.", "flies."), 2)]


def test_names_and_settings_of_the_original():
    assert {alias: task(alias).name for alias in ALIASES} == ALIASES
    assert all(task(name).name == name for name in TASKS)
    assert {name for name in TASKS if task(name).n_epochs == 10} == {"rte", "stsb"}
    assert {name for name in TASKS if task(name).n_epochs == 2} == {name for name in TASKS if task(name).kind == "qa"}
    assert {name for name in TASKS if task(name).swap_pairs} == {"mrpc", "stsb"}
    lengths = {"qa": 512, "tagging": 256}
    assert all(task(name).max_length == lengths.get(task(name).kind, 128) for name in TASKS)
    with pytest.raises(ValueError, match=r"the task must be one of cola, .*, swag, sst, .* got 'glue'"):
        task("glue")


def test_custom_tasks():
    found = custom_task("classification", text="question", pair="passage", label="answer", labels=("no", "yes"))
    assert found.columns == Columns(text="question", pair="passage", label="answer")
    assert (found.kind, found.labels, found.max_length) == ("classification", ("no", "yes"), 128)
    assert custom_task("regression", text="3", label=1, has_header=False).columns.text == 3
    assert custom_task("tagging", tags="upos").columns == Columns(tags="upos")
    assert custom_task("tagging", words="form", tags="-2").columns == Columns(words="form", tags=-2)
    assert custom_task("qa", has_unanswerable=True).options == task("squad2").options
    choice = custom_task("choice", text="a", endings=("0", "1"), label="4", has_header=True)
    assert choice.columns.endings == ("0", "1")
    assert custom_task("choice", text=0, endings=("1", 2), label=3, has_header=False).columns.endings == (1, 2)


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("ranking", {}, "one of classification, .*, choice, got 'ranking'"),
        ("classification", {"text": "a"}, "needs the column 'label'"),
        ("choice", {"text": "a", "label": "b"}, "needs the column 'endings'"),
        ("choice", {"text": "a", "label": "b", "endings": ("c",)}, "two endings or more, got"),
        ("tagging", {"words": 0}, "needs the column 'tags'"),
        ("tagging", {"text": "a", "tags": -1}, "a tagging task has no column 'text', got 'a'"),
        ("regression", {"text": "a", "label": "b", "labels": ("x",)}, "labels are for classification"),
        ("regression", {"text": "a", "label": 1, "has_header": False}, "must be a number from 0, got 'a'"),
        ("regression", {"text": 0, "label": "-1", "has_header": False}, "must be a number from 0, got '-1'"),
        ("classification", {"text": "a", "label": "b", "has_unanswerable": True}, "has_unanswerable is for qa"),
    ],
)
def test_custom_tasks_that_cannot_be(kind, options, message):
    with pytest.raises(ValueError, match=message):
        custom_task(kind, **options)
