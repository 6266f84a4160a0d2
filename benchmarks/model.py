"""Inference speed of the models beside transformers, side by side in one run.

Providers take turns (A B A B ...) on the same weights and the same padded batch; the ratio is the median of the ratios
of neighbouring runs. A provider whose hidden states differ from transformers' eager ones in fp32 gets no time. Tokens a
second counts real tokens only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..backbone import ElectraModel
from ..config import ElectraConfig
from .measure import append_rows, check_writable, machine, markdown, quantiles, ratio, require, time_in_turn

SHAPES = {
    "tiny": dict(
        hidden_size=128, embedding_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "small": dict(),
    "base": dict(hidden_size=768, embedding_size=768, num_attention_heads=12, intermediate_size=3072),
}
PROVIDERS = ("transformers eager", "transformers sdpa", "electra_fast")


@dataclass(kw_only=True)
class ModelBench:
    """Measure inference of ElectraModel beside transformers."""

    sizes: tuple[str, ...] = ("small",)
    """Model sizes: tiny, small, base."""
    repeats: int = 11
    """Timed rounds; each runs every provider once."""
    json: Path | None = None
    """Append one row a provider and workload to this JSONL file."""

    def run(self) -> None:
        unknown = set(self.sizes) - set(SHAPES)
        if unknown or self.repeats < 1:
            raise ValueError(
                f"sizes must be among {', '.join(SHAPES)} and repeats at least 1, "
                f"got sizes {' '.join(self.sizes)} and repeats {self.repeats}"
            )
        check_writable(self.json)
        require("transformers", "hf")
        batches = workloads()
        about = {"threads": torch.get_num_threads(), **machine("torch", "transformers")}
        rows = []
        with tqdm(total=len(self.sizes) * len(batches) * self.repeats * len(PROVIDERS), disable=None) as bar:
            for size in self.sizes:
                for name, lengths in batches.items():
                    rows += [row | about for row in self.measure(size, name, lengths, bar)]
        print(table(rows))
        if self.json is not None:
            append_rows(self.json, rows)

    @torch.inference_mode()
    def measure(self, size: str, workload: str, lengths: list[int], bar: tqdm) -> list[dict]:
        models = load(size)
        ids = torch.randint(1000, 30000, (len(lengths), max(lengths)))
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        runs = {name: partial(hidden_states, model) for name, model in models.items()}
        expected = runs[PROVIDERS[0]](ids, mask)[mask.bool()]
        for name, run in runs.items():
            error = (run(ids, mask)[mask.bool()] - expected).abs().max().item()
            if error > 1e-4:
                raise SystemExit(f"{name} is wrong by {error:.1e} on {size}, {workload}: it gets no time")
        make: dict[str, Callable] = {name: lambda run=run: run for name, run in runs.items()}
        times = time_in_turn(make, [(ids, mask)], self.repeats, bar)
        return [
            {
                "bench": "model",
                "size": size,
                "workload": workload,
                "provider": name,
                "tokens_per_second": round(sum(lengths) / quantiles(seconds)[1]),
                "milliseconds": [round(1e3 * q, 2) for q in quantiles(seconds)],
                "ratio": round(ratio(seconds, times["electra_fast"]), 3),
            }
            for name, seconds in times.items()
        ]


def workloads() -> dict[str, list[int]]:
    """Lengths of each batch: one sentence, full rows, and lengths N(256, 64) and N(32, 16) as texts have them."""
    torch.manual_seed(0)

    def normal(n: int, mean: float, std: float) -> list[int]:
        return (torch.randn(n) * std + mean).round().clamp(8, 512).int().tolist()

    return {
        "batch 1, 32 tokens": [32],
        "batch 8, full 128": [128] * 8,
        "batch 16, N(256, 64)": normal(16, 256, 64),
        "batch 32, N(32, 16)": normal(32, 32, 16),
    }


def load(size: str) -> dict[str, torch.nn.Module]:
    """The same weights in every provider."""
    import transformers

    torch.manual_seed(0)
    models: dict[str, torch.nn.Module] = {}
    for attention in ("eager", "sdpa"):  # a config each: the choice of attention is written into it
        config = transformers.ElectraConfig(**SHAPES[size])
        models[f"transformers {attention}"] = transformers.AutoModel.from_config(config, attn_implementation=attention)
    models["electra_fast"] = ElectraModel(ElectraConfig(**SHAPES[size]))
    state = models["transformers eager"].state_dict()
    for model in models.values():
        model.load_state_dict(state)
        model.eval()
    return models


def hidden_states(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, attention_mask=mask).last_hidden_state


def table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        times = " / ".join(f"{t:g}" for t in row["milliseconds"])
        speed = "" if row["provider"] == "electra_fast" else f"{row['ratio']:.2f} x as fast"
        name = f"{row['size']}, {row['workload']}"
        lines.append((name, row["provider"], times, f"{row['tokens_per_second']:,}", speed))
    header = ("model, workload", "provider", "ms (20 / 50 / 80 %)", "real tokens/s", "electra_fast is")
    return markdown(header, lines)
