"""Pooling of packed texts: each mode against its formula, a text at a time, in fp64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.inference.pooling import POOLINGS, pooled

# By mode: the vector of the states [n, H] that are read, whose first has the number `first` in its text, from 1.
FORMULAS = {
    "cls": lambda states, first: states[0],
    "lasttoken": lambda states, first: states[-1],
    "mean": lambda states, first: states.mean(0),
    "max": lambda states, first: states.max(0),
    "mean_sqrt_len_tokens": lambda states, first: states.sum(0) / np.sqrt(len(states)),
    "weightedmean": lambda states, first: np.average(states, axis=0, weights=first + np.arange(len(states))),
}


@pytest.mark.parametrize("mode", POOLINGS)
@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), n_skipped=st.integers(0, 10))
def test_every_mode_is_its_formula(mode, lengths, n_skipped):
    hidden = np.random.default_rng(0).standard_normal((sum(lengths), 5))
    expected = []
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        skipped = min(n_skipped, length - 1)
        expected.append(FORMULAS[mode](hidden[end - length + skipped : end], skipped + 1))
    found = pooled(torch.from_numpy(hidden).float(), np.array(lengths), mode, n_skipped)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
