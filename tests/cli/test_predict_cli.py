"""The subcommand `predict`: what it reads, what it writes, and what it says about mistakes."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import tyro
from finetuned_models import tokenizer, write_finetuned
from torch import distributed

from electra_fast.cli.predict import PredictCommand
from electra_fast.inference import batching

SPEED = r"^{} examples, [\d,]+ tokens in [\d.]+ s: [\d,]+ examples/s, [\d,]+ tokens/s\n$"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in ("classification", "tagging", "qa", "choice"):
        write_finetuned(root / name, name)
    return root


@pytest.fixture
def run(models, monkeypatch, capsys):
    """Runs the command for a kind, with arguments as in a shell; returns the predictions."""

    def run(name, *arguments, stdin=None, n=3):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        fixed = ("--model", str(models / name), "--device", "cpu")
        tyro.cli(PredictCommand, args=(*fixed, *map(str, arguments)), config=(tyro.conf.FlagCreatePairsOff,)).run()
        printed = capsys.readouterr()
        assert re.match(SPEED.format(n), printed.err), printed.err
        return [json.loads(line) for line in printed.out.splitlines()]

    return run


@pytest.fixture
def refused(run):
    def refused(match, *arguments, error=ValueError, **options):
        with pytest.raises(error, match=match):
            run(*arguments, **options)

    return refused


def labels(predictions):
    assert [prediction["id"] for prediction in predictions] == ["0", "1", "2"]
    return [prediction["label"] for prediction in predictions], [p["probabilities"] for p in predictions]


TEXTS = ["a b", 'c "d', "e f g"]


@pytest.fixture
def expected(run):
    """Predictions of TEXTS alone, and with x as their pair."""
    singles = labels(run("classification", stdin="\n".join(TEXTS).encode()))
    pairs = labels(run("classification", stdin="".join(f"{text}\tx\n" for text in TEXTS).encode()))
    assert singles != pairs
    return singles, pairs


def csv_cell(text):
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize(
    ("file", "content", "options", "pairs"),
    [
        ("a.txt", 'a b\nc "d\r\ne f g', (), False),
        ("a.txt", "".join(f"{text}\tx\n" for text in TEXTS), (), True),
        ("a.tsv", "id\ttext\n" + "".join(f"7\t{text}\n" for text in TEXTS), ("--text", "text"), False),
        ("a.tsv", "".join(f"x\t{text}\n" for text in TEXTS), ("--no-header", "--text", "1", "--pair", "0"), True),
        ("a.csv", "t,u\n" + "".join(f"{csv_cell(text)},x\n" for text in TEXTS), ("--text", "t", "--pair", "u"), True),
        ("a.jsonl", "".join(json.dumps({"t": text, "u": "x"}) + "\n" for text in TEXTS), ("--text", "t"), False),
        ("a.txt", "t\tu\n" + "".join(f"{text}\tx\n" for text in TEXTS), ("--text", "t", "--pair", "u"), True),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_texts_are_read_from_lines_and_tables(run, expected, tmp_path, file, content, options, pairs, is_packed):
    path = tmp_path / (file + ".gz" * is_packed)
    path.write_bytes(gzip.compress(content.encode()) if is_packed else content.encode())
    assert labels(run("classification", "--input", path, *options)) == expected[pairs]


BLANKS = {
    "classification": (b"a b\n\nc\n \n", ("label", "probabilities"), b""),
    "tagging": (b"a b\n\nc\n \n", ("words", "tags"), b""),
    "qa": (
        b'{"question": "a", "context": "b c"}\n\n{"question": "c", "context": "d"}\n{}\n',
        ("answer", "null_odds"),
        b"{}",
    ),
}


@pytest.mark.parametrize("name", BLANKS)
def test_each_line_has_its_row_and_a_blank_one_that_of_the_empty_text(run, name, tmp_path):
    content, fields, blank = BLANKS[name]
    (tmp_path / "a").write_bytes(content)
    found = run(name, stdin=content, n=4)
    assert [prediction["id"] for prediction in found] == ["0", "1", "2", "3"]
    for prediction, line in zip(found, content.splitlines(), strict=True):
        (alone,) = run(name, stdin=(line if line.strip() else blank) + b"\n", n=1)
        for field in fields:
            expected = (
                pytest.approx(alone[field], rel=1e-4) if field in ("probabilities", "null_odds") else alone[field]
            )
            assert prediction[field] == expected
    if name == "classification":
        encoded = tokenizer()("")["input_ids"]
        assert encoded == [2, 3]  # [CLS] [SEP]


def test_choices_without_text_are_answered(run, tmp_path):
    (tmp_path / "a.csv").write_text("sent1,sent2,ending0,ending1,ending2,ending3\na,b,c,d,e,f\n\n,,,,,\na,b,c,d,e,f\n")
    found = run("choice", "--input", tmp_path / "a.csv", n=4)
    assert found[1]["probabilities"] == pytest.approx([0.25] * 4)
    assert found[2] == found[1] | {"id": "2"}
    assert found[3]["probabilities"] == pytest.approx(found[0]["probabilities"])


def test_ids_are_those_of_their_column(run, tmp_path):
    (tmp_path / "a.csv").write_text("key,t\nk1,a\nk2,b\nk3,c\n")
    predictions = run("classification", "--input", tmp_path / "a.csv", "--text", "t", "--id", "key")
    assert [prediction["id"] for prediction in predictions] == ["k1", "k2", "k3"]


def test_words_are_read_from_lines_conll_and_json(run, tmp_path):
    sentences = [["a", "b,"], ["c"], ["d", "e"]]
    expected = run("tagging", stdin="\n".join(" ".join(sentence) for sentence in sentences).encode())
    assert [prediction["words"] for prediction in expected] == sentences
    assert {tag for prediction in expected for tag in prediction["tags"]} <= {"O", "B-PER", "I-PER"}
    conllu = "{0}\t{1}" + "\t_" * 8
    forms = {
        "a.conll": ("{1} X", ()),
        "b.conll": ("X {1}", ("--words", "1")),
        "c.conll": ("X {1}", ("--words", "-1")),
        "a.conllu": (conllu, ()),
        "b.conllu": (conllu, ("--words", "form")),
    }
    for file, (line, options) in forms.items():
        blocks = ["\n".join(line.format(n, word) for n, word in enumerate(words, 1)) for words in sentences]
        (tmp_path / file).write_text("\n\n".join(blocks) + "\n")
        assert run("tagging", "--input", tmp_path / file, *options) == expected, file
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"w": words}) + "\n" for words in sentences))
    assert run("tagging", "--input", tmp_path / "a.jsonl", "--words", "w") == expected


@pytest.mark.parametrize("name", ["a.txt", "a", "a.txt.gz", "a.text"])
@pytest.mark.parametrize(
    "content",
    [
        "a b c\nd e f\n",
        "a b\n\nc\n",
        "a b c\nd e f\n\n",
        "a b\n\n\nc d e\n \n",
        "a\n",
        "\n\na b\nc d",
        "a\tb\nc d\te f\tg\n",
    ],
)
def test_sentences_are_taken_alike_from_a_file_and_the_standard_input(run, tmp_path, name, content):
    n = len(content.splitlines())
    expected = run("tagging", stdin=content.encode(), n=n)
    assert [prediction["words"] for prediction in expected] == [line.split() for line in content.splitlines()]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    assert run("tagging", "--input", path, n=n) == expected


@pytest.mark.parametrize(
    "content",
    [
        "a X\nb O\n\nc O\n",
        "a\nb\n\nc\n",
        "a b\tX\nc\tO\n",
        "-DOCSTART- -X-\n\na X\n",
        "# text = a\n" + "1\ta" + "\t_" * 8 + "\n",
        "a X\n\nb O\n\n" * 600,
    ],
)
def test_conll_without_its_name_needs_the_column_of_words(run, refused, tmp_path, content):
    for name in ("a.txt", "eng.testa"):
        (tmp_path / name).write_text(content)
        refused(f"{name} looks like CoNLL, .*: --words must name the column", "tagging", "--input", tmp_path / name)
    if content == "a X\nb O\n\nc O\n":
        found = run("tagging", "--input", tmp_path / "a.txt", "--words", "0", n=2)
        assert [prediction["words"] for prediction in found] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("ending", [".conll", ".bio", ".iob", ".iob2", ".tsv", ".TSV"])
def test_conll_is_told_by_its_name(run, tmp_path, ending):
    (tmp_path / f"a{ending}").write_text("a X\nb O\n")
    (found,) = run("tagging", "--input", tmp_path / f"a{ending}", n=1)
    assert found["words"] == ["a", "b"]


def test_questions_are_read_from_lines_squad_and_mrqa(run, tmp_path):
    records = [{"question": "a b", "context": "c d e f"}, {"question": "b", "context": "x y"}]
    records.append({"question": "c", "context": "x y", "id": "own"})
    lines = "".join(json.dumps(record) + "\n" for record in records)
    expected = run("qa", stdin=lines.encode())
    assert [prediction["id"] for prediction in expected] == ["0", "1", "own"]
    (tmp_path / "a.jsonl").write_text(lines)
    assert run("qa", "--input", tmp_path / "a.jsonl") == expected

    ids = [prediction["id"] for prediction in expected]
    paragraphs = [
        {"context": record["context"], "qas": [{"id": id, "question": record["question"]}]}
        for id, record in zip(ids, records, strict=True)
    ]
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    assert run("qa", "--input", tmp_path / "a.json") == expected
    mrqa = [
        {"context": record["context"], "qas": [{"qid": id, "question": record["question"]}]}
        for id, record in zip(ids, records, strict=True)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, [{"header": {"dataset": "own"}}, *mrqa])) + "\n")
    assert run("qa", "--input", tmp_path / "b.jsonl") == expected


def test_a_network_of_few_positions_and_without_options_answers(models, run, tmp_path):
    """Transformers' networks have no finetuning.json, so the length of questions is the default one."""
    shutil.copytree(models / "qa", tmp_path / "qa")
    (tmp_path / "qa" / "finetuning.json").unlink()
    assert json.loads((tmp_path / "qa" / "config.json").read_text())["max_position_embeddings"] == 64
    line = json.dumps({"question": "a " * 99, "context": "c d e f " * 99}).encode()
    (found,) = run(tmp_path / "qa", stdin=line, n=1)
    assert found["answer"]


