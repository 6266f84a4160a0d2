"""ELECTRA, fast. Names are those of transformers; each is imported on first use, so that `import electra_fast` is cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "ElectraConfig": "config",
    "ElectraTokenizer": "tokenizer",
    "ElectraTokenizerFast": "tokenizer",
    "ElectraPreTrainedModel": "modeling",
    "ElectraModel": "modeling",
    "ElectraForPreTraining": "modeling",
    "ElectraForMaskedLM": "modeling",
    "ElectraForCausalLM": "modeling",
    "ElectraForSequenceClassification": "modeling",
    "ElectraForTokenClassification": "modeling",
    "ElectraForMultipleChoice": "modeling",
    "ElectraForQuestionAnswering": "modeling",
    "ElectraForPreTrainingOutput": "outputs",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


if TYPE_CHECKING:
    from .config import ElectraConfig as ElectraConfig
    from .modeling import (
        ElectraForCausalLM as ElectraForCausalLM,
    )
    from .modeling import (
        ElectraForMaskedLM as ElectraForMaskedLM,
    )
    from .modeling import (
        ElectraForMultipleChoice as ElectraForMultipleChoice,
    )
    from .modeling import (
        ElectraForPreTraining as ElectraForPreTraining,
    )
    from .modeling import (
        ElectraForQuestionAnswering as ElectraForQuestionAnswering,
    )
    from .modeling import (
        ElectraForSequenceClassification as ElectraForSequenceClassification,
    )
    from .modeling import (
        ElectraForTokenClassification as ElectraForTokenClassification,
    )
    from .modeling import (
        ElectraModel as ElectraModel,
    )
    from .modeling import (
        ElectraPreTrainedModel as ElectraPreTrainedModel,
    )
    from .outputs import ElectraForPreTrainingOutput as ElectraForPreTrainingOutput
    from .tokenizer import ElectraTokenizer as ElectraTokenizer
    from .tokenizer import ElectraTokenizerFast as ElectraTokenizerFast
