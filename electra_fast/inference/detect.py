"""Answers of the two networks about text: which words look replaced, and which may stand at a mask."""

from __future__ import annotations

import itertools
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .calibration import Calibration

if TYPE_CHECKING:
    from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
    from ..tokenizer import ElectraTokenizer
    from ..tokenizer.batch_encoding import BatchEncoding

_BATCH_SIZE = 32


@dataclass(frozen=True)
class Word:
    """A word or a punctuation mark of a text, as written there."""

    text: str
    probability: float
    """Probability that it was replaced: the largest of its tokens'."""
    replaced: bool


@dataclass(frozen=True)
class Detection:
    """One text as the discriminator sees it, without special tokens."""

    text: str
    tokens: list[str]
    probabilities: list[float]
    """Probability that each token was replaced."""
    replaced: list[bool]
    """Whether each token's probability is above the threshold."""
    words: list[Word]


@dataclass(frozen=True)
class Filling:
    """One text as the generator completes it: for every mask the likeliest tokens and their probabilities."""

    text: str
    masks: list[list[tuple[str, float]]]


@torch.inference_mode()
def detect(
    model: ElectraForPreTraining, tokenizer: ElectraTokenizer, texts: Sequence[str], threshold: float | None = None
) -> list[Detection]:
    """Tells for every word and token of every text whether it looks replaced.

    Args:
        model: the discriminator. Probabilities are calibrated if its config has a calibration, as `pretrain` writes it.
        texts: the texts; one that is empty has no tokens.
        threshold: the probability above which a token counts as replaced; None: the calibration's, or 0.5.

    Raises:
        ValueError: a text that is too long for the model, a threshold outside [0, 1].
    """
    calibration = Calibration.of(model.config)
    threshold = calibration.threshold if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    detections = []
    for batch, encoded, ids, mask in _batches(model, tokenizer, texts):
        rows = calibration.probabilities(model(input_ids=ids, attention_mask=mask).logits).cpu()
        for row, text in enumerate(batch):
            places = mask[row].nonzero().flatten()[1:-1].tolist()
            tokens = tokenizer.convert_ids_to_tokens(ids[row, places].tolist())
            probabilities = rows[row, places].tolist()
            replaced = [probability > threshold for probability in probabilities]
            words = _words(text, encoded, row, dict(zip(places, probabilities, strict=True)), threshold)
            detections.append(Detection(text, tokens, probabilities, replaced, words))
    return detections


def _words(
    text: str, encoded: BatchEncoding, row: int, probabilities: Mapping[int, float], threshold: float
) -> list[Word]:
    """The words of a text, from the probabilities of its tokens by their places in the row."""
    words = []
    for _, group in itertools.groupby(probabilities, partial(encoded.token_to_word, row)):
        places = list(group)
        start, end = (encoded.token_to_chars(row, place) for place in (places[0], places[-1]))
        probability = max(probabilities[place] for place in places)
        words.append(Word(text[start.start : end.end], probability, probability > threshold))
    return words


@torch.inference_mode()
def fill_mask(
    model: ElectraForMaskedLM, tokenizer: ElectraTokenizer, texts: Sequence[str], top_k: int = 5
) -> list[Filling]:
    """Gives the `top_k` likeliest tokens at every mask of every text.

    Args:
        model: the generator.
        texts: the texts; one that is empty has no masks.

    Raises:
        ValueError: a text that is too long for the model or without a mask, a `top_k` beyond the vocabulary.
    """
    # A model's table may be padded beyond the vocabulary; those rows mean no token.
    vocab_size = min(model.config.vocab_size, tokenizer.n_ids)
    if not 1 <= top_k <= vocab_size:
        raise ValueError(f"top_k must be from 1 to the vocabulary's {vocab_size}, got {top_k}")
    for text in texts:
        if text.strip() and tokenizer.mask_token not in text:
            raise ValueError(f"a text must hold {tokenizer.mask_token}, got {text!r}")
    fillings = []
    for batch, _, ids, mask in _batches(model, tokenizer, texts):
        logits = model(input_ids=ids, attention_mask=mask).logits[..., :vocab_size]
        for text, row_ids, row in zip(batch, ids, logits, strict=True):
            best = row[row_ids == tokenizer.mask_token_id].float().softmax(-1).topk(top_k)
            tokens = [tokenizer.convert_ids_to_tokens(indices) for indices in best.indices.tolist()]
            masks = [list(zip(*pair, strict=True)) for pair in zip(tokens, best.values.tolist(), strict=True)]
            fillings.append(Filling(text, masks))
    return fillings


def format_table(cells: Iterable[tuple[str, str, bool]], width: int | None = None, is_coloured: bool = False) -> str:
    """A table of two rows: a word and what there is to say about it, in columns.

    Args:
        cells: for each column its word, what stands below it, and whether both are marked.
        width: columns of the screen to wrap at; the terminal's by default.
        is_coloured: whether marked cells are bold and red, by the codes of terminals.
    """
    width = width or shutil.get_terminal_size().columns
    lines, columns = [["", ""]], 0
    for *cell, is_marked in cells:
        shown = [_columns(part) for part in cell]
        needed = max(7, max(shown) + 2)
        if columns and columns + needed > width:
            lines.append(["", ""])
            columns = 0
        for row, (part, n_shown) in enumerate(zip(cell, shown, strict=True)):
            coloured = f"\x1b[1;31m{part}\x1b[0m" if is_marked and is_coloured else part
            lines[-1][row] += " " * (needed - n_shown) + coloured
        columns += needed
    return "\n".join(line for pair in lines for line in pair)


def word_cells(detection: Detection) -> list[tuple[str, str, bool]]:
    """Cells for `format_table`: words, their probabilities in per cent, and a star for those that look replaced."""
    return [(word.text, f"{word.probability:.0%}{'*' * word.replaced}", word.replaced) for word in detection.words]


def _columns(text: str) -> int:
    """Columns on the screen: wide characters (Chinese, Japanese, Korean) take two and combining marks none."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _batches(
    model: torch.nn.Module, tokenizer: ElectraTokenizer, texts: Sequence[str]
) -> Iterator[tuple[Sequence[str], BatchEncoding, Tensor, Tensor]]:
    """Yields the texts, their encoding, ids [B, S] and mask [B, S] of each batch."""
    limit = model.config.max_position_embeddings
    for start in range(0, len(texts), _BATCH_SIZE):
        batch = texts[start : start + _BATCH_SIZE]
        encoded = tokenizer(list(batch), padding=True, return_tensors="pt")
        lengths = encoded["attention_mask"].sum(1).tolist()
        for text, length in zip(batch, lengths, strict=True):
            if length > limit:
                raise ValueError(f"a text must have at most {limit} tokens for this model, got {length}: {text[:40]!r}")
        if (largest := int(encoded["input_ids"].max())) >= model.config.vocab_size:
            end = model.config.vocab_size - 1
            raise ValueError(
                f"the tokenizer gives the id {largest}, but the model's vocabulary ends at {end}: not a pair"
            )
        yield batch, encoded, encoded["input_ids"].to(model.device), encoded["attention_mask"].to(model.device)
