"""Documents from files of every kind, and the errors for files that hold none."""

import gzip
import json
import lzma

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from electra_fast.pretraining.text import sources
from electra_fast.pretraining.text.documents import MAX_DOCUMENT_CHARS, cut_documents
from electra_fast.pretraining.text.sources import TextList, find_sources, fingerprint

PACK = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
TEXT = "one\ntwo\n\nthrée\n"


def documents(path, **options):
    return [document for source in find_sources(path, **options) for document in source.documents()]


@pytest.mark.parametrize("ending", PACK)
def test_text_and_jsonl_are_read_packed_or_not(tmp_path, ending):
    text, lines = tmp_path / f"a.txt{ending}", tmp_path / f"b.jsonl{ending}"
    text.write_bytes(PACK[ending](TEXT.encode()))
    records = [{"text": TEXT, "body": "uno"}, {"text": "four", "body": "due"}]
    lines.write_bytes(PACK[ending]("\n".join(map(json.dumps, records)).encode()))
    assert documents(text) == ["one\ntwo\n", "thrée\n"]
    assert documents(text, documents_by="file") == ["one\ntwo\nthrée\n"]
    assert documents(text, documents_by="line") == ["one\n", "two\n", "thrée\n"]
    # A record is a document, whatever blank lines it has.
    assert documents(lines) == ["one\ntwo\nthrée\n", "four"]
    assert documents(lines, text_key="body") == ["uno", "due"]
    assert documents(lines.rename(tmp_path / f"b.JSONL{ending}"), text_key="body") == ["uno", "due"]
    lines = (tmp_path / f"b.JSONL{ending}").rename(lines)
    assert documents(tmp_path) == [*documents(text), *documents(lines)]
    # Read as often as one likes.
    (source,) = find_sources(text)
    assert list(source.documents()) == list(source.documents())


def test_directories_are_read_by_name_and_to_the_bottom(tmp_path):
    for name in ("b/2.txt", "b/a/1.txt", "c.txt", "a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"\xff")
    assert documents(tmp_path) == ["a.txt", "b/2.txt", "b/a/1.txt", "c.txt"]
    assert [source.name for source in find_sources(tmp_path)] == documents(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', r"b.jsonl, line 3 must be a JSON object, got: "),
        ('{"body": "a"}', r"b.jsonl, line 3 must be an object with text under 'text'"),
        ('{"text": null}', r"b.jsonl, line 3 must be an object with text under 'text'"),
        ("[1]", r"b.jsonl, line 3 must be an object"),
        ('{"text": "\\ud83d"}', r"b.jsonl, line 3 must hold text, got: .*surrogates not allowed"),
        ("caf\udce9", r"b.jsonl, line 3: must be UTF-8, got byte 0xe9"),
    ],
)
def test_a_wrong_line_of_jsonl_is_named(tmp_path, line, message):
    (tmp_path / "b.jsonl").write_bytes(('{"text": "fine"}\n\n' + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message):
        documents(tmp_path)


def test_wrong_arguments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such data file or directory: .*missing"):
        find_sources(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"must hold files named \*.txt, \*.jsonl"):
        find_sources(tmp_path)
    with pytest.raises(ValueError, match="documents_by must be one of blank-line, line, file, got 'page'"):
        find_sources(tmp_path, documents_by="page")


@given(st.lists(st.sampled_from(["a\n", " \n", "b" * 3000 + "\n", "c" * 20000 + "\n"])), st.booleans())
def test_documents_are_the_lines_that_are_not_blank(lines, blank_separates):
    cut = list(cut_documents(lines, blank_separates))
    assert "".join(cut) == "".join(line for line in lines if line.strip())
    assert all(document.strip() for document in cut)
    assert all(len(document) <= MAX_DOCUMENT_CHARS or document.count("\n") == 1 for document in cut)


def test_the_fingerprint_tells_changes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x" * 200_000, encoding="utf-8")
    seen = {fingerprint(find_sources(tmp_path))}
    assert fingerprint(find_sources(tmp_path)) in seen
    for change in (
        lambda: path.write_text("x" * 199_999 + "y", encoding="utf-8"),
        lambda: path.write_text("y" + "x" * 199_999, encoding="utf-8"),
        lambda: path.write_text("x" * 100_000 + "y" + "x" * 99_999, encoding="utf-8"),
        lambda: path.write_text("x" * 200_001, encoding="utf-8"),
        lambda: path.rename(tmp_path / "b.txt"),
        lambda: path.write_text("more", encoding="utf-8"),
    ):
        change()
        value = fingerprint(find_sources(tmp_path))
        assert value not in seen and len(value) == 32
        seen.add(value)
    assert fingerprint([TextList(["a", "b"])]) != fingerprint([TextList(["ab"])])
    # The same file gives other documents when it is read in another way.
    (tmp_path / "b.jsonl").write_text("{}", encoding="utf-8")
    ways = ({}, {"documents_by": "line"}, {"documents_by": "file"}, {"text_key": "body"})
    assert len({fingerprint(find_sources(tmp_path, **way)) for way in ways}) == len(ways)


def test_the_fingerprint_covers_every_byte_of_every_file(tmp_path, monkeypatch):
    """Files of several parts, which threads read."""
    monkeypatch.setattr(sources, "_PART", 3000)
    monkeypatch.setattr(sources, "_BLOCK", 1000)
    for name, size in (("a.txt", 0), ("b.txt", 2999), ("c.txt.gz", 9000), ("d.jsonl", 9001)):
        (tmp_path / name).write_bytes(bytes(size))
    seen = {fingerprint(find_sources(tmp_path))}
    for name in ("b.txt", "c.txt.gz", "d.jsonl"):
        content = (tmp_path / name).read_bytes()
        for place in {*range(0, len(content), 500), len(content) - 1}:
            changed = bytearray(content)
            changed[place] ^= 1
            (tmp_path / name).write_bytes(changed)
            value = fingerprint(find_sources(tmp_path))
            assert value not in seen, (name, place)
            seen.add(value)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.txt").write_bytes(b"\0")
    assert fingerprint(find_sources(tmp_path)) not in seen


def test_the_fingerprint_of_a_saved_dataset_covers_its_files(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["some text"] * 50_000}).save_to_disk(tmp_path / "one")
    before = fingerprint(find_sources(tmp_path / "one"))
    (file,) = (tmp_path / "one").glob("*.arrow")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert fingerprint(find_sources(tmp_path / "one")) != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ' + "[" * 100_000, "line 2 must be a JSON object, got: "),
        ("5", "line 2 must be an object with text under 'text'"),
    ],
    ids=["deep", "number"],
)
def test_lines_that_are_no_documents_are_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=rf"a\.jsonl, {message}"):
        list(find_sources(tmp_path / "a.jsonl")[0].documents())


