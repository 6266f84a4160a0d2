"""Texts or tokenised examples to padded batches, in the form that transformers' Trainer and accelerate move around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..tokenizer import ElectraTokenizer
from .text.windows import word_start_table

_COLUMNS = ("input_ids", "token_type_ids", "attention_mask")


class PretrainingCollator:
    """A data collator for `ElectraForJointPreTraining`: it pads, and leaves masking to the model.

    An example is a text, a mapping that has one under `text_key`, or a mapping with a row of `input_ids` (special
    tokens included) and, if wanted, of `token_type_ids` and `attention_mask`, as a tokenizer makes them; other columns
    are dropped. Trainer itself drops the column of texts, unless it is told `remove_unused_columns=False`.

    Args:
        tokenizer: an ElectraTokenizer, or transformers' tokenizer of a BERT or ELECTRA checkpoint. Trainer writes it
            into its checkpoints.
        max_length: texts are cut to so many tokens; default: the tokenizer's model_max_length. Tokenised examples are
            taken as they are.
        pad_to_multiple_of: rows are as wide as the longest, rounded up to a multiple of this; `max_length` here makes
            all batches equally wide, which accelerate needs where one process hands out batches to others.
        whole_word: also make `word_starts`, by which the model masks whole words.
        text_key: where a mapping has its text.

    Example:
        >>> from electra_fast import ElectraTokenizer
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "walk", "##ing", "home"]
        >>> collate = PretrainingCollator(ElectraTokenizer({word: i for i, word in enumerate(words)}), whole_word=True)
        >>> batch = collate(["walking home", {"input_ids": [2, 7, 3]}])
        >>> batch["input_ids"]
        tensor([[2, 5, 6, 7, 3],
                [2, 7, 3, 0, 0]])
        >>> batch["word_starts"][0]
        tensor([ True,  True, False,  True,  True])
    """

    def __init__(
        self,
        tokenizer: ElectraTokenizer,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        whole_word: bool = False,
        text_key: str = "text",
    ):
        self.tokenizer, self.text_key = tokenizer, text_key
        self.max_length, self.pad_to_multiple_of = max_length, pad_to_multiple_of
        self._starts_word = torch.from_numpy(word_start_table(tokenizer)) if whole_word else None

    def __call__(self, examples: Sequence[str | Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pads a batch.

        Returns:
            `input_ids`, `token_type_ids` and `attention_mask` [B, S] int64, 0 in the mask at padding; with whole_word
            also `word_starts` [B, S] bool.

        Raises:
            TypeError: an example that is neither a text nor a mapping.
            ValueError: a mapping with neither `input_ids` nor a text.
        """
        padded = self.tokenizer.pad(
            [self._row(example) for example in examples],
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors="pt",
        )
        batch = dict(padded)
        if self._starts_word is not None:
            batch["word_starts"] = self._starts_word[batch["input_ids"]]
        return batch

    def _row(self, example: str | Mapping[str, Any]) -> dict[str, Any]:
        """An example's columns, of which there are the same ones for all."""
        if not isinstance(example, str | Mapping):
            raise TypeError(f"an example must be a text or a mapping, got {type(example).__name__}")
        if isinstance(example, str) or self.text_key in example:
            text = example if isinstance(example, str) else example[self.text_key]
            example = self.tokenizer(text, truncation=True, max_length=self.max_length)
        if "input_ids" not in example:
            raise ValueError(
                f"an example must have input_ids, or a text under {self.text_key!r}, got {sorted(example)}; for texts "
                "in a mapping, Trainer needs remove_unused_columns=False"
            )
        row = {name: list(example[name]) for name in _COLUMNS if name in example}
        row.setdefault("token_type_ids", [0] * len(row["input_ids"]))
        row.setdefault("attention_mask", [1] * len(row["input_ids"]))
        return row
