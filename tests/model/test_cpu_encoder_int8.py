"""The encoder in C++ in eight bits: results against the formula, what it refuses, and what a model keeps."""

from __future__ import annotations

import pytest
import torch
from cpu_pairs import NAMES, SMALL, limit_to, pair, tokens

from electra_fast import (
    ElectraConfig,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraModel,
)
from electra_fast.model import cpu_encoder
from electra_fast.ops import cpu

pytestmark = pytest.mark.skipif(cpu_encoder.obstacle() is not None, reason=f"{cpu_encoder.obstacle()}")


@pytest.fixture(params=NAMES)
def instructions(request, monkeypatch):
    limit_to(request.param, monkeypatch)


@pytest.mark.usefixtures("instructions")
@torch.inference_mode()
def test_eight_bits_are_near_and_the_model_stays_as_it_was():
    served, reference = pair(hidden_size=128, num_attention_heads=4, intermediate_size=512, num_hidden_layers=4)
    ids, packed = tokens([1, 60, 7, 130])
    expected = reference.encode_packed(ids, packed)
    assert served.quantize("int8") is served
    found = served.encode_packed(ids, packed)
    assert 1e-4 < (found - expected).norm() / expected.norm() < 0.03
    assert all(
        torch.equal(a, b) for a, b in zip(served.state_dict().values(), reference.state_dict().values(), strict=True)
    )
    torch.testing.assert_close(served.quantize("fp32").encode_packed(ids, packed), expected, rtol=0, atol=2e-5)


@pytest.mark.usefixtures("instructions")
@torch.inference_mode()
def test_eight_bits_are_those_of_the_formula():
    """One product by hand: weights rounded by column, activations by row with 0 among their values."""
    served, reference = pair(num_hidden_layers=1)
    ids, packed = tokens([1])  # attention to itself alone: the values
    served.quantize()

    def rounded(x, low, high):
        step = torch.where(high > low, (high - low) / 255, 1)
        zero = (-low / step).round()
        return (((x / step).round() + zero).clamp(0, 255) - zero) * step

    def linear(module, x):
        step = module.weight.abs().amax(1, keepdim=True) / 127
        weight = (module.weight / step).round() * step
        x = rounded(x, x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0))
        return torch.nn.functional.linear(x, weight, module.bias)

    position = packed.position_ids(1)
    hidden = reference.embeddings(ids, torch.zeros_like(ids), position, None, reference.embeddings_project)
    layer = reference.encoder.layer[0]
    values = linear(layer.attention.self.value, hidden)
    if "BF16" in cpu.instructions():
        values = values.bfloat16().float()
    hidden = layer.attention.output.LayerNorm(hidden + linear(layer.attention.output.dense, values))
    inner = torch.nn.functional.gelu(linear(layer.intermediate.dense, hidden))
    expected = layer.output.LayerNorm(hidden + linear(layer.output.dense, inner))
    # A value that lies between two bytes may go to either.
    torch.testing.assert_close(served.encode_packed(ids, packed), expected, rtol=0, atol=2e-2)
    assert (served.encode_packed(ids, packed) - expected).abs().median() < 1e-4


@pytest.mark.usefixtures("instructions")
def test_an_eight_bit_model_refuses_what_it_cannot_serve():
    model = ElectraForSequenceClassification(ElectraConfig(**SMALL)).eval().quantize()
    ids = torch.ones(1, 5, dtype=torch.long)
    with pytest.raises(RuntimeError, match=r"int8.*gradients are enabled"):
        model(ids)
    with torch.inference_mode():
        assert model(ids).logits.shape == (1, 2)
        with pytest.raises(RuntimeError, match=r"int8.*padded form"):
            model(ids, output_attentions=True)
        with pytest.raises(RuntimeError, match=r"int8.*training"):
            model.train()(ids)
    with pytest.raises(ValueError, match="precision must be one of fp32, int8, got 'int4'"):
        model.quantize("int4")


@pytest.mark.usefixtures("instructions")
@torch.inference_mode()
def test_eight_bits_from_a_directory(tmp_path):
    model = ElectraForPreTraining(ElectraConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path)
    ids = torch.randint(50, (2, 9))
    loaded = ElectraForPreTraining.from_pretrained(tmp_path, dtype="int8")
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded(ids).logits, model.quantize()(ids).logits, rtol=0, atol=0)


def test_a_processor_without_the_encoder_says_so(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_ISA", "scalar")
    with pytest.raises(ValueError, match="int8 cannot run here: ELECTRA_FAST_ISA=scalar allows neither"):
        ElectraModel(ElectraConfig(**SMALL)).quantize()
