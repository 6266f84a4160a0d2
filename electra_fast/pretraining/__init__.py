"""Pre-training by replaced-token detection: the objective, the recipes and a run from raw text."""

from .build import build_model, parameter_groups
from .collator import PretrainingCollator
from .continued import fitted_recipe
from .joint import ElectraForJointPreTraining, JointPreTrainingOutput
from .networks.objective import ElectraPretrainingModel, ElectraPretrainingOutput
from .recipes import PRESETS, Recipe, preset
from .run import pretrain
from .run_options import PretrainingOptions
from .text.builtin import builtin_documents
from .text.corpus import Corpus
from .text.shards import ShardedCorpus
from .text.stream import SequenceStream

__all__ = [
    "PRESETS",
    "Corpus",
    "ElectraForJointPreTraining",
    "ElectraPretrainingModel",
    "ElectraPretrainingOutput",
    "JointPreTrainingOutput",
    "PretrainingCollator",
    "PretrainingOptions",
    "Recipe",
    "SequenceStream",
    "ShardedCorpus",
    "build_model",
    "builtin_documents",
    "fitted_recipe",
    "parameter_groups",
    "preset",
    "pretrain",
]
