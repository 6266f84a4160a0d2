"""A guard that finds from a pre-training run's records that something goes wrong, and gives advice.

A loss that is not finite stops the run. The other findings only warn, once: they may be wrong about a run that
nobody has tried before, and a false alarm that ends a run costs more than a warning read too late.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median

_LOSSES = ("loss", "generator_loss", "discriminator_loss")
_JUDGED = ("generator_loss", "discriminator_loss", "discriminator_auc", "replaced_share")

# The guard judges a run in its second half, and not before a thousand steps: preset tiny without its neighbour heads
# leaves its unigram plateau after 300 to 500 steps, and a shorter run says nothing about its recipe.
_FIRST_PROGRESS = 0.5
_FIRST_STEP = 1000
# Records in a median, so that one odd window of steps is not a finding.
_N_RECORDS = 5
# A constant discriminator that knows the special tokens has a loss of 0.97 of the entropy in sequences of 64 tokens,
# and more in longer ones. Preset tiny, even without its neighbour heads, gets to 0.8 and an AUC of 0.79 in minutes.
_COLLAPSED_LOSS, _COLLAPSED_AUC = 0.95, 0.55
# Mean cosines of tokens behind the middle layer: 0.96 to 0.98 in a discriminator from which fine-tuning failed, of six
# layers at a rate of 1.5e-3; 0.2 to 0.5 in those that fine-tuned well, 0.6 to 0.8 after 1,200 steps of preset tiny.
_ALIKE = 0.9


class Guard:
    """Checks each training record; remembers the last few, and which advice it has given.

    - A loss that is NaN or infinite raises ValueError.
    - The generator does not learn: in the second half of the run its loss is above `unigram_loss`. No prediction that
      ignores the context gets below that, and one that reads it soon does (preset tiny without neighbour heads: 5.90,
      passed at step 350 on the way from 8.4 to 5.1).
    - The discriminator has collapsed: in the second half of the run its loss is that of a constant probability, above
      0.95 (-p ln p - (1 - p) ln (1 - p)) with p the share of replaced tokens, and its AUC is below 0.55. Every run
      begins like that.
    - The discriminator's tokens are alike: in the second half of the run the mean cosine of two tokens' vectors behind
      the middle layer is above 0.9 (`Evaluation.discriminator_similarity`).

    Args:
        unigram_loss: entropy of the held-out text's tokens in nats (`Evaluation.unigram_loss`); None does not check
            the generator.
        stop: raise ValueError for the findings that warn, too.
    """

    def __init__(self, unigram_loss: float | None = None, stop: bool = False):
        self.unigram_loss, self.stop = unigram_loss, stop
        self._recent = {name: deque[float](maxlen=_N_RECORDS) for name in _JUDGED}
        self._said: set[str] = set()

    def check(self, step: int, progress: float, metrics: Mapping[str, float | None]) -> str | None:
        """Returns advice that was not given before, to show and to log, or None.

        Args:
            step: updates done.
            progress: the share of the run that is done, in [0, 1].
            metrics: loss, generator_loss, discriminator_loss, discriminator_auc, replaced_share,
                discriminator_similarity and any others; those absent or None are not judged.

        Raises:
            ValueError: a loss that is not finite, or any finding if `stop` is set.
        """
        for name in _LOSSES:
            value = metrics.get(name)
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"the {name} must stay a finite number, got {value} at step {step} (learning rate "
                    f"{_shown(metrics, 'lr')}, gradient norm {_shown(metrics, 'grad_norm')}): a lower learning rate or "
                    "a longer warm-up may help; in fp16, bf16 may"
                )
        for name in _JUDGED:
            if metrics.get(name) is not None:
                self._recent[name].append(metrics[name])
        if step < _FIRST_STEP or progress < _FIRST_PROGRESS:
            return None
        findings = {
            "generator": self._generator_finding(),
            "discriminator": self._discriminator_finding(),
            "similarity": _similarity_finding(metrics.get("discriminator_similarity")),
        }
        new = {name: text for name, text in findings.items() if text and name not in self._said}
        self._said |= new.keys()
        if not new:
            return None
        advice = "; ".join(f"at step {step} ({progress:.0%} of the run) {text}" for text in new.values())
        if self.stop:
            raise ValueError(advice)
        return advice

    def _generator_finding(self) -> str | None:
        loss = self._median("generator_loss")
        if self.unigram_loss is None or loss is None or loss <= self.unigram_loss:
            return None
        return (
            f"the generator has learnt the frequencies of tokens and no more: its loss {loss:.3f} is not below the "
            f"text's unigram entropy {self.unigram_loss:.3f}. More and smaller steps, another learning rate, bias "
            "correction, a wider generator or a smaller vocabulary may help"
        )

    def _discriminator_finding(self) -> str | None:
        loss, auc, p = (self._median(name) for name in ("discriminator_loss", "discriminator_auc", "replaced_share"))
        if loss is None or auc is None or p is None or not 0 < p < 1:
            return None
        constant = -p * math.log(p) - (1 - p) * math.log(1 - p)
        if loss < _COLLAPSED_LOSS * constant or auc >= _COLLAPSED_AUC:
            return None
        return (
            f"the discriminator calls every token original: its loss {loss:.4f} is that of a constant answer, "
            f"{constant:.4f}, and its AUC {auc:.3f}. A smaller generator, a higher temperature, a lower learning rate "
            "or more steps may help"
        )

    def _median(self, name: str) -> float | None:
        values = self._recent[name]
        return median(values) if len(values) == _N_RECORDS else None


def _similarity_finding(similarity: float | None) -> str | None:
    if similarity is None or not similarity > _ALIKE:
        return None
    return (
        "the discriminator's middle layer gives all tokens nearly the same vector: two tokens' have a mean cosine of "
        f"{similarity:.2f}. Its AUC may look well, but fine-tuning from it is likely to fail. A lower learning rate, a "
        "longer warm-up, or a discriminator that begins with the generator's weights (--init-discriminator) may help"
    )


def _shown(metrics: Mapping[str, float | None], name: str) -> str:
    value = metrics.get(name)
    return "unknown" if value is None else f"{value:.3g}"
