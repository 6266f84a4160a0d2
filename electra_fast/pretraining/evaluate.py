"""How well the two networks do on held-out text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..packing import PackedBatch
from .corpus import TokenSequences
from .objective import ElectraPretrainingModel

# Enough for two digits of an AUC; a pass over all held-out text of a large corpus would tell no more.
_MAX_TOKENS = 32_768
_BATCH_TOKENS = 2_048


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over held-out text, with dropout off and the same masks every time."""

    n_tokens: int
    n_masked: int
    generator_loss: float
    """Cross-entropy a masked token, in nats."""
    generator_accuracy: float
    """Share of the masked tokens where the likeliest token is the true one."""
    unigram_accuracy: float
    """The same for the best constant guess: always the token that is most frequent among these masked tokens."""
    discriminator_loss: float
    """Binary cross-entropy a token, in nats."""
    discriminator_auc: float
    """Probability that a replaced token gets a higher score than an original one; 0.5 is chance. Special tokens, which
    are never replaced and told at once, are left out: in short sequences they alone would make 0.54 of it."""
    replaced_share: float
    """Share of the other tokens that the generator replaced."""


@torch.no_grad()
def evaluate(model: ElectraPretrainingModel, sequences: TokenSequences, seed: int = 0) -> Evaluation:
    """Evaluates on (up to 32,768 tokens of) `sequences`; the model's training mode is restored."""
    device = model.is_special.device
    random = torch.Generator().manual_seed(seed)
    batch_size = max(1, _BATCH_TOKENS // sequences.seq_length)
    max_sequences = max(1, _MAX_TOKENS // sequences.seq_length)
    n_tokens = n_masked = n_correct = 0
    generator_loss = discriminator_loss = 0.0
    logits, is_replaced, targets = [], [], []
    was_training = model.training
    model.eval()
    for batch in sequences.batches(batch_size, max_sequences):
        packed = PackedBatch.full(*batch.shape, device)
        output = model(batch.flatten().to(device), packed, random=random)
        n_used = int(output.is_used.sum())
        n_masked += n_used
        n_tokens += batch.numel()
        n_correct += int(output.is_correct.sum())
        generator_loss += float(output.generator_loss) * n_used
        discriminator_loss += float(output.discriminator_loss) * batch.numel()
        logits.append(output.logits[output.is_candidate].float().cpu())
        is_replaced.append(output.is_replaced[output.is_candidate].cpu())
        targets.append(output.targets[output.is_used].cpu())
    model.train(was_training)
    return Evaluation(
        n_tokens=n_tokens,
        n_masked=n_masked,
        generator_loss=generator_loss / n_masked,
        generator_accuracy=n_correct / n_masked,
        unigram_accuracy=int(torch.cat(targets).bincount().max()) / n_masked,
        discriminator_loss=discriminator_loss / n_tokens,
        discriminator_auc=auc(torch.cat(logits), torch.cat(is_replaced)),
        replaced_share=float(torch.cat(is_replaced).float().mean()),
    )


def auc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve, from ranks (Mann-Whitney); equal scores share their mean rank.

    scores: [N]; labels: [N], nonzero for positives. NaN where one class is missing or a score is NaN.
    """
    values, is_positive = scores.detach().cpu().double().numpy(), labels.cpu().numpy() != 0
    n_positive = int(is_positive.sum())
    n_pairs = n_positive * (len(values) - n_positive)
    if n_pairs == 0 or np.isnan(values).any():
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return float((rank[is_positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)
