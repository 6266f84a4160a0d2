"""The calibration that a run leaves in its discriminator's config."""

import json
from dataclasses import replace

import pytest
import torch

from electra_fast.inference.calibration import Calibration
from electra_fast.pretraining import Corpus, preset, pretrain
from electra_fast.pretraining.calibrate import calibrate
from electra_fast.pretraining.networks.objective import ElectraPretrainingOutput


class Known(torch.nn.Module):
    """Networks that replace one word in eight and see it with a known certainty: log-odds of 3 times the logit, less 1.

    The vocabulary is 0, special, 1 to 9, beginnings of words, and 10 to 19, what follows them.
    """

    replacement, temperature = False, 2.0

    def __init__(self):
        super().__init__()
        self.is_special = torch.arange(20) == 0
        self.temperatures = []

    def forward(self, ids, packed, random, word_starts):
        assert torch.equal(word_starts, ids < 10) and not self.training
        self.temperatures.append(self.temperature)
        logits = torch.randn(len(ids), generator=random)
        is_replaced = torch.rand(len(ids), generator=random) < (3 * logits - 1).sigmoid()
        # What follows in a word is no stronger sign than its beginning.
        logits[ids >= 10], is_replaced[ids >= 10] = -9.0, False
        return ElectraPretrainingOutput(logits=logits, is_replaced=is_replaced, is_candidate=~self.is_special[ids])


def test_it_is_that_of_words_at_temperature_1():
    model = Known().train()
    sequences = torch.randint(1, 20, (2000, 32), generator=torch.Generator().manual_seed(0))
    sequences[:, 0] = sequences[:, -1] = 0
    sequences[:, 1] = 5
    found = calibrate(model, sequences, torch.arange(20) < 10)
    assert (found.scale, found.bias) == pytest.approx((3, -1), abs=0.15)
    assert set(model.temperatures) == {1.0} and model.temperature == 2.0 and model.training


@pytest.mark.parametrize("objective", ["electra", "electric"])
def test_a_run_leaves_it_in_the_config(tmp_path, objective):
    texts = [f"the {word} of number {i} is a text of {i % 7} words" for i in range(300) for word in ("end", "name")]
    recipe = replace(preset("tiny"), objective=objective, temperature=1.0, num_hidden_layers=1, seq_length=16)
    pretrain(recipe, Corpus.from_texts(texts), tmp_path, n_steps=30, log_every=10, device="cpu")
    config = json.loads((tmp_path / "discriminator" / "config.json").read_text(encoding="utf-8"))
    assert ("detection" in config) == (objective == "electra")
    assert objective == "electric" or config["detection"].keys() == Calibration.__dataclass_fields__.keys()
