"""Random sizes, batches and arguments through the encoder in C++ and the reference in torch, for RANDOM_SECONDS."""

from __future__ import annotations

import os
import random
import time

import pytest
import torch
from cpu_pairs import pair

from electra_fast.model import cpu_encoder

SECONDS = float(os.environ.get("RANDOM_SECONDS", "60"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + 600),
    pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}"),
]


def draw_model(draw: random.Random) -> dict:
    heads = draw.choice([1, 1, 2, 3, 4, 7])
    head_size = draw.choice([1, 2, 7, 8, 15, 16, 17, 24, 32, 33, 64, 65, 100])
    return dict(
        hidden_size=heads * head_size,
        num_attention_heads=heads,
        embedding_size=draw.choice([1, 5, 16, 24, 31, 64, heads * head_size]),
        intermediate_size=draw.choice([1, 3, 16, 63, 64, 65, 200, 1025]),
        num_hidden_layers=draw.choice([1, 1, 2, 3]),
        max_position_embeddings=1100,
        type_vocab_size=draw.choice([1, 2, 5]),
        is_decoder=draw.random() < 0.2,
    )


def draw_arguments(draw: random.Random, config) -> dict:
    rows, length = draw.randint(1, 8), draw.choice([1, 2, 3, 16, 17, 31, 64, 65, 200, draw.randint(1, 1100)])
    arguments = {"input_ids": torch.randint(config.vocab_size, (rows, length))}
    if draw.random() < 0.25:
        arguments = {"inputs_embeds": torch.randn(rows, length, config.embedding_size)}
    kind = draw.choice(["none", "right", "left", "anywhere", "packed"])
    if kind in ("right", "left"):
        lengths = torch.tensor([draw.randint(1, length) for _ in range(rows)])[:, None]
        mask = torch.arange(length) < lengths
        arguments["attention_mask"] = (mask if kind == "right" else mask.flip(1)).to(
            draw.choice([torch.long, torch.int])
        )
    elif kind == "anywhere" and not config.is_decoder:
        arguments["attention_mask"] = torch.rand(rows, length) < 0.7
        arguments["attention_mask"][:, draw.randrange(length)] = True
    elif kind == "packed":
        cuts = sorted(draw.sample(range(1, rows * length), min(draw.randint(0, 20), rows * length - 1)))
        starts = torch.tensor([0, *cuts, rows * length], dtype=torch.int32)
        if draw.random() < 0.5:
            starts = torch.stack([starts, -starts], 1)[:, 0]  # a column of a table
        arguments |= {"cu_seq_lens_q": starts, "max_length_q": int(starts.diff().max())}
    if draw.random() < 0.3:
        arguments["token_type_ids"] = torch.randint(config.type_vocab_size, (rows, length))
    if draw.random() < 0.3:
        arguments["position_ids"] = torch.randint(config.max_position_embeddings, (draw.choice([1, rows]), length))
    arguments["output_hidden_states"] = draw.random() < 0.3
    arguments["use_cache"] = False  # a decoder's cache takes the padded form, which torch computes
    return arguments


def test_random_models_and_arguments(monkeypatch):
    draw, end, n_threads = (
        random.Random(os.environ.get("RANDOM_SEED", "0")),
        time.monotonic() + SECONDS,
        torch.get_num_threads(),
    )
    served_calls = 0
    try:
        while time.monotonic() < end:
            seed = draw.randrange(2**31)
            sizes = draw_model(draw)
            monkeypatch.setenv("ELECTRA_FAST_ISA", draw.choice(["avx512", "avx2"]))
            served, reference = pair(seed, **sizes)
            for _ in range(5):
                torch.set_num_threads(draw.choice([1, 2, 3, 5]))
                arguments = draw_arguments(draw, served.config)
                with torch.inference_mode():
                    found, expected = served(**arguments), reference(**arguments)
                    served_calls += served.cpu_encoder._copy is not None
                # LayerNorm of one or two numbers magnifies errors without bounds.
                is_exact = min(served.config.embedding_size, served.config.hidden_size) > 2
                for name in found:
                    ours, theirs = (torch.stack(x) if type(x) is tuple else x for x in (found[name], expected[name]))
                    assert ours.isfinite().all(), (sizes, seed)
                    if is_exact:
                        assert (ours - theirs).abs().max() < 2e-4, (sizes, seed, name)
    finally:
        torch.set_num_threads(n_threads)
    assert served_calls > 0
