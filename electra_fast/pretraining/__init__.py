"""Pre-training by replaced-token detection: the objective, the recipes and a run from raw text."""

from .build import build_model, parameter_groups
from .corpus import Corpus
from .objective import ElectraPretrainingModel, ElectraPretrainingOutput
from .presets import PRESETS, Recipe, preset
from .run import pretrain
from .shards import ShardedCorpus
from .stream import SequenceStream

__all__ = [
    "PRESETS",
    "Corpus",
    "ElectraPretrainingModel",
    "ElectraPretrainingOutput",
    "Recipe",
    "SequenceStream",
    "ShardedCorpus",
    "build_model",
    "parameter_groups",
    "preset",
    "pretrain",
]
