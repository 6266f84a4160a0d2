"""Larger vocabularies for other domains: old entries keep their ids, new ones start as the mean of their pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..tokenizer import ElectraTokenizer
from .text.vocab import train_vocab


def extended_tokenizer(tokenizer: ElectraTokenizer, documents: Sequence[str], n_new: int) -> ElectraTokenizer:
    """A tokenizer with up to `n_new` more entries: those that shorten the documents most.

    The candidates are words and pieces of a vocabulary trained on the documents by the tokenizer's own rules (case,
    accents). A candidate's gain is its count, in a tokenization with all candidates, times the tokens it saves. Old
    entries keep their ids; new ones follow, the most useful first. An added token joins the vocabulary under its id, so
    that vocab.txt holds every entry. A small corpus may give fewer entries than asked for.

    Raises:
        ValueError: an `n_new` that is not positive, or documents without a word.
    """
    if n_new < 1:
        raise ValueError(f"n_new must be positive, got {n_new}")
    n_old, known = tokenizer.n_ids, tokenizer.get_vocab()
    # Without lower-casing, the trainer's own normalizer does not change text that is already normalized.
    backend = tokenizer.backend_tokenizer
    texts = [backend.normalizer.normalize_str(text) for text in documents]
    # If the documents give this many entries, at least n_new of them are not among the old ones.
    trained = train_vocab(texts, n_old + n_new, lowercase=False, max_word_chars=backend.model.max_input_chars_per_word)
    candidates = [token for token in trained if token not in known]

    # A vocabulary grows by merging, so it has pieces of frequent words that occur nowhere else. These pieces have no
    # gain, and neither have the special tokens that training puts first.
    everything = _with_entries(tokenizer, candidates)
    ids = everything.encode_bulk(documents, add_special_tokens=False)[0]
    counts = np.bincount(ids, minlength=everything.n_ids)[n_old:].tolist()
    pieces = pieces_of_new(everything, n_old)
    gains = [count * max(1, len(split) - 1) for count, split in zip(counts, pieces, strict=True)]
    best = sorted(range(len(candidates)), key=lambda i: (-gains[i], i))[:n_new]
    return _with_entries(tokenizer, [candidates[i] for i in best if gains[i]])


def _with_entries(tokenizer: ElectraTokenizer, entries: Sequence[str]) -> ElectraTokenizer:
    vocab = tokenizer.get_vocab()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"] = vocab | {token: index for index, token in enumerate(entries, tokenizer.n_ids)}
    return type(tokenizer)(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **tokenizer._settings())


def pieces_of_new(tokenizer: ElectraTokenizer, n_old: int) -> list[list[int]]:
    """Splits each entry from id `n_old` on into ids of entries before `n_old`.

    Pieces are found as in WordPiece, the longest first; an entry that cannot be split has none.
    """
    vocab = tokenizer.get_vocab()
    old = {token: index for token, index in vocab.items() if index < n_old}
    prefix = tokenizer.backend_tokenizer.model.continuing_subword_prefix
    new = sorted((index, token) for token, index in vocab.items() if index >= n_old)
    return [_split(token, old, prefix) for _, token in new]


def _split(token: str, vocab: Mapping[str, int], prefix: str) -> list[int]:
    pieces, rest = [], token
    while rest:
        lengths = range(len(rest), len(prefix) if rest.startswith(prefix) else 0, -1)
        length = next((n for n in lengths if rest[:n] in vocab), None)
        if length is None:
            return []
        pieces.append(vocab[rest[:length]])
        rest = rest[length:] and prefix + rest[length:]
    return pieces


def extended_rows(table: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    """Adds a row to a table or bias [V, ...] for each new entry, the mean of its pieces' rows: [V + len(pieces), ...].

    Source: Gee et al. 2022, "Fast Vocabulary Transfer for Language Model Compression", section 3. An entry without
    pieces gets the mean of all rows (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
    With such means in embedding and output bias, a new entry's logit is the mean of its pieces' logits. Fresh rows
    would have logits near 0, which can be far above all others.
    """
    rows = [table[list(ids)].mean(0) if ids else table.mean(0) for ids in pieces]
    return torch.cat([table, torch.stack(rows)]) if rows else table
