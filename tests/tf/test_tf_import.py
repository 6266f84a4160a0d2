"""What importing the classes needs, and the errors where that is not there. TensorFlow itself is not needed here."""

import os
import subprocess
import sys

import pytest


def failure(code: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode
    return run.stderr.strip().split("\n")[-1]


def test_without_tensorflow():
    hidden = "import sys; sys.modules['tensorflow'] = None; from electra_fast import TFElectraModel"
    error = failure(hidden)
    assert error.startswith("ImportError: ") and "pip install 'electra_fast[tf]'" in error


def test_on_another_backend_of_keras():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")
    error = failure("from electra_fast import TFElectraModel", KERAS_BACKEND="numpy")
    assert error.startswith("ImportError: ") and "KERAS_BACKEND must be 'tensorflow'" in error
    # The backend may need a package that is not installed.
    assert error.endswith("got 'numpy'") or "importing it failed" in error


def test_the_package_imports_neither():
    code = (
        "import sys, electra_fast; electra_fast.ElectraModel; sys.exit(bool({'tensorflow', 'keras'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
