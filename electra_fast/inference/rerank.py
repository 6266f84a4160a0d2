"""Passages in the order of their relevance to a query, by a network that reads both together (a CrossEncoder)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..disk import read_json_object
from ..hub.files import find_file
from ..model.base import prepack_if_served
from ..model.modeling import ElectraForSequenceClassification
from ..model.packing import ranges
from ..ops import Impl
from ..tokenizer import ElectraTokenizer
from .batching import BATCH_TOKENS, Counts
from .bulk import Batch, Rows, TextNetwork, check_text, kind_of, load_network
from .sentence_modules import MODEL_FILE, activation, check_case, listed_modules, read_prompts, read_transformer

# The options of a Transformer that gives logits.
_LOGITS = {
    "transformer_task": "sequence-classification",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "scores",
}


class Ranked(NamedTuple):
    """A passage by its number among all passages, and its score."""

    index: int
    score: float


def rerank(
    query: str,
    passages: Iterable[str],
    model: str | os.PathLike | ElectraForSequenceClassification,
    tokenizer: ElectraTokenizer | None = None,
    *,
    top_k: int | None = None,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> list[Ranked]:
    """Scores every passage together with the query, and gives the best passages first.

    Args:
        query: the query; it is tokenised once.
        passages: any number of passages.
        model: a directory or a name on the Hub, of a CrossEncoder of sentence-transformers or of a network that was
            fine-tuned for one number; or such a network in memory.
        tokenizer: the tokenizer, needed for a model in memory. Default: the one beside the model.
        top_k: how many passages to give. Default: all.
        max_length: number of tokens that a pair is cut to, the longer text first, special tokens included. Default:
            the most that tokenizer and model can take.
        batch_tokens: number of tokens to compute at once; a longer pair is computed alone.
        progress: whether to show a bar on stderr.

    Returns:
        Numbers and scores of the passages, equal scores in the order of the passages. A score is what `CrossEncoder`
        gives: the network's output after the activation that the directory names, by default the sigmoid.

    Raises:
        TypeError: texts that are not str, a model or tokenizer of another library.
        ValueError: a query that alone is longer than a pair may be, a network with several outputs, a CrossEncoder
            with further modules or a prompt of its own, top_k or batch_tokens that is not positive, a max_length that
            the model cannot take, half of a surrogate pair in a text.
        FileNotFoundError: no such model.
    """
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be positive, got {top_k}")
    if isinstance(model, (str, os.PathLike)):
        reranker = load_reranker(model, tokenizer, max_length=max_length, batch_tokens=batch_tokens)
    else:
        reranker = _of_model(model, tokenizer, nn.Sigmoid(), max_length=max_length, batch_tokens=batch_tokens)
    return reranker(query, passages, progress=progress)[:top_k]


def load_reranker(
    name_or_path: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    device: str | torch.device = "auto",
    dtype: str | None = None,
    impl: Impl = "auto",
) -> Reranker:
    """All that `rerank` needs of a directory or a name on the Hub, loaded once for any number of queries.

    Arguments and errors are those of `rerank` and `load_encoder`.
    """
    subfolder, own_length, lowercases = "", None, False
    listed = find_file(name_or_path, "modules.json", required=False)
    if listed is not None:
        kinds = listed_modules(listed)
        if [kind for kind, _ in kinds] != ["Transformer"]:
            found = ", ".join(kind for kind, _ in kinds) or "nothing"
            raise ValueError(
                f"{listed} must list a Transformer alone, as a CrossEncoder of this kind does, got {found}"
            )
        subfolder = kinds[0][1]
        own_length, lowercases = read_transformer(name_or_path, subfolder, _LOGITS)
    model, own_tokenizer = load_network(
        ElectraForSequenceClassification,
        name_or_path,
        "a network for sequence classification",
        subfolder=subfolder,
        device=device,
        dtype=dtype,
        impl=impl,
    )
    check_case(name_or_path, lowercases, own_tokenizer)
    prepack_if_served(model)
    return _of_model(
        model,
        own_tokenizer if tokenizer is None else tokenizer,
        _saved_activation(name_or_path, subfolder),
        max_length=own_length if max_length is None else max_length,
        batch_tokens=batch_tokens,
    )


def _saved_activation(name_or_path: str | os.PathLike, subfolder: str) -> nn.Module:
    """What CrossEncoder applies to logits: it is named in one of two files, in one of three ways."""
    about = find_file(name_or_path, MODEL_FILE, required=False)
    prompts, default = read_prompts(about, "CrossEncoder")
    if default is not None and prompts[default]:
        raise ValueError(
            f"{about} must have no default prompt, got {default!r:.80}: load it with sentence-transformers"
        )
    path = find_file(name_or_path, "config.json", subfolder=subfolder)
    config = read_json_object(path)
    ours = config.get("sentence_transformers")
    named: tuple[tuple[Path | None, Any], ...] = (
        (about, None if about is None else read_json_object(about).get("activation_fn")),
        (path, ours.get("activation_fn") if isinstance(ours, dict) else None),
        (path, config.get("sbert_ce_default_activation_function")),
    )
    return next((activation(file, name) for file, name in named if name is not None), nn.Sigmoid())


def _of_model(
    model: ElectraForSequenceClassification, tokenizer: ElectraTokenizer | None, function: nn.Module, **options: Any
) -> Reranker:
    if not isinstance(model, ElectraForSequenceClassification):
        raise TypeError(
            f"model must be a directory, a name on the Hub or an ElectraForSequenceClassification of electra_fast, got "
            f"{kind_of(model)}"
        )
    if model.config.num_labels != 1:
        raise ValueError(f"the model must have one output, the relevance, got {model.config.num_labels}")
    if tokenizer is None:
        raise TypeError("a model in memory needs its tokenizer beside it: rerank(query, passages, model, tokenizer)")
    return Reranker(
        encoder=model.electra, classifier=model.classifier, tokenizer=tokenizer, activation=function, **options
    )


@dataclass(frozen=True, kw_only=True)
class Reranker(TextNetwork):
    """An encoder, its head and a tokenizer that score passages; arguments and errors are those of `rerank`."""

    classifier: nn.Module
    """From hidden states [rows, tokens, H] to logits [rows, 1]."""
    activation: nn.Module = field(default_factory=nn.Sigmoid)

    noun: ClassVar[str] = "passages"
    least: ClassVar[int] = 3
    size: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        frame = self.tokenizer([""], [""], return_token_type_ids=True)
        ids, types = frame["input_ids"][0], frame["token_type_ids"][0]
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        if ids != [cls, sep, sep] or types != [0, 0, 1]:
            raise ValueError(
                f"the tokenizer must make [CLS] query [SEP] passage [SEP] of a pair, with the types 0 and 1; an empty "
                f"pair becomes {ids} with {types}"
            )

    def __call__(
        self, query: str, passages: Iterable[str], *, progress: bool = False, counts: Counts | None = None
    ) -> list[Ranked]:
        """All passages with their scores, the best first; `counts` is kept up to date."""
        check_text(query, "the query")
        asked = self.tokenizer.encode_bulk([query])[0]
        if len(asked) + 1 > self.longest:
            raise ValueError(
                f"the query must have at most {self.longest - 3} tokens, for pairs of {self.longest}, "
                f"got {len(asked) - 2}: {query!r:.80}"
            )
        parts = self._stream(passages, partial(self._pairs, asked), progress, counts)
        scores = np.concatenate([np.empty((0, 1), np.float32), *parts])[:, 0]
        best = np.argsort(-scores, kind="stable")
        return [Ranked(index, score) for index, score in zip(best.tolist(), scores[best].tolist(), strict=True)]

    def _pairs(self, query: np.ndarray, passages: list[str]) -> Rows:
        """The rows [CLS] query [SEP] passage [SEP] of a tokenised query, [CLS] query [SEP]."""
        ids, starts = self.tokenizer.encode_bulk(passages, num_threads=1)
        n_query, n_passages = _cut(len(query) - 2, np.diff(starts) - 2, self.longest - 3)
        keeps_end = self.tokenizer.truncation_side == "left"
        # Each row is parts of two arrays that are laid out as one: the query's, then the passages'.
        source = np.concatenate([query, ids])
        n_rows, zeros = len(passages), np.zeros_like(n_query)
        first = zeros + (len(query) - 1) - n_query if keeps_end else zeros + 1
        begins = len(query) + (starts[1:] - 1 - n_passages if keeps_end else starts[:-1] + 1)
        last = zeros + len(query) - 1
        parts = np.stack([zeros, first, last, begins, last], axis=1)
        sizes = np.stack([zeros + 1, n_query, zeros + 1, n_passages, zeros + 1], axis=1)
        types = np.broadcast_to(np.array([0, 0, 0, 1, 1], np.uint8), (n_rows, 5))
        tokens = ranges(parts.ravel(), sizes.ravel())
        return Rows(source[tokens], np.repeat(types.ravel(), sizes.ravel()), sizes.sum(1))

    def _results(self, batch: Batch) -> Tensor:
        first = self.encoder.encode_packed(
            batch.ids, batch.packed, batch.type_ids, read=batch.packed.cu_seqlens[:-1].long()
        )
        return self.activation(self.classifier(first[:, None]).float())


def _cut(n_query: int, n_passages: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of query and passages remain, [passages] each: the longer one gives tokens first.

    This is the rule of `truncation="longest_first"`.
    """
    less, more = np.minimum(n_query, n_passages), np.maximum(n_query, n_passages)
    more = np.where(less + more > room, np.maximum(less, room - less), more)
    is_over = less + more > room
    less, more = np.where(is_over, room // 2, less), np.where(is_over, room - room // 2, more)
    return np.where(n_query <= n_passages, less, more), np.where(n_query <= n_passages, more, less)
