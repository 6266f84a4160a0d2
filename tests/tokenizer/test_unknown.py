"""The warning about text that a vocabulary does not know."""

import warnings

import numpy as np
import pytest

from electra_fast.tokenizer import ElectraTokenizer
from electra_fast.tokenizer.unknown import UnknownTokens

TOKENIZER = ElectraTokenizer(vocab={t: i for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox"])})
PAD, UNK, CLS, SEP, MASK, FOX = range(6)


def warned(*parts):
    """What is said of ids that come in parts."""
    unknown = UnknownTokens(TOKENIZER, "the texts")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for part in parts:
            unknown.count(np.array(part, np.int32))
    assert unknown.has_warned == bool(caught)
    return [str(warning.message) for warning in caught]


def test_more_than_a_tenth_is_told_with_its_share_and_reasons():
    assert warned([FOX] * 9 + [UNK]) == warned([FOX]) == warned([]) == []
    (message,) = warned([FOX] * 8 + [UNK])
    assert message.startswith("11% of the tokens of the texts are [UNK]")
    assert "another language or another casing" in message
    assert warned([UNK])[0].startswith("100%")


def test_special_tokens_and_padding_do_not_count():
    assert warned([CLS, *[FOX] * 9, UNK, SEP]) == []
    assert warned([CLS, SEP, *[MASK] * 50, *[PAD] * 50]) == []
    assert warned([[CLS, FOX, UNK, SEP], [PAD] * 4])[0].startswith("50%")


def test_it_is_told_once_of_all_parts_together():
    assert len(warned([UNK], [UNK, UNK], [FOX, UNK])) == 1
    assert warned([FOX] * 20, [UNK], [UNK]) == []
    assert len(warned([FOX] * 20, [UNK], [UNK] * 9, [UNK])) == 1


@pytest.mark.parametrize("dtype", [np.uint16, np.int64])
def test_ids_of_any_type(dtype):
    unknown = UnknownTokens(TOKENIZER, "the texts")
    with pytest.warns(UserWarning, match=r"75% of the tokens of the texts are \[UNK\]"):
        unknown.count(np.array([CLS, UNK, UNK, UNK, FOX, SEP], dtype))
