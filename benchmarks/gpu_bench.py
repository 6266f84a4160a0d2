"""`python -m electra_fast.benchmarks.gpu_bench NAME FILE`: one benchmark as `make gpu` runs it; rows go to FILE.

Each function imports its own benchmark only: what is broken in one must not end the others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol


class Bench(Protocol):
    """A benchmark of the command line, with its options."""

    def run(self) -> None:
        """Measures, prints a table and writes the rows."""


def ops(json: Path) -> Bench:
    from .ops.bench import OpsBench

    return OpsBench(seconds=125.0, json=json)


def model(json: Path) -> Bench:
    from .model.bench import ModelBench

    return ModelBench(
        sizes=("base", "small"),
        against=("transformers", "compiled"),
        device="cuda",
        dtype="bf16",
        repeats=11,
        seconds=70.0,
        cold_start=False,
        json=json,
    )


def pretrain(json: Path) -> Bench:
    from .pretrain.bench import PretrainBench

    return PretrainBench(
        presets=("small", "base"),
        lengths=(128,),
        providers=("electra_fast", "transformers-eager", "transformers-compiled-gathered"),
        device="cuda",
        steps=50,
        seconds=30.0,
        json=json,
    )


BENCHES = {"ops": ops, "model": model, "pretrain": pretrain}


if __name__ == "__main__":
    BENCHES[sys.argv[1]](Path(sys.argv[2])).run()
