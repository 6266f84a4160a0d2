"""Probabilities of a discriminator: how they are fitted, kept in a config and used."""

import pytest
import torch

from electra_fast import ElectraConfig
from electra_fast.inference.calibration import Calibration, of_words


def made(scale, bias, n=200_000, seed=0):
    """Logits, and labels that are true with the probability sigmoid(scale * logit + bias)."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, generator=random)
    return logits, torch.rand(n, generator=random) < (scale * logits + bias).sigmoid()


@pytest.mark.parametrize(("scale", "bias"), [(0.5, -1.0), (2.0, -3.0)], ids=["overconfident", "shy"])
def test_probabilities_are_those_of_the_labels(scale, bias):
    logits, is_replaced = made(scale, bias)
    found = Calibration.fitted(logits, is_replaced)
    assert (found.scale, found.bias) == pytest.approx((scale, bias), abs=0.05)
    probabilities = found.probabilities(logits)
    for low in (0.1, 0.3, 0.5, 0.7):
        among = (probabilities > low) & (probabilities < low + 0.1)
        assert float(is_replaced[among].float().mean()) == pytest.approx(low + 0.05, abs=0.02)
    assert float((probabilities[~is_replaced] > found.threshold).float().mean()) == pytest.approx(0.02, abs=1e-3)


def test_logits_that_say_nothing_give_no_calibration():
    logits, is_replaced = made(1.0, 0.0, 1000)
    assert Calibration.fitted(logits, ~is_replaced) is None
    assert Calibration.fitted(logits, torch.ones(1000, dtype=torch.bool)) is None


def test_words_that_are_told_apart_without_a_mistake_have_a_calibration_too():
    found = Calibration.fitted(torch.tensor([-1.0, -2.0, 3.0, 4.0]), torch.tensor([False, False, True, True]))
    assert found.probabilities(torch.tensor([-1.0, 3.0])).round().tolist() == [0, 1]


def test_a_config_keeps_it(tmp_path):
    assert Calibration.of(ElectraConfig()) == Calibration(scale=1.0, bias=0.0, threshold=0.5)
    config, calibration = ElectraConfig(), Calibration(scale=0.7, bias=-1.5, threshold=0.25)
    calibration.write(config)
    config.save_pretrained(tmp_path)
    assert Calibration.of(ElectraConfig.from_pretrained(tmp_path)) == calibration


@pytest.mark.parametrize(
    "value", [3, {"scale": 1.0}, {"scale": 1.0, "bias": "x", "threshold": 0.5}], ids=["number", "missing", "text"]
)
def test_a_config_with_something_else_is_refused(value):
    with pytest.raises(ValueError, match=r"detection in config\.json must be numbers scale, bias, threshold, got"):
        Calibration.of(ElectraConfig(detection=value))


def test_a_word_has_the_largest_value_of_its_tokens():
    values = torch.tensor([1.0, 5.0, 2.0, -3.0, -1.0])
    starts = torch.tensor([True, True, False, True, False])
    assert of_words(values, starts).tolist() == [1.0, 5.0, -1.0]
