"""The small English model that comes with the package, so that commands and examples run without a network.

`electra_fast.cli.bundle` makes it from a finished pre-training run; `make bundled` does the run too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Network = Literal["generator", "discriminator"]

DIRECTORY = Path(__file__).with_name("bundled_model")


def bundled(network: Network) -> Path:
    """The directory of one network of the bundled model, for `from_pretrained`."""
    return DIRECTORY / network


if __name__ == "__main__":
    raise SystemExit("moved: python -m electra_fast.cli.bundle RUN makes the bundled model")
