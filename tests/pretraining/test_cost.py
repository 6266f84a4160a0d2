"""Floating-point operations: the published figures, a count by torch, and the table."""

from dataclasses import replace

import pytest
import torch
import tyro
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from electra_fast import ElectraTokenizer
from electra_fast.cli.cost import CostCommand
from electra_fast.model.packing import PackedBatch
from electra_fast.pretraining import PRESETS
from electra_fast.pretraining.build import build_model
from electra_fast.pretraining.cost import mfu, papers_flops, training_flops
from electra_fast.pretraining.text.vocab import SPECIAL_TOKENS
from electra_fast.training.gpus import GPUS, peak_flops


@pytest.mark.parametrize(
    ("name", "published"), [("small", 1.294e18), ("base", 6.425e19), ("large", 7.118e20)], ids=lambda x: str(x)
)
def test_the_papers_totals(name, published):
    recipe = PRESETS[name]
    assert papers_flops(recipe, 30522).total * recipe.batch_size * recipe.n_steps == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "length", "flops", "share"),
    [
        ("small", 128, 6.11e9, 0.12),
        ("base", 128, 5.26e10, 0.14),
        ("base", 512, 2.32e11, 0.15),
        ("large", 512, 7.41e11, 0.09),
        ("small-plus", 512, 5.42e10, 0.51),
    ],
)
def test_the_papers_count_with_free_look_ups(name, length, flops, share):
    counted = papers_flops(replace(PRESETS[name], seq_length=length), 30522, sparse_lookup=True)
    assert counted.total == pytest.approx(flops, rel=2e-3)
    assert counted.generator / counted.total == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(
    "options",
    [
        {"num_attention_heads": 2},
        {"embedding_size": 64, "mask_prob": 0.25},
        {"objective": "mlm"},
        {"generator_kind": "uniform"},
        {"generator_kind": "tied", "generator_size": 1.0, "generator_layers": 1.0},
        {"generator_layers": 0.5, "embedding_sharing": "gdes"},
    ],
    ids=str,
)
def test_matrix_products_are_those_that_torch_counts(options):
    recipe = replace(PRESETS["tiny"], num_hidden_layers=2, temperature=1.0, **options)
    forward, backward = counted_by_torch(recipe)
    ours = training_flops(recipe, 1000).total
    assert forward == ours / 3
    assert backward == 2 * ours / 3


def test_a_frozen_generator_has_no_backward():
    recipe = replace(PRESETS["tiny"], num_hidden_layers=2, embedding_sharing="nes", frozen_generator=True)
    forward, backward = counted_by_torch(recipe)
    assert training_flops(recipe, 1000).total == forward + backward
    assert training_flops(recipe, 1000).discriminator == 1.5 * backward


def test_two_towers():
    recipe = replace(PRESETS["tiny"], num_hidden_layers=2, objective="electric", temperature=1.0)
    forward, _ = counted_by_torch(recipe)
    # Logits of masked tokens are computed again, for the probabilities of their samples.
    again = 2 * 10 * 128 * 1000
    assert forward == training_flops(recipe, 1000).total / 3 + again


def counted_by_torch(recipe):
    """Forward and backward of one sequence."""
    tokenizer = ElectraTokenizer(vocab={token: i for i, token in enumerate((*SPECIAL_TOKENS, *map(str, range(995))))})
    model = build_model(recipe, tokenizer, impl="torch")
    packed = PackedBatch.full(1, recipe.seq_length, torch.device("cpu"))
    ids = torch.randint(200, 1000, (recipe.seq_length,))
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        output = model(ids, packed)
    with FlopCounterMode(display=False) as backward:
        output.loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def test_the_papers_count_is_refused_where_it_has_none():
    with pytest.raises(ValueError, match=r"needs objective electra .* got objective mlm"):
        papers_flops(replace(PRESETS["small"], objective="mlm"), 30522)


def test_mfu_is_one_where_all_of_the_peak_went_into_matrix_products():
    recipe = PRESETS["small"]
    sequences_per_second = 989e12 / training_flops(recipe, 30522).total
    assert mfu(128 * sequences_per_second, recipe, 30522, 989e12) == pytest.approx(1)


@pytest.mark.parametrize(
    ("device_name", "gpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100 80GB PCIe", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("", None),
    ],
)
def test_peaks_by_the_names_that_devices_have(device_name, gpu):
    assert peak_flops(device_name) == (GPUS[gpu].peak_flops if gpu else None)


def test_the_table(capsys):
    CostCommand(preset="small", gpu="h200", gpus=8, mfu=0.5, steps=1000).run()
    out = capsys.readouterr().out
    flops = training_flops(PRESETS["small"], 30522).total * 128_000
    assert f"{flops:.3g} in matrix products" in out
    label, _, name, peak, tokens, hours = out.splitlines()[-1].split()
    assert (label, name, peak) == ("8", "h200", "7,912")
    seconds = flops / (8 * 989e12 * 0.5)
    assert float(tokens.replace(",", "")) == pytest.approx(128_000 * 128 / seconds, abs=1)
    assert float(hours) == pytest.approx(seconds / 3600, abs=0.006)


def test_every_gpu_without_one_named(capsys):
    CostCommand(preset="large", batch_size=16, seq_length=128, vocab_size=50_000).run()
    out = capsys.readouterr().out
    assert all(f"1 x {name} " in out for name in GPUS)
    assert "16 sequences of 128 tokens" in out


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_known_by_its_name(name, capsys):
    tyro.cli(CostCommand, args=["--preset", name, "--gpu", "h200"]).run()
    assert f"preset              {name}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"), [({"gpus": 0}, "gpus must be at least 1"), ({"mfu": 30}, "mfu must be above 0")]
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CostCommand(**options).run()
