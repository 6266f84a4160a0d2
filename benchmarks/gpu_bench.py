"""`python -m electra_fast.benchmarks.gpu_bench NAME FILE`: benchmarks as `make gpu` runs them; rows go to FILE.

Each function imports its own benchmark only: what is broken in one must not end the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

_LARGE = 40e9  # bytes of GPU memory that the presets' batches need, for the peers' logits of every row


class Bench(Protocol):
    """A benchmark of the command line, with its options."""

    def run(self) -> None:
        """Measures, prints a table and writes the rows."""


def pretrain(preset: str, json: Path) -> Iterator[Bench]:
    """Training steps: ours alone, so that its row is there whatever peers do; beside peers; and ours on more tokens."""
    import torch

    from .pretrain.bench import OURS, PretrainBench

    has_room = not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory > _LARGE
    bench = partial(PretrainBench, presets=(preset,), lengths=(128,), device="cuda", steps=50, json=json)
    usual = None if has_room else 32
    yield bench(providers=(OURS,), batch_size=usual)
    yield bench(providers=(OURS, "transformers-compiled-gathered"), batch_size=usual)
    if has_room:
        yield bench(providers=(OURS,), batch_size=512)


def ops(json: Path) -> Iterator[Bench]:
    from .ops.bench import OpsBench

    yield OpsBench(seconds=90.0, json=json)


def model(json: Path) -> Iterator[Bench]:
    from .model.bench import ModelBench

    yield ModelBench(
        sizes=("base", "small"),
        against=("transformers", "compiled"),
        device="cuda",
        dtype="bf16",
        repeats=11,
        seconds=70.0,
        cold_start=False,
        json=json,
    )


BENCHES = {"small": partial(pretrain, "small"), "base": partial(pretrain, "base"), "ops": ops, "model": model}


if __name__ == "__main__":
    for each in BENCHES[sys.argv[1]](Path(sys.argv[2])):
        each.run()
