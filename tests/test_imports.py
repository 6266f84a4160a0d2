"""The cost of importing, and the modules that it brings along."""

import subprocess
import sys
from statistics import median

import pytest

import electra_fast


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("touch", ["", "; electra_fast.ElectraModel; electra_fast.ElectraTokenizer"])
def test_neither_transformers_nor_triton_is_imported(touch):
    loaded = fresh(f"import sys, electra_fast{touch}; print({{'transformers', 'triton'}} & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_importing_takes_under_one_and_a_half_times_torch():
    def seconds(code: str) -> float:
        return float(fresh(f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"))

    pairs = [(seconds("import torch"), seconds("import electra_fast; electra_fast.ElectraModel")) for _ in range(5)]
    assert median(ours / torch for torch, ours in pairs) < 1.5


def test_public_names():
    assert {name for name in dir(electra_fast) if name.startswith("Electra")} == {
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
    }
    for name in electra_fast.__all__:
        assert getattr(electra_fast, name) is not None
    with pytest.raises(AttributeError, match="ElectraForNothing"):
        _ = electra_fast.ElectraForNothing
