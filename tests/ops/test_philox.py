"""The shared random bits: known answers, rate, independence."""

import pytest
import torch

from electra_fast.ops import philox, reference

ZERO = torch.zeros(1, dtype=torch.long)
ONES = torch.tensor([0xFFFFFFFF])


def words(rounds, monkeypatch, seed, counter):
    monkeypatch.setattr(philox, "_ROUNDS", rounds)
    return [f"{word:08x}" for word in philox.philox(seed, *counter)[0].tolist()]


def test_known_answers(monkeypatch):
    """The vectors that Random123, the authors' library, comes with, where the fourth counter is zero."""
    zeros = (ZERO, ZERO, ZERO)
    assert words(7, monkeypatch, ZERO, zeros) == ["5f6fb709", "0d893f64", "4f121f81", "4f730a48"]
    assert words(10, monkeypatch, ZERO, zeros) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_rate(p):
    n_rows, n_columns = 500, 333
    keep = philox.keep_mask(torch.tensor([12345]), torch.arange(n_rows), n_columns, p)
    n = n_rows * n_columns
    assert abs(keep.float().mean().item() - (1 - p)) <= 4 * (p * (1 - p) / n) ** 0.5 + 2**-17


def test_neighbours_rows_heads_and_seeds_are_independent():
    heads, rows = torch.arange(3), torch.arange(400)
    draws = torch.stack([philox.keep_mask(torch.tensor([seed]), rows, 256, 0.3, heads) for seed in (1, 2, 2**40)])
    x = (draws.float() - draws.float().mean()) / draws.float().std()
    pairs = {
        "seeds": (x[0], x[1]),
        "high bits of the seed": (x[0], x[2]),
        "heads": (x[:, 0], x[:, 1]),
        "rows": (x[:, :, 1:], x[:, :, :-1]),
        **{f"columns {lag} apart": (x[..., lag:], x[..., :-lag]) for lag in (1, 2, 4, 7, 8, 16)},
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean().item()) < 4 / a.numel() ** 0.5, name


def test_a_seeded_dropout_keeps_the_mean_and_the_gradient():
    x = torch.ones(300, 40, requires_grad=True)
    y = reference.dropout(x, 0.25, torch.tensor([9]))
    assert abs(y.mean().item() - 1) < 0.02
    assert set(y.unique().tolist()) == {0.0, torch.tensor(philox.keep_scale(0.25)).item()}
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert reference.dropout(x, 1.0, torch.tensor([9])).abs().sum() == 0
