"""A collator that turns texts or tokenised examples into padded batches for transformers' Trainer and accelerate."""

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

    An example is a text, a mapping with a text under `text_key`, or a mapping with `input_ids` (special tokens
    included) and optionally `token_type_ids` and `attention_mask`, as a tokenizer makes them. Other columns are
    dropped. Trainer drops the column of texts too, unless it gets `remove_unused_columns=False`.

    Args:
        tokenizer: an ElectraTokenizer, or transformers' tokenizer of a BERT or ELECTRA checkpoint. Trainer writes it
            into its checkpoints.
        max_length: most tokens of a text, which is cut there; default: the tokenizer's model_max_length. Tokenised
            examples are not cut.
        pad_to_multiple_of: divisor of the rows' width, which is the longest row rounded up. With `max_length` as the
            divisor all batches are equally wide, as accelerate needs if one process distributes batches to others.
        whole_word: whether to make `word_starts` too, with which the model masks whole words.
        text_key: key of the text in a mapping.

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
            `input_ids`, `token_type_ids` and `attention_mask` [B, S] int64, with a mask of 0 at padding; with
            whole_word also `word_starts` [B, S] bool.

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
        """An example's columns, the same ones for all examples."""
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
