"""ELECTRA, fast. Classes have their names of transformers; each is imported on first use, to keep the import cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .versions import __version__

_HOME = {
    "ElectraConfig": "model.config",
    "ElectraTokenizer": "tokenizer",
    "ElectraTokenizerFast": "tokenizer",
    "ElectraPreTrainedModel": "model.base",
    "ElectraModel": "model.backbone",
    "ElectraForPreTraining": "model.modeling",
    "ElectraForMaskedLM": "model.modeling",
    "ElectraForCausalLM": "model.modeling",
    "ElectraForSequenceClassification": "model.modeling",
    "ElectraForTokenClassification": "model.modeling",
    "ElectraForMultipleChoice": "model.modeling",
    "ElectraForQuestionAnswering": "model.modeling",
    "ElectraForPreTrainingOutput": "model.outputs",
    "PackedBatch": "model.packing",
    "Embedder": "inference.portable",
    "embed": "inference.embed",
    "embed_stream": "inference.embed",
    "load_embedder": "inference.embed",
    "load_reranker": "inference.rerank",
    "rerank": "inference.rerank",
    "FlaxElectraPreTrainedModel": "flax.base",
    "FlaxElectraModel": "flax.modeling",
    "FlaxElectraForPreTraining": "flax.modeling",
    "FlaxElectraForMaskedLM": "flax.modeling",
    "FlaxElectraForCausalLM": "flax.modeling",
    "FlaxElectraForSequenceClassification": "flax.modeling",
    "FlaxElectraForTokenClassification": "flax.modeling",
    "FlaxElectraForMultipleChoice": "flax.modeling",
    "FlaxElectraForQuestionAnswering": "flax.modeling",
    "TFElectraPreTrainedModel": "tf.base",
    "TFElectraModel": "tf.modeling",
    "TFElectraForPreTraining": "tf.modeling",
    "TFElectraForMaskedLM": "tf.modeling",
    "TFElectraForSequenceClassification": "tf.modeling",
    "TFElectraForTokenClassification": "tf.modeling",
    "TFElectraForMultipleChoice": "tf.modeling",
    "TFElectraForQuestionAnswering": "tf.modeling",
}

# Without the classes that need an extra: `from electra_fast import *` imports all of these.
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
    "Embedder",
    "PackedBatch",
    "__version__",
    "embed",
    "embed_stream",
    "load_embedder",
    "load_reranker",
    "rerank",
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
    from .flax.base import FlaxElectraPreTrainedModel  # noqa: F401
    from .flax.modeling import (  # noqa: F401
        FlaxElectraForCausalLM,
        FlaxElectraForMaskedLM,
        FlaxElectraForMultipleChoice,
        FlaxElectraForPreTraining,
        FlaxElectraForQuestionAnswering,
        FlaxElectraForSequenceClassification,
        FlaxElectraForTokenClassification,
        FlaxElectraModel,
    )
    from .inference.embed import embed, embed_stream, load_embedder
    from .inference.portable import Embedder
    from .inference.rerank import load_reranker, rerank
    from .model.backbone import ElectraModel
    from .model.base import ElectraPreTrainedModel
    from .model.config import ElectraConfig
    from .model.modeling import (
        ElectraForCausalLM,
        ElectraForMaskedLM,
        ElectraForMultipleChoice,
        ElectraForPreTraining,
        ElectraForQuestionAnswering,
        ElectraForSequenceClassification,
        ElectraForTokenClassification,
    )
    from .model.outputs import ElectraForPreTrainingOutput
    from .model.packing import PackedBatch
    from .tf.base import TFElectraPreTrainedModel  # noqa: F401
    from .tf.modeling import (  # noqa: F401
        TFElectraForMaskedLM,
        TFElectraForMultipleChoice,
        TFElectraForPreTraining,
        TFElectraForQuestionAnswering,
        TFElectraForSequenceClassification,
        TFElectraForTokenClassification,
        TFElectraModel,
    )
    from .tokenizer import ElectraTokenizer, ElectraTokenizerFast
