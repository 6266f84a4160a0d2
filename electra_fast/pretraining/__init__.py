"""Pre-training by replaced-token detection: the objective, the recipes and a run from raw text."""

from .objective import ElectraPretrainingModel, ElectraPretrainingOutput, RandomNumbers
from .presets import PRESETS, Recipe, preset
from .run import pretrain

__all__ = [
    "PRESETS",
    "ElectraPretrainingModel",
    "ElectraPretrainingOutput",
    "RandomNumbers",
    "Recipe",
    "preset",
    "pretrain",
]
