"""Bulk inference: any number of examples through a fine-tuned network, in constant memory, in the order they came."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import distributed
from tqdm import tqdm

from ..inference.batching import BATCH_TOKENS, Counts, batches_by_length, chunks, one_ahead
from ..model.base import ElectraPreTrainedModel, prepack_if_served
from ..model.precision import DTYPES, default_precision
from ..model.pretrained import resolve_device
from ..ops import Impl
from ..tokenizer.unknown import UnknownTokens
from ..training.distributed import World
from .data.examples import ChoiceExample, Example, QuestionExample, TaggedExample, TextExample
from .data.features import Features
from .kinds.kind import Kind
from .saved import Finetuned, load_finetuned

_T = TypeVar("_T")


def load_for_prediction(
    path: str | os.PathLike, *, device: str | torch.device = "auto", precision: str | None = None, impl: Impl = "auto"
) -> Finetuned:
    """A fine-tuned network that only predicts: in the precision of its device, on a CPU with prepacked weights.

    Args:
        precision: "fp32", "bf16" or "fp16". Default: bf16 on a GPU, fp32 on a CPU.

    Raises:
        FileNotFoundError: as `load_finetuned`.
        ValueError: as `load_finetuned`, or another precision.
    """
    if precision is not None and precision not in DTYPES:
        raise ValueError(f"precision must be one of {', '.join(DTYPES)}, got {precision!r}")
    device = resolve_device(device)
    dtype = DTYPES[precision or default_precision(device)]
    finetuned = load_finetuned(path, device=device, impl=impl, dtype=dtype)
    prepack_if_served(finetuned.model)
    return finetuned


def predict(
    finetuned: Finetuned,
    examples: Iterable[Example],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
    world: World | None = None,
    counts: Counts | None = None,
) -> Iterator[dict]:
    """Yields what a network predicts for each example (`Kind.predictions`), in the order of the examples.

    The examples are read in chunks of some thousand. While one chunk is computed, the next is read.

    Args:
        examples: any number of examples, kept no longer than needed.
        batch_tokens: how many tokens to compute in one batch; a longer item is computed alone.
        progress: whether to show a bar on stderr.
        world: the processes that share the work. All must be given the same examples and must exhaust this iterator,
            which yields predictions in the first process only.
        counts: the counts to keep up to date, in the first process.

    Raises:
        ValueError: batch_tokens is not positive. Errors of reading the examples are raised as they are.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens must be positive, got {batch_tokens}")
    counts = Counts() if counts is None else counts
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    model, kind = finetuned.model, finetuned.kind

    def tokenise(chunk: list[Example]) -> tuple[list[Example], Features | None]:
        return chunk, kind.features(chunk, finetuned.tokenizer, finetuned.max_length) if chunk else None

    total = len(examples) if isinstance(examples, Sized) else None
    unknown = UnknownTokens(finetuned.tokenizer, "the examples")
    shows_bar = progress and rank == 0 and sys.stderr is not None
    with tqdm(total=total, unit=" examples", unit_scale=True, disable=not shows_bar) as bar:
        for chunk, features in one_ahead(tokenise, _own_chunks(examples, rank, size)):
            done: tuple[list[dict], int] = ([], 0)
            if features is not None:
                if rank == 0:
                    unknown.count(features.input_ids)
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
    """A network's scores for each item (`Kind.scores`), in order; the model's training mode is restored.

    Items are computed in batches of similar lengths, without padding. The processes of `world` share the batches, and
    every process gets all scores.
    """
    was_training = model.training
    model.eval()
    rank, size = (0, 1) if world is None else (world.rank, world.size)
    found: list[tuple[int, Any]] = []
    for items in islice(batches_by_length(features.item_lengths, batch_tokens), rank, None, size):
        batch = features.batch(items, device)
        text = batch.input_ids, batch.packed, batch.token_type_ids
        hidden = model.electra.encode_packed(*text, read=kind.read(batch))
        found += zip(items.tolist(), kind.scores(model, hidden, batch), strict=True)
    model.train(was_training)
    if size > 1:
        parts: list[Any] = [None] * size
        distributed.all_gather_object(parts, found)
        found = [pair for part in parts for pair in part]
    return [score for _, score in sorted(found, key=lambda pair: pair[0])]


def _own_chunks(examples: Iterable[Example], rank: int, size: int) -> Iterator[list[Example]]:
    """Every `size`-th chunk, beginning with number `rank`.

    If the input ends before this process's turn, its last chunk is empty: all processes must take part in every round.
    """
    all_chunks = chunks(examples, _n_chars)
    while taken := list(islice(all_chunks, size)):
        yield taken[rank] if rank < len(taken) else []


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


def _gathered(value: _T, rank: int, size: int) -> Sequence[_T]:
    """Returns the values of all processes, in order, to the first process, and nothing to the others."""
    values: list[Any] | None = [None] * size if rank == 0 else None
    distributed.gather_object(value, values)
    return values or []
