"""The ops of an encoder layer of the small and the base model on a CPU, fp32, as `impl="auto"` chooses them.

Tokens are those of 32 sentences, whose lengths are the same in every run.
"""

from functools import partial

import pytest
import torch

from electra_fast.ops import registry

HIDDEN = {"small": 256, "base": 768}


@pytest.fixture(params=HIDDEN)
def hidden(request) -> int:
    return HIDDEN[request.param]


@pytest.fixture(scope="module")
def lengths() -> torch.Tensor:
    return torch.randint(8, 64, (32,), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def random():
    """Makes tensors of any shape."""
    return partial(torch.randn, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def n_tokens(lengths) -> int:
    return int(lengths.sum())


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.mark.benchmark(group="attention")
def test_attention(benchmark, hidden, random, n_tokens, lengths):
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).int()
    qkv = random(n_tokens, 3, hidden // 64, 64)
    benchmark(registry.select("auto").attention, qkv, cu_seqlens, int(lengths.max()))


@pytest.mark.benchmark(group="linear_gelu")
def test_linear_gelu(benchmark, hidden, random, n_tokens):
    x, weight, bias = random(n_tokens, hidden), random(4 * hidden, hidden), random(4 * hidden)
    benchmark(registry.select("auto").linear_gelu, x, weight, bias)


@pytest.mark.benchmark(group="dropout_add_norm")
def test_dropout_add_norm(benchmark, hidden, random, n_tokens):
    x, residual = random(n_tokens, hidden), random(n_tokens, hidden)
    benchmark(registry.select("auto").dropout_add_norm, x, residual, random(hidden), random(hidden), 1e-12)


@pytest.mark.benchmark(group="embed_norm_project")
def test_embed_norm_project(benchmark, hidden, random, n_tokens, lengths):
    size = 128 if hidden == 256 else hidden
    ids = torch.randint(30522, (n_tokens,), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(n) for n in lengths.tolist()])
    tables = random(30522, size), random(512, size), random(2, size)
    project = (random(hidden, size), random(hidden)) if size != hidden else ()
    op = registry.select("auto").embed_norm_project
    benchmark(op, ids, torch.zeros_like(ids), positions, *tables, random(size), random(size), 1e-12, *project)