def test_choices_are_read_from_tables(run, tmp_path):
    (tmp_path / "swag.csv").write_text("sent1,sent2,ending0,ending1,ending2,ending3\n" + "a,b,c,d,e,f\n" * 3)
    expected = run("choice", "--input", tmp_path / "swag.csv")
    assert len(expected[0]["probabilities"]) == 4
    (tmp_path / "own.csv").write_text("x,y,p,q\n" + "a,b,c,d\n" * 3)
    options = ("--text", "x", "--start", "y", "--endings", "p", "q")
    found = run("choice", "--input", tmp_path / "own.csv", *options)
    assert len(found[0]["probabilities"]) == 2


def test_the_output_is_whole_or_absent(run, refused, tmp_path):
    expected = run("classification", stdin=b"a\nb\nc\n")
    out = tmp_path / "out.jsonl"
    assert run("classification", "--output", out, stdin=b"a\nb\nc\n") == []
    assert [json.loads(line) for line in out.read_text().splitlines()] == expected
    out.write_text("before")
    refused("standard input, line 3: ", "classification", "--output", out, stdin=b"a\nb\n\xff\n")
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    match = "the directory of the output does not exist"
    refused(match, "classification", "--output", tmp_path / "no/out", error=FileNotFoundError, stdin=b"a\n")


