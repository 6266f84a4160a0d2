"""What the model cards of pre-training and of fine-tuning share: a card is the README.md that the Hub shows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from ..disk import written

PAPER = "Clark et al. 2020, https://arxiv.org/abs/2003.10555"


def card(header: ModelCardData, sections: Iterable[str]) -> str:
    """The text of a card: a YAML header for the Hub, then the sections, which are Markdown."""
    return "\n\n".join([f"---\n{header.to_yaml().strip()}\n---", *sections]) + "\n"


def write_card(directory: str | os.PathLike, text: str) -> None:
    """Writes a card as README.md into a network's directory, whole or not at all."""
    with written(Path(directory) / "README.md") as file:
        file.write(text)


def facts(values: Mapping[str, Any]) -> str:
    """A Markdown table of two columns without names: a line for each name and its value."""
    return table(("", ""), values.items())


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table. Cells may be any values of JSON; numbers have four digits."""
    lines = [[_cell(value) for value in row] for row in rows]
    head = f"| {' | '.join(columns)} |" if any(columns) else "|" + " |" * len(columns)
    return "\n".join([head, "|" + "---|" * len(columns), *(f"| {' | '.join(line)} |" for line in lines)])


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def plain(text: str) -> str:
    """Markdown that shows a text as it is, in one line, in a sentence, a heading or a table's cell."""
    return re.sub(r"[\\`*<&|]", r"\\\g<0>", _in_a_line(text))


def code_span(text: str) -> str:
    """Markdown that shows a text as code, in a sentence: between more backticks than the text has in a row."""
    text = _in_a_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # One space at each end is not shown, and parts the fence from the text's own backticks.
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"{fence}{text}{fence}"


def _in_a_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)
