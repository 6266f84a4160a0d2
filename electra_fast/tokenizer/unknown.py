"""A warning where a vocabulary does not know the text: its words become [UNK], and results look good for no reason."""

from __future__ import annotations

import warnings

import numpy as np

from .tokenizer import ElectraTokenizer

_LIMIT = 0.1


class UnknownTokens:
    """Counts the tokens of a text that are [UNK], and warns once, when they are more than a tenth of all.

    Special tokens such as [CLS], [SEP], [PAD] and [MASK] are not counted.

    Args:
        tokenizer: the tokenizer that made the tokens.
        text: what it read, in the words of the warning: "the texts".
    """

    def __init__(self, tokenizer: ElectraTokenizer, text: str):
        self._unknown, self._text = tokenizer.unk_token_id, text
        self._special = [index for index in tokenizer.all_special_ids if index != self._unknown]
        self._n_unknown = self._n_tokens = 0
        self.has_warned = False

    def count(self, ids: np.ndarray) -> None:
        """Counts further ids, of any shape; warns if they make [UNK] more than a tenth of all."""
        self._n_unknown += np.count_nonzero(ids == self._unknown)
        self._n_tokens += ids.size - np.count_nonzero(np.isin(ids, self._special))
        if self._n_unknown > _LIMIT * self._n_tokens and not self.has_warned:
            self.has_warned = True
            share = self._n_unknown / self._n_tokens
            warnings.warn(
                f"{share:.0%} of the tokens of {self._text} are [UNK], words that the vocabulary does not know: it may "
                f"be made for another language or another casing, or too small",
                stacklevel=3,
            )