@pytest.mark.parametrize(
    ("name", "stdin", "match"),
    [
        (
            "classification",
            b"a\nb\tc\n",
            "^standard input, line 2: must be a text, or two .* got 2, there 1",
        ),
        ("classification", b"a\tb\tc\n", "^standard input, line 1: must be a text, or two .* got 3"),
        ("classification", b"a\n\n\xe4\n", "^standard input, line 3: must be UTF-8, got"),
        ("classification", b"", "^standard input, line 1: there must be examples, got none"),
        ("classification", b"a\rb", "^standard input, line 1: lines must end with line feeds"),
        ("tagging", b"", "^standard input, line 1: there must be examples, got none"),
        ("qa", b'{"question": "a"}\n', "^standard input, line 1: there must be a field 'context', .* got question"),
        ("qa", b"[1]\n", r"^standard input, line 1: must be a JSON object, got \[1\]"),
        ("choice", b"a\n", r"choices need a file \(--input\)"),
    ],
)
def test_a_bad_line_of_the_standard_input_is_named(refused, name, stdin, match):
    refused(match, name, stdin=stdin)


@pytest.mark.parametrize(
    ("name", "file", "content", "options", "match"),
    [
        ("classification", "a.txt", "a\nb\tc\n", (), r"a\.txt, line 2: must be a text"),
        ("classification", "a.csv", "t\na\n", (), r"a\.csv is a table: --text must name the column to read"),
        ("classification", "a.txt", "t\na\n", ("--id", "t"), r"a\.txt is a table: --text must name the column to read"),
        ("classification", "a.csv", "t\na\n", ("--text", "u"), r"a\.csv, line 1: .*'u'"),
        (
            "classification",
            "a.csv",
            "t\na\n",
            ("--words", "t"),
            "for classification are text, pair, id, got words",
        ),
        ("classification", "a.csv", "t,u\na,b\na,b,c\n", ("--text", "t", "--pair", "u"), r"a\.csv, line 3: "),
        ("tagging", "a.jsonl", '{"w": 3}\n', ("--words", "w"), r"a\.jsonl, line 1: "),
        ("tagging", "a.jsonl", '{"w": 3}\n', (), r"a\.jsonl is a table: --words must name"),
        ("tagging", "a.csv", "w\na b\n", (), r"words to tag are read from lines of text, .* got .*a\.csv"),
        ("tagging", "a.csv", "w\na b\n", ("--words", "0"), r"words to tag are read from lines of text, .*a\.csv"),
        ("tagging", "a.conll", "a b\nc\n", (), r"a\.conll, line 2: "),
        ("tagging", "a.conll", "a b\n", ("--words", "2"), r"a\.conll, line 1: "),
        ("qa", "a.json", '{"data": [}', (), r"a\.json, line 1: "),
        ("qa", "a.jsonl", '{"question": "a", "context": "b"}\n[]\n', (), r"a\.jsonl, line 2: must be a JSON object"),
        ("qa", "a.json", "{}", ("--text", "t"), "columns to name for qa are none, got text"),
        ("choice", "a.csv", "sent1,sent2\na,b\n", (), r"a\.csv, line 1: .*ending0"),
    ],
)
def test_a_bad_line_of_a_file_is_named(refused, tmp_path, name, file, content, options, match):
    (tmp_path / file).write_text(content)
    refused(match, name, "--input", tmp_path / file, *options)


