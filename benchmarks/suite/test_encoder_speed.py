"""The encoder of the small model on a CPU: padded batches in, hidden states out, fp32."""

import pytest
import torch

from electra_fast import ElectraConfig, ElectraModel

FULL = {"1x16": (1, 16), "1x128": (1, 128), "8x128": (8, 128), "2x512": (2, 512)}


@pytest.fixture(scope="module")
def model() -> ElectraModel:
    torch.manual_seed(0)
    return ElectraModel(ElectraConfig()).eval()


def run(benchmark, model, lengths: torch.Tensor) -> None:
    ids = torch.randint(1000, 30000, (len(lengths), int(lengths.max())), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    with torch.inference_mode():
        benchmark.pedantic(model, kwargs={"input_ids": ids, "attention_mask": mask}, rounds=15, warmup_rounds=2)


@pytest.mark.benchmark(group="encoder")
@pytest.mark.parametrize("shape", FULL)
def test_full(benchmark, model, shape):
    n_rows, length = FULL[shape]
    run(benchmark, model, torch.full((n_rows,), length))


@pytest.mark.benchmark(group="encoder")
def test_sentences(benchmark, model):
    """Measures lengths from 8 to 64, where about half is padding."""
    run(benchmark, model, torch.randint(8, 64, (16,), generator=torch.Generator().manual_seed(0)))
