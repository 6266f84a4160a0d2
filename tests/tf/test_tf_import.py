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


# A model that was imported after TensorFlow itself; then all that is done with it but training in PyTorch.
USE = """
import sys, tensorflow as tf
from electra_fast import ElectraConfig, TFElectraForSequenceClassification
config = ElectraConfig(vocab_size=9, embedding_size=4, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
model = TFElectraForSequenceClassification(config)
ids = tf.constant([[1, 2, 3], [4, 5, 6]])
model(ids), model.predict({"input_ids": ids.numpy()}, verbose=0)
model.compile("adam")
model.fit({"input_ids": ids.numpy()}, tf.constant([0, 1]).numpy(), verbose=0)
model.save_pretrained(sys.argv[1])
TFElectraForSequenceClassification.from_pretrained(sys.argv[1])(ids)
assert model._cpu._served is not None and not {"triton", "torch._dynamo"} & {*sys.modules}
"""


def test_nothing_imports_triton_after_tensorflow(tmp_path):
    """Where Triton is imported after TensorFlow, the process is aborted."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")
    pytest.importorskip("triton", reason="Triton is not installed")
    subprocess.run([sys.executable, "-c", USE, tmp_path], check=True)


def test_pytorch_trains_beside_it():
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")
    code = (
        "from electra_fast import TFElectraModel; import torch; torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_imports_neither():
    code = (
        "import sys, electra_fast; electra_fast.ElectraModel; sys.exit(bool({'tensorflow', 'keras'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
