"""Answers of the two networks about text: which tokens look replaced, and which may stand at a mask."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model.modeling import ElectraForMaskedLM, ElectraForPreTraining
    from ..tokenizer import ElectraTokenizer

_BATCH_SIZE = 32


@dataclass(frozen=True)
class Detection:
    """One text as the discriminator sees it; each sequence has one item per token, without special tokens."""

    text: str
    tokens: list[str]
    probabilities: list[float]
    """Probability that each token was replaced."""
    replaced: list[bool]


@dataclass(frozen=True)
class Filling:
    """One text as the generator completes it: for every mask the likeliest tokens and their probabilities."""

    text: str
    masks: list[list[tuple[str, float]]]


@torch.inference_mode()
def detect(
    model: ElectraForPreTraining, tokenizer: ElectraTokenizer, texts: Sequence[str], threshold: float = 0.5
) -> list[Detection]:
    """Tells for every token of every text whether it looks replaced.

    Args:
        model: the discriminator.
        texts: the texts; one that is empty has no tokens.
        threshold: the probability above which a token counts as replaced.

    Raises:
        ValueError: a text that is too long for the model, a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    detections = []
    for batch, ids, mask in _batches(model, tokenizer, texts):
        probabilities = model(input_ids=ids, attention_mask=mask).logits.float().sigmoid()
        for text, row_ids, row_mask, row in zip(batch, ids, mask.bool(), probabilities, strict=True):
            tokens = tokenizer.convert_ids_to_tokens(row_ids[row_mask][1:-1].tolist())
            values = row[row_mask][1:-1].tolist()
            detections.append(Detection(text, tokens, values, [value > threshold for value in values]))
    return detections


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
    for batch, ids, mask in _batches(model, tokenizer, texts):
        logits = model(input_ids=ids, attention_mask=mask).logits[..., :vocab_size]
        for text, row_ids, row in zip(batch, ids, logits, strict=True):
            best = row[row_ids == tokenizer.mask_token_id].float().softmax(-1).topk(top_k)
            tokens = [tokenizer.convert_ids_to_tokens(indices) for indices in best.indices.tolist()]
            masks = [list(zip(*pair, strict=True)) for pair in zip(tokens, best.values.tolist(), strict=True)]
            fillings.append(Filling(text, masks))
    return fillings


def format_table(detection: Detection, width: int | None = None) -> str:
    """The model card's table: tokens and, under each, 1 where it looks replaced and 0 elsewhere.

    Args:
        width: columns to wrap at; the terminal's by default.
    """
    width = width or shutil.get_terminal_size().columns
    lines, columns = [["", ""]], 0
    for token, replaced in zip(detection.tokens, detection.replaced, strict=True):
        # Wide characters (Chinese, Japanese, Korean) take two columns and combining marks none.
        shown = sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in token)
        cell = max(7, shown + 2)
        if columns and columns + cell > width:
            lines.append(["", ""])
            columns = 0
        lines[-1][0] += " " * (cell - shown) + token
        lines[-1][1] += f"{int(replaced):>{cell}}"
        columns += cell
    return "\n".join(line for pair in lines for line in pair)


def _batches(
    model: torch.nn.Module, tokenizer: ElectraTokenizer, texts: Sequence[str]
) -> Iterator[tuple[Sequence[str], Tensor, Tensor]]:
    """Yields the texts, ids [B, S] and mask [B, S] of each batch."""
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
        yield batch, encoded["input_ids"].to(model.device), encoded["attention_mask"].to(model.device)