def test_a_file_that_is_not_there_is_named(refused, tmp_path):
    refused("no such file: .*a.txt", "classification", "--input", tmp_path / "a.txt", error=FileNotFoundError)
    for name in ("classification", "tagging", "qa", "choice"):
        refused(f"no such file: {tmp_path} is a directory", name, "--input", tmp_path, error=FileNotFoundError)


def test_nothing_that_is_read_is_written_over(refused, models, tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "link.txt").symlink_to("a.txt")
    config = models / "classification" / "config.json"
    before = config.read_bytes()
    for output, message in (
        (tmp_path / "a.txt", "a.txt is .*a.txt"),
        (tmp_path / "link.txt", "link.txt is .*a.txt"),
        (config, "config.json is a file of .*classification"),
    ):
        arguments = ("classification", "--input", tmp_path / "a.txt", "--output", output)
        refused(f"must not be written over what is read: .*{message}", *arguments, error=FileExistsError)
    assert (tmp_path / "a.txt").read_text() == "a\n" and config.read_bytes() == before


def predict_in(rank, port, commands, errors):
    """What torchrun starts; one command after the other."""
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    launched |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ |= {name: str(value) for name, value in launched.items()}
    for command in commands:
        try:
            command.run()
        except ValueError as error:
            errors.put(str(error))


def test_two_processes_share_the_work(models, tmp_path, monkeypatch, capfd):
    """Of an odd number of chunks, so that one has none in the last round. They cannot share the standard input."""
    monkeypatch.setattr(batching, "CHUNK_ITEMS", 2)
    (tmp_path / "in.txt").write_text("\n".join(f"{'a ' * (i % 7)}b" for i in range(9)) + "\n")
    model, outputs = str(models / "classification"), [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    one, two = (
        PredictCommand(model=model, input=tmp_path / "in.txt", output=output, device="cpu") for output in outputs
    )
    one.run()
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    context = torch.multiprocessing.get_context("fork")
    errors = context.Queue()
    commands = [two, PredictCommand(model=model, device="cpu")]
    processes = [context.Process(target=predict_in, args=(rank, store.port, commands, errors)) for rank in (0, 1)]
    for process in processes:
        process.start()
    assert {errors.get(timeout=120) for _ in processes} == {
        "several processes need a file that each can read (--input), got None"
    }
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    expected, found = ([json.loads(line) for line in path.read_text().splitlines()] for path in outputs)
    assert [prediction["id"] for prediction in found] == [str(i) for i in range(9)]
    for prediction, wanted in zip(found, expected, strict=True):
        assert prediction["probabilities"] == pytest.approx(wanted["probabilities"], rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl", "in.txt"]
    speeds = capfd.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in speeds] == ["9 examples, 49 tokens"] * 2


PROGRAM = """
import importlib, sys, tyro
importlib.import_module("electra_fast.finetuning.prediction").CHUNK_EXAMPLES = 100
from electra_fast.cli.main import exit_code
from electra_fast.inference import batching
from electra_fast.cli.predict import PredictCommand
sys.exit(exit_code("predict", lambda: tyro.cli(PredictCommand).run()))
"""


def test_an_endless_input_streams_through_a_pipe_until_that_is_closed(models, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"yes 'a b' | {sys.executable} program.py --model {models / 'classification'} --device cpu | head -n 3"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, timeout=120, text=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["0", "1", "2"]
    assert done.stderr == ""


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_changes_little(run, expected, precision):
    found = labels(run("classification", "--precision", precision, stdin="\n".join(TEXTS).encode()))[1]
    for prediction, wanted in zip(found, expected[0][1], strict=True):
        assert prediction != wanted
        assert prediction == pytest.approx(wanted, abs=0.02)
