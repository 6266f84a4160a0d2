"""Evaluation of the two networks on held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..model.packing import PackedBatch
from .networks.objective import ElectraPretrainingModel, ElectraPretrainingOutput

# Tokens to evaluate on: enough for two digits of an AUC, which more text would not improve.
MAX_TOKENS = 32_768
_BATCH_TOKENS = 2_048


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Means over held-out text, with dropout off and the same masks every time.

    The metrics are those of google-research/electra, run_pretraining.py. Metrics of a network that the objective does
    not have are None. The discriminator's metrics, except its loss, leave out special tokens: these are never replaced
    and easy to tell, and in sequences of 64 they alone would add 0.02 to the AUC.
    """

    n_tokens: int
    n_masked: int
    unigram_loss: float
    """Entropy in nats of the text's distribution of tokens, without special ones: no prediction that is the same
    everywhere has a lower cross-entropy."""
    unigram_accuracy: float
    """Accuracy of the best constant guess, the most frequent of the masked tokens."""
    generator_loss: float | None
    """Cross-entropy per masked token, in nats."""
    generator_accuracy: float | None
    """Share of the masked tokens where the likeliest token is the true one."""
    generator_sampled_accuracy: float | None
    """Share of the masked tokens where the sampled token is the true one; None if they are drawn with replacement."""
    discriminator_loss: float | None
    """Binary cross-entropy per token, in nats."""
    discriminator_auc: float | None
    """Probability that a replaced token gets a higher score than an original one; 0.5 is chance."""
    discriminator_accuracy: float | None
    """Share of the tokens classified correctly at the threshold 0.5; a constant guess has 1 - replaced_share."""
    discriminator_precision: float | None
    """Share of the tokens called replaced that are replaced; None if none is called so."""
    discriminator_recall: float | None
    """Share of the replaced tokens that are called replaced; None if none is replaced."""
    replaced_share: float | None
    """Share of the tokens that are replaced."""
    discriminator_similarity: float | None
    """Mean cosine of two tokens' vectors behind the discriminator's middle layer, in one batch. Near 1 the layers do
    not tell tokens apart: what the network knows is the work of its first layer, and fine-tuning from it fails."""


@torch.no_grad()
def evaluate(model: ElectraPretrainingModel, sequences: Tensor, seed: int = 0) -> Evaluation:
    """Evaluates on full sequences [n, S] int64; the model's training mode is restored."""
    device = model.is_special.device
    random = torch.Generator().manual_seed(seed)
    batch_size = max(1, _BATCH_TOKENS // sequences.shape[1])
    inputs, outputs = [], []
    was_training = model.training
    model.eval()
    for batch in sequences.split(batch_size):
        inputs.append(batch.flatten().to(device))
        outputs.append(model(inputs[-1], PackedBatch.full(*batch.shape, device), random=random))
    similarity = _similarity(model, sequences[:batch_size].to(device), random)
    model.train(was_training)
    input_ids = torch.cat(inputs)
    names = ("is_used", "targets", "is_correct", "corrupted_ids")
    is_used, targets, is_correct, corrupted_ids = (_joined(outputs, name) for name in names)
    n_masked = int(is_used.sum())
    # A changed token is a sample that is not the true token. A token drawn twice changes only once.
    has_sampled_accuracy = is_correct is not None and corrupted_ids is not None and not model.replacement
    n_changed = int((corrupted_ids != input_ids).sum()) if has_sampled_accuracy else 0
    return Evaluation(
        n_tokens=len(input_ids),
        n_masked=n_masked,
        unigram_loss=_entropy(input_ids[~model.is_special[input_ids]]),
        unigram_accuracy=int(targets[is_used].bincount().max()) / n_masked,
        generator_loss=_mean(outputs, "generator_loss", [output.is_used.sum() for output in outputs]),
        generator_accuracy=None if is_correct is None else int(is_correct[is_used].sum()) / n_masked,
        generator_sampled_accuracy=1 - n_changed / n_masked if has_sampled_accuracy else None,
        discriminator_loss=_mean(outputs, "discriminator_loss", [len(ids) for ids in inputs]),
        **_discriminator_metrics(outputs),
        discriminator_similarity=similarity,
    )


def _similarity(model: ElectraPretrainingModel, sequences: Tensor, random: torch.Generator) -> float | None:
    """Mean cosine of two tokens' vectors behind the discriminator's middle layer, special tokens left out."""
    if "discriminator" not in model.networks:
        return None
    layers, states = model.discriminator.electra.encoder.layer, []
    packed = PackedBatch.full(*sequences.shape, sequences.device)
    with layers[(len(layers) - 1) // 2].register_forward_hook(lambda layer, inputs, output: states.append(output[0])):
        output = model(sequences.flatten(), packed, random=random)
    # A tied generator passes the layer first.
    x = nn.functional.normalize(states[-1][output.is_candidate].double(), dim=-1)
    n = len(x)
    return float((x.sum(0).square().sum() - n) / (n * (n - 1)))


def _discriminator_metrics(outputs: Sequence[ElectraPretrainingOutput]) -> dict[str, float | None]:
    names = ("auc", "accuracy", "precision", "recall")
    if outputs[0].logits is None:
        return {**{f"discriminator_{name}": None for name in names}, "replaced_share": None}
    is_candidate = _joined(outputs, "is_candidate")
    logits, is_replaced = (_joined(outputs, name)[is_candidate] for name in ("logits", "is_replaced"))
    is_called = logits > 0
    n_hits, n_called, n_replaced = (int(x.sum()) for x in (is_called & is_replaced, is_called, is_replaced))
    values = (
        auc(logits, is_replaced),
        int((is_called == is_replaced).sum()) / len(logits),
        n_hits / n_called if n_called else None,
        n_hits / n_replaced if n_replaced else None,
    )
    metrics = {f"discriminator_{name}": value for name, value in zip(names, values, strict=True)}
    return {**metrics, "replaced_share": n_replaced / len(logits)}


def _joined(outputs: Sequence[ElectraPretrainingOutput], name: str) -> Tensor | None:
    values = [getattr(output, name) for output in outputs]
    return None if values[0] is None else torch.cat(values)


def _mean(outputs: Sequence[ElectraPretrainingOutput], name: str, weights: Sequence[Tensor | int]) -> float | None:
    values = [getattr(output, name) for output in outputs]
    if values[0] is None:
        return None
    return sum(float(value) * int(weight) for value, weight in zip(values, weights, strict=True)) / int(sum(weights))


def _entropy(ids: Tensor) -> float:
    share = ids.bincount().double() / len(ids)
    return float(torch.special.entr(share).sum())


def auc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve, from ranks (Mann-Whitney); equal scores share their mean rank.

    Args:
        scores: [N], higher for positives.
        labels: [N], nonzero for positives.

    Returns:
        The area, or NaN if one class is missing or a score is NaN.
    """
    values, is_positive = scores.detach().cpu().double().numpy(), labels.cpu().numpy() != 0
    n_positive = int(is_positive.sum())
    n_pairs = n_positive * (len(values) - n_positive)
    if n_pairs == 0 or np.isnan(values).any():
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (counts.cumsum() - (counts - 1) / 2)[inverse]
    return float((rank[is_positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)
