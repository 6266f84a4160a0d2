"""Helpers of the tests of the kinds: a tokenizer, networks with transformers' twins, and padded batches for those."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import electra_fast
from electra_fast import ElectraConfig, ElectraTokenizer
from electra_fast.finetuning.data.features import Batch, Features

transformers = pytest.importorskip("transformers")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "a",
    "good",
    "bad",
    "film",
    "play",
    "##ed",
    "##ing",
    "the",
    "not",
    "was",
    "it",
    "they",
    "ran",
    "home",
    "?",
    ".",
)
SHAPE = dict(
    vocab_size=len(SPECIAL) + len(WORDS),
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=37,
    max_position_embeddings=64,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    summary_last_dropout=0.0,
)


def tokenizer() -> ElectraTokenizer:
    return ElectraTokenizer({token: index for index, token in enumerate((*SPECIAL, *WORDS))})


def twins(name: str, kind) -> tuple[torch.nn.Module, torch.nn.Module]:
    """(transformers' network, ours) for a kind: the same weights, all of them random, no dropout."""
    torch.manual_seed(0)
    settings = {**SHAPE, **kind.config_changes()}
    theirs = getattr(transformers, name)(transformers.ElectraConfig(**settings))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter), alpha=0.02)
    ours = getattr(electra_fast, name)(ElectraConfig(**settings))
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


def encode(model: torch.nn.Module, batch: Batch, kind) -> torch.Tensor:
    text = batch.input_ids, batch.packed, batch.token_type_ids
    return model.electra.encode_packed(*text, read=kind.read(batch))


def padded(features: Features, values: np.ndarray, items: list[int], fill: int = 0) -> torch.Tensor:
    """What tokens have, [T], as [rows of the items, longest row] int64."""
    starts = features.row_starts
    rows = [row for item in items for row in range(features.item_rows[item], features.item_rows[item + 1])]
    pieces = [torch.from_numpy(values[starts[row] : starts[row + 1]].astype(np.int64)) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=fill)


def inputs_for_theirs(features: Features, items: list[int]) -> dict[str, torch.Tensor]:
    return {
        "input_ids": padded(features, features.input_ids, items),
        "token_type_ids": padded(features, features.token_type_ids, items),
        "attention_mask": padded(features, np.ones_like(features.input_ids), items),
    }


def assert_same_loss(theirs, ours, kind, features: Features, items: list[int], labels, **inputs) -> None:
    """Our loss over the targets is the mean that transformers computes, and so are the gradients, the head's first."""
    batch = features.batch(items)
    their_loss = theirs(**(inputs or inputs_for_theirs(features, items)), labels=labels).loss
    our_loss = kind.loss(ours, encode(ours, batch, kind), batch) / batch.n_targets
    assert our_loss.dtype == torch.float32
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=1e-5)
    their_loss.backward()
    our_loss.backward()
    expected = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    heads = [name for name in expected if not name.startswith("electra.")]
    assert heads and set(heads) <= found.keys()
    assert "electra.embeddings.word_embeddings.weight" in found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        if name in heads and name.endswith("weight"):  # a gradient of zeros would show nothing
            assert gradient.abs().max() > 1e-3, name


def scores_in_batches(model, kind, features: Features, size: int) -> list:
    """Scores of all items, a few at a time, as a bulk prediction makes them."""
    scores = []
    with torch.no_grad():
        for first in range(0, len(features), size):
            batch = features.batch(range(first, min(first + size, len(features))))
            scores += kind.scores(model, encode(model, batch, kind), batch)
    return scores
