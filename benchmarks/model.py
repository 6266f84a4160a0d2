"""Inference speed of the models beside transformers, side by side in one run.

Providers take turns (A B A B ...) on the same weights and the same padded batch; the ratio is the median of the ratios
of neighbouring runs. A provider whose hidden states differ from transformers' eager ones in fp32 gets no time. Tokens a
second counts real tokens only.

    python -m benchmarks.model [--sizes small base] [--repeats 11] [--json FILE]
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
import tyro

import electra_fast

SHAPES = {
    "tiny": dict(
        hidden_size=128, embedding_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "small": dict(),
    "base": dict(hidden_size=768, embedding_size=768, num_attention_heads=12, intermediate_size=3072),
}
PROVIDERS = ("transformers eager", "transformers sdpa", "electra_fast")


@dataclass(kw_only=True)
class Bench:
    """Inference of ElectraModel: electra_fast beside transformers."""

    sizes: tuple[str, ...] = ("small",)
    """Model sizes: tiny, small, base."""
    repeats: int = 11
    """Timed rounds; each runs every provider once."""
    json: Path | None = field(default=None)
    """Append one row a provider and workload to this JSONL file."""

    def run(self) -> None:
        unknown = set(self.sizes) - set(SHAPES)
        if unknown or self.repeats < 1:
            raise SystemExit(f"sizes must be among {', '.join(SHAPES)} and repeats at least 1")
        rows = [
            row for size in self.sizes for name, batch in workloads().items() for row in self.measure(size, name, batch)
        ]
        print(table(rows))
        if self.json is not None:
            with self.json.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    @torch.inference_mode()
    def measure(self, size: str, workload: str, lengths: list[int]) -> list[dict]:
        models = load(size)
        ids = torch.randint(1000, 30000, (len(lengths), max(lengths)))
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        runs: dict[str, Callable] = {
            name: lambda model=model: model(input_ids=ids, attention_mask=mask).last_hidden_state
            for name, model in models.items()
        }
        expected = runs[PROVIDERS[0]]()[mask.bool()]
        for name, run in runs.items():
            error = (run()[mask.bool()] - expected).abs().max().item()
            if error > 1e-4:
                raise SystemExit(f"{name} is wrong by {error:.1e} on {size}, {workload}: it gets no time")
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(self.repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
        ours = times["electra_fast"]
        return [
            {
                "bench": "model",
                "size": size,
                "workload": workload,
                "provider": name,
                "tokens_per_second": round(sum(lengths) / statistics.median(seconds)),
                "milliseconds": [round(1e3 * q, 2) for q in quantiles(seconds)],
                "ratio": round(statistics.median(a / b for a, b in zip(seconds, ours, strict=True)), 3),
                **machine(),
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
    torch.manual_seed(0)
    models: dict[str, torch.nn.Module] = {}
    for attention in ("eager", "sdpa"):  # a config each: the choice of attention is written into it
        config = transformers.ElectraConfig(**SHAPES[size])
        models[f"transformers {attention}"] = transformers.AutoModel.from_config(config, attn_implementation=attention)
    models["electra_fast"] = electra_fast.ElectraModel(electra_fast.ElectraConfig(**SHAPES[size]))
    state = models["transformers eager"].state_dict()
    for model in models.values():
        model.load_state_dict(state)
        model.eval()
    return models


def quantiles(seconds: list[float]) -> list[float]:
    """20, 50 and 80 per cent."""
    ordered = sorted(seconds)
    return [ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8)]


def machine() -> dict[str, str | int]:
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "electra_fast": electra_fast.__version__,
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: list[dict]) -> str:
    lines = [
        "| model, workload | provider | ms (20 / 50 / 80 %) | real tokens/s | electra_fast is |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        times = " / ".join(f"{t:g}" for t in row["milliseconds"])
        speed = "" if row["provider"] == "electra_fast" else f"{row['ratio']:.2f} x as fast"
        name = f"{row['size']}, {row['workload']}"
        lines.append(f"| {name} | {row['provider']} | {times} | {row['tokens_per_second']:,} | {speed} |")
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(Bench).run()
