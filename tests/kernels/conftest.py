"""Every kernel test runs on the GPU where there is one, else on the CPU in Triton's interpreter.

Memory that torch leaves uninitialised is poisoned, so that an output that no kernel wrote is NaN. In the interpreter
`launch_checker` watches every launch, whose programs run in random order; RACE_SEED gives another order than 0 does.
Errors against fp64 go into the report of a test, from which tests/conftest.py takes the largest.
"""

import os

import pytest
import torch
from launch_checker import checking

from electra_fast.ops import testing
from electra_fast.ops.contracts.library import IS_INTERPRETED


@pytest.fixture
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.fixture(autouse=True)
def checked_launches():
    if not IS_INTERPRETED:
        yield
        return
    with checking(int(os.environ.get("RACE_SEED", 0))) as checker:
        yield checker


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def recorded_errors(request, record_property, monkeypatch):
    compare = testing.compare
    kernel = request.path.stem.removeprefix("test_").removesuffix("_kernels")

    def recording(ours, reference, tensors, **options):
        errors = compare(ours, reference, tensors, **options)
        dtype = str(testing.tensor_dtype(tensors)).removeprefix("torch.")
        for error in errors:
            kind = "gradient" if error.name.startswith("d") else "output"
            record_property("error", (kernel, f"{dtype} {kind}", error.ratio))
        return errors

    monkeypatch.setattr(testing, "compare", recording)