# Hugging Face datasets


def test_saved_datasets_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    texts = [f"text {i}\n\nof lines\n" for i in range(2500)]
    dataset = datasets.Dataset.from_dict({"text": texts, "number": list(range(2500))})
    dataset.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"test": dataset}).save_to_disk(tmp_path / "three")
    expected = [text.replace("\n\n", "\n") for text in texts]
    assert documents(tmp_path / "one") == documents(tmp_path / "two") == expected
    assert len(fingerprint(find_sources(tmp_path / "one"))) == 32
    with pytest.raises(ValueError, match="three must have a split named train, got test"):
        documents(tmp_path / "three")
    with pytest.raises(ValueError, match="one must have a column 'body' of texts, got text, number"):
        documents(tmp_path / "one", text_key="body")
    for file in (tmp_path / "two" / "train").glob("*.arrow"):
        file.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="two must be what save_to_disk wrote, got: "):
        documents(tmp_path / "two")
    with pytest.raises(ValueError, match=r"the column 'number' of .*one must hold text, got int"):
        documents(tmp_path / "one", text_key="number")


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("hf:org/name", ("org/name", None, "train")),
        ("hf:name:en", ("name", "en", "train")),
        ("hf:name::test", ("name", None, "test")),
        ("hf:name:en:test", ("name", "en", "test")),
    ],
)
def test_datasets_on_the_hub_are_streamed(monkeypatch, spec, arguments):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, config, split, streaming):
        assert (name, config, split) == arguments and streaming
        return datasets.Dataset.from_dict({"text": ["a", "b"]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert documents(spec) == ["a", "b"]


def test_what_datasets_need_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'electra_fast\[datasets\]'"):
        find_sources("hf:name")
    with pytest.raises(ValueError, match=r"must be given as hf:NAME\[:CONFIG\[:SPLIT\]\], got 'hf:'"):
        find_sources("hf:")
