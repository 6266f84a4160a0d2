"""ELECTRA, fast. Classes are called as in transformers; each is imported on first use, which keeps the import cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "ElectraConfig": "config",
    "ElectraTokenizer": "tokenizer",
    "ElectraTokenizerFast": "tokenizer",
    "ElectraPreTrainedModel": "base",
    "ElectraModel": "backbone",
    "ElectraForPreTraining": "modeling",
    "ElectraForMaskedLM": "modeling",
    "ElectraForCausalLM": "modeling",
    "ElectraForSequenceClassification": "modeling",
    "ElectraForTokenClassification": "modeling",
    "ElectraForMultipleChoice": "modeling",
    "ElectraForQuestionAnswering": "modeling",
    "ElectraForPreTrainingOutput": "outputs",
    "embed": "embedding",
    "embed_stream": "embedding",
}

__all__ = [
    "ElectraConfig",
    "ElectraForCausalLM",
    "ElectraForMaskedLM",
    "ElectraForMultipleChoice",
    "ElectraForPreTraining",
    "ElectraForPreTrainingOutput",
    "ElectraForQuestionAnswering",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraModel",
    "ElectraPreTrainedModel",
    "ElectraTokenizer",
    "ElectraTokenizerFast",
    "__version__",
    "embed",
    "embed_stream",
]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from .backbone import ElectraModel
    from .base import ElectraPreTrainedModel
    from .config import ElectraConfig
    from .embedding import embed, embed_stream
    from .modeling import (
        ElectraForCausalLM,
        ElectraForMaskedLM,
        ElectraForMultipleChoice,
        ElectraForPreTraining,
        ElectraForQuestionAnswering,
        ElectraForSequenceClassification,
        ElectraForTokenClassification,
    )
    from .outputs import ElectraForPreTrainingOutput
    from .tokenizer import ElectraTokenizer, ElectraTokenizerFast
