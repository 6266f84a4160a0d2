"""Documents of running English in the files of packages, each as its paragraphs.

A reader takes one file and yields documents. Markup, tables, code and headings are left out: a paragraph is kept if it
reads like a sentence (`is_prose`).
"""

from __future__ import annotations

import bz2
import gzip
import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Document = list[str]


# Letters of other scripts, mostly names and pronunciations in brackets: each would need entries of a vocabulary.
_FOREIGN = r"[^\x00-\u017f\u2010-\u203a]"
_FOREIGN_BRACKETS = re.compile(rf" ?\([^()]*{_FOREIGN}[^()]*\)")


def is_prose(paragraph: str) -> bool:
    """Tells whether a paragraph is at least eight Latin words, most of them of letters, that end like a sentence."""
    words = paragraph.split(" ")
    n_plain = sum(word.strip(".,;:!?()\"'“”‘’").replace("-", "").replace("'", "").isalpha() for word in words)
    is_ended = paragraph.rstrip("\"')]”’")[-1:] in (".", "?", "!", ":")
    return len(words) >= 8 and n_plain >= 0.8 * len(words) and is_ended and not re.search(_FOREIGN, paragraph)


def paragraphs(texts: Iterable[str]) -> Document:
    """The texts that are prose, each in one line."""
    plain = (_FOREIGN_BRACKETS.sub("", " ".join(text.split())) for text in texts)
    return [line for line in plain if is_prose(line)]


# Plain text


