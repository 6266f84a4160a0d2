"""Fine-tuning, from a checkpoint to a network that is ready for use: on the original's tasks or on your own files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# The module of each public name, imported on first use: predicting needs nothing of what trains.
_HOME = {
    "ChoiceExample": "data.examples",
    "ElectraPaperForQuestionAnswering": "kinds.paper_heads",
    "ElectraPaperForSequenceClassification": "kinds.paper_heads",
    "FinetuningOptions": "run_options",
    "Predictor": "predictor",
    "QuestionExample": "data.examples",
    "TaggedExample": "data.examples",
    "TaskFiles": "task_data",
    "TextExample": "data.examples",
    "custom_task": "data.tasks",
    "finetune": "run",
    "load_finetuned": "saved",
    "predict": "prediction",
    "task": "data.tasks",
}

__all__ = [
    "ChoiceExample",
    "ElectraPaperForQuestionAnswering",
    "ElectraPaperForSequenceClassification",
    "FinetuningOptions",
    "Predictor",
    "QuestionExample",
    "TaggedExample",
    "TaskFiles",
    "TextExample",
    "custom_task",
    "finetune",
    "load_finetuned",
    "predict",
    "task",
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
    from .data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
    from .data.tasks import custom_task, task
    from .kinds.paper_heads import ElectraPaperForQuestionAnswering, ElectraPaperForSequenceClassification
    from .prediction import predict
    from .predictor import Predictor
    from .run import finetune
    from .run_options import FinetuningOptions
    from .saved import load_finetuned
    from .task_data import TaskFiles
