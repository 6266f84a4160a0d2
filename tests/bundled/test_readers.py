"""Running prose in files of every form that the sources of the bundled model have."""

import bz2
import gzip
import json
import struct
import zlib

import pytest

from bundled import readers
from bundled.corpus import sources

PROSE = "The old house stood at the end of a long road."
OTHER = "Nobody had lived there for more than ten years."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, True),
        (f'"{PROSE}"', True),
        ("The old house.", False),
        (PROSE[:-1], False),
        ("x = f(1, 2); y = g(3, 4); z = h(5) * 2 + 1.", False),
        (PROSE.replace("house", "дом"), False),
    ],
    ids=["sentence", "quoted", "short", "without_an_end", "code", "another_script"],
)
def test_what_is_prose(text, expected):
    assert readers.is_prose(text) == expected


def test_pronunciations_in_brackets_are_left_out():
    assert readers.paragraphs([PROSE.replace("house", "house (Russian: дом, dom)")]) == [PROSE]


def packed_novel():
    lines = [PROSE[:20], PROSE[20:].strip(), "", OTHER]
    strings = b"".join(b"\x00\x04\x00\x09" + len(line).to_bytes(4, "big") + line.encode() for line in lines)
    return len(strings).to_bytes(4, "big") + zlib.compress(b"X\n" + strings)


def number(value):
    """A number of three of dictd's digits."""
    return "".join(readers._DIGITS[value >> shift & 63] for shift in (12, 6, 0))


def dictionary(entry):
    """The index and the text of a dictionary with an entry after three bytes."""
    text = b"???" + entry.encode()
    return {
        "a.index": f"house\t{number(3)}\t{number(len(text) - 3)}\n".encode(),
        "a.dict.dz": gzip.compress(text),
    }


def module(text):
    """The index and the blocks of a SWORD module with a block after three bytes, and an empty one."""
    block = zlib.compress(text.encode())
    return {"a.bzs": struct.pack("<6I", 3, len(block), len(text), 0, 0, 0), "a.bzz": b"???" + block}


def tagged(text):
    return " ".join(f"{word}/nn" for word in text[:-1].split()) + " ./."


LINKED = PROSE.replace("house", "[[house (building)|house]]")
BOTH = [[PROSE, OTHER]]
# By reader: the files, of which the first is read, and the documents.
FORMS = {
    "novels": ({"Rdata.rdb": packed_novel() * 2}, BOTH * 2),
    "tagged_words": ({"ca01": f"\n\t{tagged(PROSE)}\n\n\n\t{tagged(OTHER)}\n".encode()}, BOTH),
    "pod": ({"a.pod": f"=head1 A\n\n{PROSE.replace('old', 'B<old>')}\n\n    {PROSE}\n\n{OTHER}".encode()}, BOTH),
    "lines": ({"a.txt": f"{PROSE}\nA heading\n{OTHER}\n".encode()}, BOTH),
    "chapters": ({"a.txt": f"{PROSE[:23]}\n{PROSE[23:]}\n\nA heading\n\n{OTHER}\n".encode()}, BOTH),
    "page": ({"a.html": f"<head>{PROSE}</head><p>{PROSE}</p><pre>{PROSE}</pre><li><a>{OTHER}</a>".encode()}, BOTH),
    "articles": (
        {
            "a.bz2": bz2.compress(
                f"<m xmlns='x'><text>{{{{box|{{{{a}}}}}}}}\n'''{LINKED}'''\n* {PROSE}\n{OTHER}</text></m>".encode()
            )
        },
        BOTH,
    ),
    "commentary": (module(f"<title>{PROSE}</title><div type='x-p'/>{PROSE}<div/><w>{OTHER}</w>"), [*BOTH, []]),
    "passages": ({"a.jsonl": json.dumps({"passage": f"{PROSE}\n{OTHER}"}).encode()}, BOTH),
    "extracts": ({"a.json": json.dumps({"House": {"extract": PROSE}}).encode()}, [[PROSE]]),
    "cases": ({"a.jsonl": json.dumps({"document": PROSE}).encode()}, [[PROSE]]),
    "entries": (dictionary(f"house\n   {PROSE.replace('old', '{old}')}\n\n   {OTHER}\n"), BOTH),
    "glosses": (
        dictionary(f"house\n    n 1: {PROSE[:-1]} [syn: {{home}}]\n    2: a short one\n"),
        [[f"house: {PROSE}"]],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_reader_finds_the_prose(tmp_path, form):
    files, expected = FORMS[form]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert list(getattr(readers, form)(tmp_path / next(iter(files)))) == expected


def test_every_source_has_a_reader_that_is_tested():
    assert {source.reader for source in sources()} == FORMS.keys()
    assert all(source.package.partition(":")[0] in ("pypi", "debian", "npm") and source.licence for source in sources())
