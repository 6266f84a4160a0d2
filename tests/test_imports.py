"""The cost of importing, and the modules that it brings along."""

import subprocess
import sys
from statistics import median

import pytest

import electra_fast


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("touch", ["", "; electra_fast.ElectraModel; electra_fast.ElectraTokenizer"])
def test_nothing_is_imported_that_is_not_needed(touch):
    heavy = {"transformers", "triton", "jax", "tensorflow"}
    loaded = fresh(f"import sys, electra_fast{touch}; print({heavy} & set(sys.modules))")
    assert loaded.strip() == "set()"


def test_without_jax_the_flax_classes_name_the_extra():
    code = (
        "import sys; sys.modules['jax'] = None\nfrom electra_fast import *\nfrom electra_fast import FlaxElectraModel"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ImportError: the FlaxElectra classes need jax: pip install 'electra_fast[jax]'"


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
