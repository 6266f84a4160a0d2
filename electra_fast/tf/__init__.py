"""The TFElectra classes: Keras 3 models on TensorFlow, of the pure functions in `functional`.

Importing it raises ImportError where TensorFlow is not installed, or where Keras runs on another backend.
"""

from __future__ import annotations

import sys
from contextlib import suppress

# Both Triton and TensorFlow bring an LLVM. A process that imports Triton second is aborted, and torch's optimizers do.
if "tensorflow" not in sys.modules:
    with suppress(ImportError):
        import triton  # noqa: F401
try:
    import tensorflow  # noqa: F401
except ImportError as error:
    raise ImportError("the TFElectra classes need TensorFlow: pip install 'electra_fast[tf]'") from error

_BACKEND = (
    "the TFElectra classes need Keras on TensorFlow: KERAS_BACKEND must be 'tensorflow', or not set, when keras is "
    "imported for the first time"
)
try:
    import keras
except ImportError as error:  # of the backend that it was told to use
    raise ImportError(f"{_BACKEND}; importing it failed: {error}") from error
if keras.config.backend() != "tensorflow":
    raise ImportError(f"{_BACKEND}, got {keras.config.backend()!r}")
