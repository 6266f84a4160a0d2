"""The workloads of `bench model`: batches of fixed and of drawn lengths, and real texts.

`latency-16`, `latency-128` are single rows, timed call by call; `full-128`, `full-512` have no padding; the lengths of
`mixed` are N(256, 64), from 16 to 512. `sentences` and `paragraphs` are texts in the order of their file, padded to the
longest of a batch, and cut at what the model takes. On a GPU batches have more rows.

Training steps have workloads of their own: `rtd` is ElectraForPreTraining, `class` is ElectraForSequenceClassification;
`full` has no padding, and in `third` a third of the padded positions are real.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...tokenizer import ElectraTokenizer

CALLS_A_TURN = 20  # timed calls, for a latency workload
_BATCHES = 4  # batches of a workload of texts
_LENGTHS = {"latency-16": 16, "latency-128": 128, "full-128": 128, "full-512": 512, "mixed": 512}
_ROWS = {
    "cpu": {"full-128": 8, "full-512": 2, "mixed": 16, "sentences": 32, "paragraphs": 8},
    "cuda": {"full-128": 128, "full-512": 32, "mixed": 64, "sentences": 256, "paragraphs": 64},
}
TEXT_WORKLOADS = ("sentences", "paragraphs")
WORKLOADS = (*_LENGTHS, *TEXT_WORKLOADS)

# By a training workload's second word, the class of its network.
TRAINED = {"rtd": "ElectraForPreTraining", "class": "ElectraForSequenceClassification"}
TRAIN_WORKLOADS = tuple(f"train-{head}-{rows}" for head in TRAINED for rows in ("full", "third"))
_STEPS_A_TURN = 5
_TRAIN_SHAPES = {"tiny": (8, 64), "small": (16, 128), "base": (8, 128), "large": (4, 128)}  # rows, tokens of a row
_GPU_ROWS = 8  # times as many rows


@dataclass(frozen=True)
class Batch:
    """Ids and mask [B, S] int64, padded on the right, and the texts they were made from, if any."""

    ids: np.ndarray
    mask: np.ndarray
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """Batches that are run one after the other."""

    name: str
    batches: tuple[Batch, ...]

    @property
    def is_latency(self) -> bool:
        return self.name.startswith("latency")

    @property
    def trained(self) -> str:
        """The class of the network that a training workload trains."""
        return TRAINED[self.name.split("-")[1]]

    @property
    def lengths(self) -> np.ndarray:
        """The lengths of all rows of all batches [N]."""
        return np.concatenate([batch.mask.sum(1) for batch in self.batches])

    @property
    def real_share(self) -> float:
        """Real tokens by padded positions."""
        return float(self.lengths.sum() / sum(batch.mask.size for batch in self.batches))


def fixed_workload(name: str, device: str, vocab_size: int) -> Workload:
    """One batch of random ids, the same in every run."""
    random = np.random.default_rng(0)
    n_rows, longest = _ROWS[device].get(name, 1), _LENGTHS[name]
    lengths = np.full(n_rows, longest)
    if name == "mixed":
        lengths = random.normal(256, 64, n_rows).round().clip(16, 512).astype(int)
    return Workload(name, (_random_batch(lengths, vocab_size, random),))


def training_workload(name: str, size: str, device: str, vocab_size: int, max_length: int) -> Workload:
    """The steps of a turn, all on one batch; a model that is no preset has the batch of base.

    One row of `third` is as long as those of `full`. The lengths of the others grow with the square of their place, so
    that there are many short rows, and come in random order.
    """
    random = np.random.default_rng(0)
    n_rows, longest = _TRAIN_SHAPES.get(size, _TRAIN_SHAPES["base"])
    n_rows, longest = n_rows * (_GPU_ROWS if device == "cuda" else 1), min(longest, max_length)
    lengths = np.full(n_rows, longest)
    if name.endswith("-third"):
        shares = np.square(np.arange(n_rows - 1) + 0.5)
        others = shares / shares.sum() * (n_rows / 3 - 1) * longest
        lengths = random.permutation([longest, *others.round().clip(1).astype(int)])
    return Workload(name, (_random_batch(lengths, vocab_size, random),) * _STEPS_A_TURN)


def _random_batch(lengths: np.ndarray, vocab_size: int, random: np.random.Generator) -> Batch:
    ids = random.integers(min(1000, vocab_size // 2), vocab_size, (len(lengths), lengths.max()))
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    return Batch(ids * mask, mask)


def text_workload(
    name: str, device: str, texts: Sequence[str], tokenizer: ElectraTokenizer, max_length: int
) -> Workload:
    """Batches of neighbouring texts, from places spread evenly over them; all texts where they fill no more.

    Raises:
        ValueError: too few texts for one batch.
    """
    n_rows = _ROWS[device][name]
    n_whole = len(texts) // n_rows
    if n_whole == 0:
        raise ValueError(f"{name} must be at least {n_rows} texts, got {len(texts)}")
    places = np.linspace(0, n_whole - 1, min(_BATCHES, n_whole)).astype(int)
    batches = []
    for place in places:
        some = tuple(texts[place * n_rows : (place + 1) * n_rows])
        columns = tokenizer(some, padding=True, truncation=True, max_length=max_length, return_tensors="np")
        batches.append(Batch(columns["input_ids"], columns["attention_mask"], some))
    return Workload(name, tuple(batches))


def needed_positions(name: str) -> int:
    """The least `max_position_embeddings` for a workload; texts are cut to what there is."""
    return _LENGTHS.get(name, 1)


def read_lines(path: Path) -> tuple[list[str], str]:
    """(the texts of a file, a line that says what was read).

    The texts are its lines; those of a table (.tsv), whose first line names the columns, are its first column.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or a line that is blank.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file of texts: {path}")
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text, got: {error}") from error
    if texts[-1] == "":
        texts.pop()
    what = f"{path.name}: "
    if path.suffix == ".tsv":
        texts = [line.partition("\t")[0] for line in texts]
        what += f"its first column, {texts.pop(0)!r} by its first line, " if texts else ""
    blank = next((number for number, text in enumerate(texts, 1 + (path.suffix == ".tsv")) if not text.strip()), None)
    if blank is not None:
        raise ValueError(f"{path}, line {blank}: expected a text, got a blank line")
    return texts, f"{what}{len(texts):,} texts"


def paragraphs_of_python() -> list[str]:
    """Prose of Python's own documentation, which every installation has."""
    from pydoc_data.topics import topics

    blocks = (" ".join(block.split()) for name in sorted(topics) for block in re.split(r"\n\s*\n", topics[name]))
    return [block for block in blocks if re.fullmatch(r"[A-Z].*\.", block)]


def sentences_of(paragraphs: Sequence[str]) -> list[str]:
    """The sentences of all paragraphs, in their order."""
    return [sentence for text in paragraphs for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", text)]
