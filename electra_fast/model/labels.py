"""Labels: checked, and turned into losses.

Values are checked where labels are on the CPU, as ids are; on a GPU that would stop the pipeline.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check_tensor
from .config import ElectraConfig


def integers(name: str, labels: Any) -> Tensor:
    """Labels as int64; raises ValueError or TypeError for any but integers."""
    check_tensor(name, labels)
    if labels.is_floating_point():
        raise ValueError(f"{name} must be integers, got {labels.dtype}")
    return labels.long()


def classes(labels: Tensor, n_classes: int) -> Tensor:
    """Labels as int64; on a CPU, raises ValueError for any that is neither a class nor -100."""
    labels = integers("labels", labels)
    if labels.is_cpu and not torch.compiler.is_compiling():
        wrong = labels[((labels < 0) | (labels >= n_classes)) & (labels != -100)]
        if wrong.numel():
            raise ValueError(f"labels must be in [0, {n_classes}), or -100 where there is none, got {int(wrong[0])}")
    return labels


def choices(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels of choices as int64 [B], or probabilities [B, C] as they are."""
    check_tensor("labels", labels)
    return labels if labels.shape == logits.shape and labels.is_floating_point() else classes(labels, logits.shape[1])


def replaced(labels: Tensor) -> Tensor:
    """Labels of replaced tokens with room for -1; on a CPU, raises ValueError for any over 0 but 1."""
    if labels.is_cpu and not torch.compiler.is_compiling():
        wrong = labels[(labels > 0) & (labels != 1)]
        if wrong.numel():
            raise ValueError(f"labels must be 1 where a token was replaced, else 0, got {wrong[0].item()}")
    return labels if labels.is_floating_point() else labels.long()


def token_loss(logits: Tensor, labels: Tensor, n_items: Tensor | int | None = None) -> Tensor:
    """Mean cross-entropy over labels that are not -100 (or their sum over `n_items`), in fp32 or better."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    reduction = "mean" if n_items is None else "sum"
    loss = F.cross_entropy(logits.flatten(0, -2), classes(labels, logits.shape[-1]).flatten(), reduction=reduction)
    return loss if n_items is None else loss / n_items


def sequence_loss(config: ElectraConfig, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of one prediction per text, by `config.problem_type`; the first labels set it where it is None.

    logits: [B, num_labels]; labels: [B] classes or values, or [B, num_labels] floating for several labels.

    Raises:
        ValueError: a problem type that is not known, or labels that do not fit it.
    """
    check_tensor("labels", labels)
    if config.problem_type is None:
        if config.num_labels == 1:
            config.problem_type = "regression"
        elif labels.dtype in (torch.long, torch.int):
            config.problem_type = "single_label_classification"
        else:
            config.problem_type = "multi_label_classification"
    if config.problem_type == "single_label_classification":
        return F.cross_entropy(logits.view(-1, config.num_labels), classes(labels.view(-1), config.num_labels))
    if config.problem_type in ("regression", "multi_label_classification") and labels.numel() != logits.numel():
        raise ValueError(
            f"labels must have shape {tuple(logits.shape)} for problem_type {config.problem_type!r}, got "
            f"{tuple(labels.shape)}; a class of each text is int64 [batch]"
        )
    labels = labels if labels.is_floating_point() else labels.to(logits.dtype)
    if config.problem_type == "regression":
        return F.mse_loss(logits.squeeze(), labels.squeeze()) if config.num_labels == 1 else F.mse_loss(logits, labels)
    if config.problem_type == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels)
    known = "regression, single_label_classification or multi_label_classification"
    raise ValueError(f"config.problem_type must be {known}, got {config.problem_type!r}")
