"""The calibration of a discriminator, on held-out text in which its generator replaced whole words."""

from __future__ import annotations

import torch
from torch import Tensor

from ..inference.calibration import Calibration, of_words
from ..model.packing import PackedBatch
from .networks.objective import ElectraPretrainingModel

_BATCH_TOKENS = 2_048


@torch.no_grad()
def calibrate(
    model: ElectraPretrainingModel, sequences: Tensor, word_starts: Tensor, seed: int = 1
) -> Calibration | None:
    """The calibration by words that are sampled at temperature 1, as strange as the generator finds them likely.

    Args:
        model: both networks; objective "electra".
        sequences: [n, S] int64, full sequences of held-out text.
        word_starts: [vocabulary] bool, the tokens that begin a word.

    Returns:
        The calibration; None for a discriminator that says nothing.
    """
    random, device = torch.Generator().manual_seed(seed), model.is_special.device
    was_training, temperature = model.training, model.temperature
    model.eval()
    model.temperature = 1.0
    logits, is_replaced = [], []
    for batch in sequences.split(max(1, _BATCH_TOKENS // sequences.shape[1])):
        ids = batch.flatten().to(device)
        starts = word_starts.to(device)[ids]
        packed = PackedBatch.full(*batch.shape, device)
        output = model(ids, packed, random=random, word_starts=None if model.replacement else starts)
        is_word = of_words(output.is_candidate.float(), starts) > 0
        logits.append(of_words(output.logits.float(), starts)[is_word])
        is_replaced.append(of_words(output.is_replaced.float(), starts)[is_word] > 0)
    model.train(was_training)
    model.temperature = temperature
    return Calibration.fitted(torch.cat(logits), torch.cat(is_replaced))
