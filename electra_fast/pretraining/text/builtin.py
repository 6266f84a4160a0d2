"""Text that every machine has: the documentation that comes with Python."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from .documents import cut_documents


def builtin_documents() -> list[str]:
    """The text of every Python installation: the language reference and the standard library's docstrings.

    Every topic and every module is a document; together they have about 2 MB. Sources are parsed, not imported.
    Examples (>>>), lines of punctuation and repeated docstrings are left out.
    """
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
    seen: set[str] = set()
    documents = [_prose(topics[name]) for name in sorted(topics)]
    for file in sorted(root.rglob("*.py")):
        if skipped.isdisjoint(file.relative_to(root).parts):
            docstrings = [_prose(text) for text in _docstrings(file)]
            documents.append("\n".join(text for text in docstrings if not (text in seen or seen.add(text))))
    return [part for document in documents for part in cut_documents(document.splitlines(keepends=True), True)]


def _docstrings(file: Path) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a template, not Python source
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _prose(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if re.search(r"\w", line) and not line.startswith((">>>", "...")))
