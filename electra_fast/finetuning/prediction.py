"""Bulk inference: any number of examples through a fine-tuned network, in constant memory, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import distributed
from tqdm import tqdm

from ..base import ElectraPreTrainedModel
from ..training.distributed import World
from .examples import ChoiceExample, Example, QuestionExample, TaggedExample, TextExample
from .features import Features
from .kinds import Kind
from .saved import Finetuned

# What is read ahead and ordered by length at a time: whichever comes first.
CHUNK_EXAMPLES = 16_384
CHUNK_CHARS = 1 << 22

_In, _Out = TypeVar("_In"), TypeVar("_Out")


@dataclass
class Counts:
    """What has been predicted so far, by all processes; `tokens` are those that the network has read."""

    examples: int = 0
    tokens: int = 0


def predict(
    finetuned: Finetuned,
    examples: Iterable[Example],
    *,
    batch_tokens: int = 8192,
    progress: bool = False,
    world: World | None = None,
    counts: Counts | None = None,
) -> Iterator[dict]:
    """What a network predicts of each example (`Kind.predictions`), in the order of the examples.

    Some thousand examples are read at a time, and so are those after them while the first are computed.

    Args:
        examples: any number of them; they are kept no longer than needed.
        batch_tokens: how many tokens to compute at once; a longer item is computed alone.
        progress: whether to show a bar on stderr.
        world: the processes that share the work; each must be given the same examples, and go through what this
            returns, which is nothing in all but the first.
        counts: is kept up to date, in the first process.

    Raises:
        ValueError: batch_tokens that is not positive; what reading the examples raises.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be positive, got {batch_tokens}")
    counts = Counts() if counts is None else counts
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    model, kind = finetuned.model, finetuned.kind

    def tokenise(chunk: list[Example]) -> tuple[list[Example], Features | None]:
        return chunk, kind.features(chunk, finetuned.tokenizer, finetuned.max_length) if chunk else None

    total = len(examples) if isinstance(examples, Sized) else None
    with tqdm(total=total, unit=" examples", unit_scale=True, disable=not progress or rank > 0) as bar:
        for chunk, features in _one_ahead(tokenise, _own_chunks(examples, rank, size)):
            done: tuple[list[dict], int] = ([], 0)
            if features is not None:
                scores = score_features(model, kind, features, batch_tokens, model.device)
                done = kind.predictions(chunk, features, scores), len(features.input_ids)
            for predictions, n_tokens in [done] if size == 1 else _gathered(done, rank, size):
                yield from predictions
                counts.examples += len(predictions)
                counts.tokens += n_tokens
                bar.update(len(predictions))


@torch.inference_mode()
def score_features(
    model: ElectraPreTrainedModel,
    kind: Kind,
    features: Features,
    batch_tokens: int,
    device: torch.device | str,
    world: World | None = None,
) -> list[Any]:
    """What a network says of each item (`Kind.scores`), in order; the model's training mode is restored.

    Items are computed in batches of similar lengths, without padding. The processes of `world` share them, and all get
    all scores.
    """
    was_training = model.training
    model.eval()
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    found: list[tuple[int, Any]] = []
    for items in islice(batches_by_length(features.item_lengths, batch_tokens), rank, None, size):
        batch = features.batch(items, device)
        hidden = model.electra.encode_packed(batch.input_ids, batch.packed, batch.token_type_ids)
        found += zip(items.tolist(), kind.scores(model, hidden, batch), strict=True)
    model.train(was_training)
    if size > 1:
        parts: list[Any] = [None] * size
        distributed.all_gather_object(parts, found)
        found = [pair for part in parts for pair in part]
    return [score for _, score in sorted(found, key=lambda pair: pair[0])]


def batches_by_length(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """The numbers of all items in batches of at most `batch_tokens` tokens, or of one item; the longest come first.

    A batch that does not fit into memory is then the first one, and what it took serves all others.
    """
    order = np.argsort(-lengths, kind="stable")
    first, n_tokens = 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if place > first and n_tokens + length > batch_tokens:
            yield order[first:place]
            first, n_tokens = place, 0
        n_tokens += length
    if len(order):
        yield order[first:]


def _own_chunks(examples: Iterable[Example], rank: int, size: int) -> Iterator[list[Example]]:
    """Every `size`-th chunk; an empty one where the input ended before this process's turn, so that all take part in
    as many rounds."""
    chunks = _chunks(examples)
    while taken := list(islice(chunks, size)):
        yield taken[rank] if rank < len(taken) else []


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    n_chars = 0
    for example in examples:
        chunk.append(example)
        n_chars += _n_chars(example)
        if len(chunk) == CHUNK_EXAMPLES or n_chars >= CHUNK_CHARS:
            yield chunk
            chunk, n_chars = [], 0
    if chunk:
        yield chunk


def _n_chars(example: Example) -> int:
    match example:
        case TextExample(text=text, pair=pair):
            return len(text) + len(pair or "")
        case TaggedExample(words=words):
            return sum(map(len, words))
        case QuestionExample(question=question, context=context):
            return len(question) + len(context)
        case ChoiceExample(text=text, start=start, endings=endings):
            return sum(len(text) + len(start) + len(ending) for ending in endings)


def _one_ahead(function: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """function(item) of each item, in order; that of the next is computed by a thread meanwhile.

    The items are read here, not there: a thread that waits for input could not be interrupted.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: Future[_Out] | None = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _gathered(value: _In, rank: int, size: int) -> Sequence[_In]:
    """The values of all processes in order, in the first; none in the others."""
    values: list[Any] | None = [None] * size if rank == 0 else None
    distributed.gather_object(value, values)
    return values or []
