"""What a discriminator's logits mean: probabilities, and the one above which a word is called replaced."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..model.config import ElectraConfig

# The share of unchanged words that the default threshold takes for replaced.
FALSE_ALARMS = 0.02
_FIELD = "detection"  # of config.json


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Probabilities of a discriminator: sigmoid(scale * logit + bias). The defaults are for one that was not measured.

    A word's logit is the largest of its tokens'.
    """

    scale: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5
    """The probability above which a word is called replaced."""

    @classmethod
    def of(cls, config: ElectraConfig) -> Calibration:
        """The calibration in a config; raises ValueError if what is there is none."""
        found: Any = getattr(config, _FIELD, None)
        if found is None:
            return cls()
        names = cls.__dataclass_fields__.keys()
        if (
            not isinstance(found, dict)
            or found.keys() != names
            or not all(isinstance(x, float) for x in found.values())
        ):
            raise ValueError(f"{_FIELD} in config.json must be numbers {', '.join(names)}, got {found!r:.80}")
        return cls(**found)

    def write(self, config: ElectraConfig) -> None:
        """Puts the calibration into a config, which keeps it in its file."""
        setattr(config, _FIELD, asdict(self))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probability that a token or a word was replaced, fp32, for each logit."""
        return (self.scale * logits.float() + self.bias).sigmoid()

    @classmethod
    def fitted(cls, logits: Tensor, is_replaced: Tensor) -> Calibration | None:
        """The calibration that fits words best by logistic regression (Platt 1999).

        The threshold is one that takes 2 % of the unchanged words for replaced.

        Args:
            logits: [N], of words.
            is_replaced: [N] bool.

        Returns:
            The calibration; None where logits say nothing: words of one kind, or no higher for replaced ones.
        """
        x, y = logits.double(), is_replaced.double()
        if not 0 < y.mean() < 1:
            return None
        features = torch.stack([x, torch.ones_like(x)], 1)
        weights = torch.tensor([0.0, float(y.mean().logit())], dtype=x.dtype)
        for _ in range(50):  # Newton's method; a little of a ridge for logits that separate the words
            p = (features @ weights).sigmoid()
            gradient = features.T @ (p - y) + 1e-3 * weights
            curvature = features.T @ (features * (p * (1 - p))[:, None]) + 1e-3 * torch.eye(2, dtype=x.dtype)
            step = torch.linalg.solve(curvature, gradient)
            weights -= step
            if step.abs().max() < 1e-9:
                break
        scale, bias = weights.tolist()
        if not scale > 0:
            return None
        threshold = cls(scale=scale, bias=bias).probabilities(x[~is_replaced].quantile(1 - FALSE_ALARMS))
        return cls(scale=scale, bias=bias, threshold=float(threshold))


def of_words(values: Tensor, word_starts: Tensor) -> Tensor:
    """The largest value of each word's tokens: [words] from [T], with word_starts [T] bool, True at the first token."""
    words = word_starts.cumsum(0) - 1
    return values.new_full((int(words[-1]) + 1,), -torch.inf).scatter_reduce(0, words, values, "amax")
