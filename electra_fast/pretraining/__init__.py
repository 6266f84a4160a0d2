"""Pre-training by replaced-token detection: the objective, the recipes and a run from raw text."""

from .build import build_model, parameter_groups
from .collator import PretrainingCollator
from .corpus import Corpus
from .initialize import fitted_recipe
from .objective import ElectraPretrainingModel, ElectraPretrainingOutput
from .presets import PRESETS, Recipe, preset
from .run import pretrain
from .shards import ShardedCorpus
from .stream import SequenceStream
from .trainer_model import ElectraForJointPreTraining, JointPreTrainingOutput

__all__ = [
    "PRESETS",
    "Corpus",
    "ElectraForJointPreTraining",
    "ElectraPretrainingModel",
    "ElectraPretrainingOutput",
    "JointPreTrainingOutput",
    "PretrainingCollator",
    "Recipe",
    "SequenceStream",
    "ShardedCorpus",
    "build_model",
    "fitted_recipe",
    "parameter_groups",
    "preset",
    "pretrain",
]