def chapters(path: Path) -> Iterator[Document]:
    """A file of paragraphs with blank lines between them."""
    yield paragraphs(re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")))


def lines(path: Path) -> Iterator[Document]:
    """A file with a paragraph a line."""
    yield paragraphs(path.read_text(encoding="utf-8", errors="replace").split("\n"))


def novels(path: Path) -> Iterator[Document]:
    """R's file of novels: a compressed vector of lines for each."""
    data = path.read_bytes()
    while data:
        stream = zlib.decompressobj()
        vector, data = stream.decompress(data[4:]), stream.unused_data
        # A line is R's CHARSXP: flags that end with its type, 9, a length of four bytes, and the bytes.
        novel = [
            vector[found.end() : found.end() + int.from_bytes(found[1])].decode("utf-8", "replace")
            for found in re.finditer(rb"\x00[\x00\x04]\x00\x09(\x00\x00[\x00-\x02].)", vector, re.DOTALL)
        ]
        yield paragraphs("\n".join(novel).split("\n\n"))


def tagged_words(path: Path) -> Iterator[Document]:
    """A text of the Brown corpus: word/tag, a sentence a line."""
    text = re.sub(r"/[^\s/]+(?=\s|$)", "", path.read_text(encoding="latin-1"))
    text = re.sub(r"(``|'') ?", '"', text)
    text = re.sub(r" (?=[.,;:!?)])|(?<=\() ", "", text)
    yield paragraphs(text.split("\n\n"))


def pod(path: Path) -> Iterator[Document]:
    """A page of Perl's documentation."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"\b[A-Z]<+\s?([^<>]*?)\s?>+", lambda found: found[1].split("|")[0], text)
    yield paragraphs(part for part in text.split("\n\n") if not part.startswith(("=", " ", "\t")))


# JSON


def extracts(path: Path) -> Iterator[Document]:
    """The extract of each entry."""
    for entry in json.loads(path.read_text(encoding="utf-8")).values():
        yield paragraphs([entry["extract"]])


def passages(path: Path, key: str = "passage") -> Iterator[Document]:
    """The passage of each line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield paragraphs(json.loads(line)[key].split("\n"))


cases = partial(passages, key="document")


# Markup


class _Paragraphs(HTMLParser):
    """Texts of elements that hold running text."""

    BLOCKS = ("p", "dd", "li", "blockquote", "div", "td", "h1", "h2", "h3", "h4", "dt", "body", "br", "item", "title")
    SKIPPED = ("pre", "script", "style", "head", "nav", "table", "code-block", "info", "screen", "footer")

    def __init__(self) -> None:
        super().__init__()
        self.texts, self._depth = [""], 0

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self._depth += tag in self.SKIPPED
        if tag in self.BLOCKS and self.texts[-1] and tag != "br":
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in self.SKIPPED and self._depth > 0
        if tag in self.BLOCKS and self.texts[-1]:
            self.texts.append("")

    def handle_data(self, data: str) -> None:
        if not self._depth:
            self.texts[-1] += data


def page(path: Path) -> Iterator[Document]:
    """A page of HTML or Mallard, packed or plain."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    parser = _Paragraphs()
    parser.feed(data.decode("utf-8", "replace"))
    yield paragraphs(parser.texts)


def articles(path: Path) -> Iterator[Document]:
    """Articles of a dump of Wikipedia."""
    with bz2.open(path) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag.endswith("}text") and element.text:
                yield paragraphs(_without_wiki_markup(element.text).split("\n"))


def _without_wiki_markup(text: str) -> str:
    text = re.sub(r"<ref[^>]*/>|<ref.*?</ref>|<!--.*?-->|<math.*?</math>", "", text, flags=re.DOTALL)
    for opening, closing in (("{{", "}}"), ("{|", "|}")):
        innermost = re.escape(opening) + rf"(?:(?!{re.escape(opening)}|{re.escape(closing)}).)*" + re.escape(closing)
        while (shorter := re.sub(innermost, "", text, flags=re.DOTALL)) != text:
            text = shorter
    text = re.sub(r"\[\[(?:File|Image|Category):.*?\]\]\n?", "", text)
    text = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[\S+ ([^\]]*)\]|'{2,}|<[^>]+>", lambda found: found[1] or "", text)
    return "\n".join(line for line in unescape(text).split("\n") if not line.startswith(("*", "#", "=", "|", ":", ";")))


def commentary(path: Path) -> Iterator[Document]:
    """A module of SWORD: a compressed block for each book or chapter, `path` being the index of blocks."""
    blocks = path.with_suffix(path.suffix[:-1] + "z").read_bytes()
    for start, size, _ in struct.iter_unpack("<III", path.read_bytes()):
        text = zlib.decompress(blocks[start : start + size]).decode("utf-8", "replace") if size else ""
        text = re.sub(r"<note.*?</note>|<title.*?</title>", "", text, flags=re.DOTALL)
        text = re.sub(r"<(?:div|chapter|lb|p|lg|/lg|/p)\b[^>]*>", "\n", text)
        yield paragraphs(unescape(re.sub(r"<[^>]+>", "", text)).split("\n"))


# Dictionaries


def entries(path: Path) -> Iterator[Document]:
    """Entries of a dictionary for dictd, which `path` is the index of."""
    for _, text in _definitions(path):
        yield paragraphs(re.split(r"\n\s*\n", text))


def glosses(path: Path) -> Iterator[Document]:
    """Meanings in WordNet, each with the first of its words: "etagere: a piece of furniture with open shelves."."""
    seen: set[str] = set()
    for word, text in _definitions(path):
        text = re.sub(r"\[(?:syn|ant):[^]]*\]", "", " ".join(text.split()))
        meanings = [meaning.strip() for meaning in re.split(r"(?:^| )(?:n|v|adj|adv)? ?\d+: ", text)[1:]]
        new = [meaning for meaning in meanings if meaning not in seen]
        seen.update(new)
        yield paragraphs(f"{word}: {meaning}." for meaning in new)


def _definitions(path: Path) -> Iterator[tuple[str, str]]:
    """The head and the text of each entry, without the marks of links."""
    data = gzip.decompress(path.with_suffix(".dict.dz").read_bytes())
    spans = {tuple(map(_number, line.split("\t")[1:3])) for line in path.read_text(encoding="utf-8").splitlines()}
    for start, size in sorted(spans):
        head, _, text = data[start : start + size].decode("utf-8", "replace").partition("\n")
        yield head, re.sub(r"[{}]", "", text)


def _number(digits: str) -> int:
    """A number as dictd writes it, with 64 digits."""
    value = 0
    for digit in digits:
        value = 64 * value + _DIGITS.index(digit)
    return value


_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
