"""Every kernel test runs on the GPU where there is one, else on the CPU in Triton's interpreter.

Memory that torch leaves uninitialised is poisoned, so that an output no kernel wrote is NaN.
"""

import pytest
import torch

from electra_fast import testing


@pytest.fixture
def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def poisoned_memory():
    with testing.poisoned():
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
