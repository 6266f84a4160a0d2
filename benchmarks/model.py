"""Inference speed of the models beside transformers, side by side in one run.

Providers take turns (A B A B ...) on the same weights and the same padded batch; the ratio is the median of the ratios
of neighbouring runs. A provider whose hidden states differ too much from transformers' eager ones in fp32 gets no time:
in fp32 by over 1e-4 anywhere, in 16 bits by over twice what transformers' eager ones in the same dtype differ. Tokens a
second counts real tokens only. On a GPU a run ends when the GPU is done, so launching counts where it takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ..backbone import ElectraModel
from ..config import ElectraConfig
from .gpu import device_names
from .measure import append_rows, check_writable, machine, markdown, quantiles, ratio, require, time_in_turn

SHAPES = {
    "tiny": dict(
        hidden_size=128, embedding_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "small": dict(),
    "base": dict(hidden_size=768, embedding_size=768, num_attention_heads=12, intermediate_size=3072),
    "large": dict(
        hidden_size=1024,
        embedding_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EAGER, SDPA, OURS = "transformers eager", "transformers sdpa", "electra_fast"
COMPILED, CAPTURED = "transformers sdpa, compiled", "electra_fast, captured"


@dataclass(kw_only=True)
class ModelBench:
    """Measure inference of ElectraModel beside transformers."""

    sizes: tuple[str, ...] = ("small",)
    """Model sizes: tiny, small, base, large."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to run; on cuda the batches are larger, and ours also runs captured in CUDA graphs."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of weights and activations."""
    compile: bool = False
    """Also compile transformers with torch.compile, for every batch anew."""
    repeats: int = 11
    """Timed rounds; each runs every provider once."""
    seconds: float = float("inf")
    """When to stop: what has not begun by then is left out."""
    json: Path | None = None
    """Append one row a provider and workload to this JSONL file."""

    def run(self) -> None:
        unknown = set(self.sizes) - set(SHAPES)
        if unknown or self.repeats < 1:
            raise ValueError(
                f"sizes must be among {', '.join(SHAPES)} and repeats at least 1, "
                f"got sizes {' '.join(self.sizes)} and repeats {self.repeats}"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device cuda needs a CUDA GPU, and torch sees none")
        check_writable(self.json)
        require("transformers", "hf")
        begin = time.perf_counter()
        batches = [(size, name, lengths) for size in self.sizes for name, lengths in workloads(self.device).items()]
        about = {"threads": torch.get_num_threads(), **machine("torch", "triton", "transformers")}
        about |= {"dtype": self.dtype, **device_names(torch.device(self.device))}
        rows: list[dict] = []
        left_out = []
        with tqdm(total=len(batches) * self.repeats * len(self.providers), disable=None) as bar:
            for size, name, lengths in batches:
                if time.perf_counter() - begin > self.seconds:
                    left_out.append(f"{size}, {name}")
                    continue
                new = [row | about for row in self.measure(size, name, lengths, bar)]
                rows += new
                if self.json is not None:
                    append_rows(self.json, new)
        print(table(rows))
        if left_out:
            print(f"left out after {self.seconds:g} s: {'; '.join(left_out)}")
        wrong = [row for row in rows if row["milliseconds"] is None]
        if wrong:
            raise SystemExit("\n".join(f"{row['size']}, {row['workload']}: {row['status']}" for row in wrong))

    @property
    def providers(self) -> list[str]:
        chosen = {EAGER: True, SDPA: True, COMPILED: self.compile, OURS: True, CAPTURED: self.device == "cuda"}
        return [name for name, is_chosen in chosen.items() if is_chosen]

    @torch.inference_mode()
    def measure(self, size: str, workload: str, lengths: list[int], bar: tqdm) -> list[dict]:
        device, dtype = torch.device(self.device), DTYPES[self.dtype]
        models = load(size, self.providers, device)
        torch.manual_seed(0)
        ids = torch.randint(1000, 30000, (len(lengths), max(lengths)), device=device)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(device)

        def states(model: torch.nn.Module) -> Tensor:
            return hidden_states(model, ids, mask)[mask.bool()].double()

        expected = states(models[EAGER])
        for model in models.values():
            model.to(dtype)
        allowed = (states(models[EAGER]) - expected).square().mean().sqrt().item() * 2
        rows: dict[str, dict] = {}
        for name, model in models.items():
            rows[name] = row = {"provider": name, "status": "right", "milliseconds": None}
            try:
                error = states(model) - expected
            except Exception as problem:  # the others shall have their times
                row["status"] = f"{name} fails: {type(problem).__name__}: {problem}"[:300]
                continue
            largest, rms = error.abs().max().item(), error.square().mean().sqrt().item()
            if not (largest <= 1e-4 if dtype == torch.float32 else rms <= allowed):
                row["status"] = f"{name} is wrong by up to {largest:.1e}, {rms:.1e} RMS: it gets no time"
        right = [name for name, row in rows.items() if row["status"] == "right"]
        runs = {name: partial(hidden_states, models[name]) for name in right}
        make: dict[str, Callable] = {name: lambda run=run: run for name, run in runs.items()}
        times = time_in_turn(make, [(ids, mask)], self.repeats, bar)
        for name, seconds in times.items():
            rows[name] |= {
                "tokens_per_second": round(sum(lengths) / quantiles(seconds)[1]),
                "milliseconds": [round(1e3 * q, 2) for q in quantiles(seconds)],
                "ratio": round(ratio(seconds, times[OURS]), 3) if OURS in times else None,
            }
        return [{"bench": "model", "size": size, "workload": workload, **row} for row in rows.values()]


def workloads(device: str = "cpu") -> dict[str, list[int]]:
    """Lengths of each batch: one sentence, full rows, and lengths N(256, 64) and N(32, 16) as texts have them."""
    torch.manual_seed(0)

    def normal(n: int, mean: float, std: float) -> list[int]:
        return (torch.randn(n) * std + mean).round().clamp(8, 512).int().tolist()

    if device == "cuda":
        return {
            "batch 1, 32 tokens": [32],
            "batch 128, full 128": [128] * 128,
            "batch 64, N(256, 64)": normal(64, 256, 64),
            "batch 32, full 512": [512] * 32,
            "batch 256, N(32, 16)": normal(256, 32, 16),
        }
    return {
        "batch 1, 32 tokens": [32],
        "batch 8, full 128": [128] * 8,
        "batch 16, N(256, 64)": normal(16, 256, 64),
        "batch 32, N(32, 16)": normal(32, 32, 16),
    }


def load(size: str, providers: list[str], device: torch.device) -> dict[str, torch.nn.Module]:
    """The same fp32 weights in every provider."""
    import transformers

    torch.manual_seed(0)
    torch.compiler.reset()  # else, after some batches, torch.compile gives up and runs eagerly
    models: dict[str, torch.nn.Module] = {}
    for name in providers:
        if name.startswith(OURS):
            models[name] = ElectraModel(ElectraConfig(**SHAPES[size]))
        else:  # a config each: the choice of attention is written into it
            config, attention = transformers.ElectraConfig(**SHAPES[size]), "eager" if name == EAGER else "sdpa"
            models[name] = transformers.AutoModel.from_config(config, attn_implementation=attention)
    state = models[EAGER].state_dict()
    for name, model in models.items():
        model.load_state_dict(state)
        model.eval().to(device)
        if name == COMPILED:
            model.compile(dynamic=False)
        if name == CAPTURED:
            model.capture(max_tokens=1 << 20)
    return models


def hidden_states(model: torch.nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    out = model(input_ids=ids, attention_mask=mask).last_hidden_state
    if out.is_cuda:
        torch.cuda.synchronize()
    return out


def table(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        name, times, tokens, speed = f"{row['size']}, {row['workload']}", "no time", "", ""
        if row["milliseconds"] is not None:
            times, tokens = " / ".join(f"{t:g}" for t in row["milliseconds"]), f"{row['tokens_per_second']:,}"
            speed = "" if row["provider"] == OURS or row["ratio"] is None else f"{row['ratio']:.2f} x as fast"
        lines.append((name, row["provider"], times, tokens, speed))
    header = ("model, workload", "provider", "ms (20 / 50 / 80 %)", "real tokens/s", "electra_fast is")
    return markdown(header, lines)
