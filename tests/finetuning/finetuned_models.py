"""Directories of fine-tuned networks, small and random, of every kind."""

from __future__ import annotations

from pathlib import Path

from tiny_models import TINY, random_model

from electra_fast import ElectraTokenizer
from electra_fast.finetuning.kinds.table import make_kind
from electra_fast.finetuning.saved import save_finetuned

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_LENGTH = 24

# Of each kind: its labels, and options with which it fits networks of 64 positions.
KINDS = {
    "classification": (("no", "maybe", "yes"), {}),
    "regression": ((), {}),
    "multilabel": (("sports", "news"), {}),
    "tagging": (("O", "B-PER", "I-PER"), {}),
    "choice": ((), {}),
    "qa": ((), {"max_question_length": 6, "stride": 5, "has_unanswerable": True, "n_best": 3}),
}


def tokenizer() -> ElectraTokenizer:
    """Words are letters, one token each."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return ElectraTokenizer({piece: number for number, piece in enumerate(pieces)}, model_max_length=512)


def write_finetuned(directory: Path, name: str, head: str = "transformers"):
    """Writes a network of this kind; returns it."""
    labels, options = KINDS[name]
    kind = make_kind(name, labels, options)
    model = random_model(kind.model_class(head), **kind.config_changes())
    save_finetuned(directory, model, name, options, MAX_LENGTH, tokenizer())
    return model


__all__ = ["KINDS", "LETTERS", "MAX_LENGTH", "TINY", "tokenizer", "write_finetuned"]
