"""A pre-training step on the Triton kernels beside the same step on torch, and as CUDA graphs.

The kernels run on the GPU if there is one, else in Triton's interpreter.
"""

import pytest
import torch

from electra_fast import ElectraConfig
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel
from electra_fast.training.capture import CapturedStep
from electra_fast.training.distributed import join
from electra_fast.training.gradients import FlatGradients, Gradients
from electra_fast.training.optim import AdamW, decay_groups
from electra_fast.training.step import Step

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB, MASK = 50, 3
SHARED = dict(vocab_size=VOCAB, embedding_size=16, num_hidden_layers=2, max_position_embeddings=32)


def model(impl, dropout=0.0, dtype=torch.float32):
    torch.manual_seed(0)
    rates = dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    made = ElectraPretrainingModel(
        ElectraConfig(**SHARED, **rates, hidden_size=16, num_attention_heads=1, intermediate_size=32),
        ElectraConfig(**SHARED, **rates, hidden_size=32, num_attention_heads=2, intermediate_size=40),
        mask_token_id=MASK,
        special_token_ids=(0, 1, 2, MASK),
        impl=impl,
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter) * 0.05)
    return made.to(DEVICE, dtype)


def batch(lengths):
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB, (sum(lengths),))
    packed = PackedBatch.from_cu_seqlens(1, sum(lengths), cu_seqlens_of(lengths, DEVICE), max(lengths))
    return ids.to(DEVICE), packed


@pytest.mark.parametrize("lengths", [[9, 16, 3], [24, 24]], ids=str)
def test_a_step_is_that_of_torch(lengths):
    ours, reference = model("triton"), model("torch")
    ids, packed = batch(lengths)
    random = torch.rand(3, len(ids), generator=torch.Generator().manual_seed(5)).to(ids.device)
    outputs = [network(ids, packed, random=random) for network in (ours, reference)]
    for output in outputs:
        output.loss.backward()
    got, expected = outputs
    assert torch.equal(got.corrupted_ids, expected.corrupted_ids)
    assert got.is_replaced.any()
    for name in ("loss", "generator_loss", "discriminator_loss", "generator_accuracy", "logits"):
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-5)
    for (name, p), q in zip(ours.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4, msg=name)


def train(n_steps, dtype=torch.float32):
    network = model("triton", dropout=0.1, dtype=dtype)
    optimizer = AdamW(decay_groups(network, 0.01), lr=5e-3, impl="triton")
    ids, packed = batch([12, 12])
    torch.manual_seed(2)
    losses = []
    for _ in range(n_steps):
        output = network(ids, packed)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.detach())
    return torch.stack(losses), list(network.parameters())


def test_two_runs_are_bit_equal():
    (losses, weights), (same_losses, same_weights) = train(2), train(2)
    assert torch.equal(losses, same_losses)
    for one, other in zip(weights, same_weights, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float32, marks=pytest.mark.gpu)], ids=str)
def test_the_loss_falls(dtype):
    losses, _ = train(8, dtype)
    assert losses[-2:].mean() < 0.9 * losses[:2].mean()


@pytest.mark.gpu
def test_a_captured_step_trains_and_draws_anew():
    network = model("triton", dropout=0.1)
    optimizer = AdamW(decay_groups(network, 0.01), lr=5e-3, impl="triton")
    ids, packed = batch([24, 24, 24, 24])

    def compute(ids):
        output = network(ids, packed)
        output.loss.backward()
        return output.loss.detach(), output.corrupted_ids

    replay = CapturedStep(compute, [optimizer], Gradients(network))

    def step(ids):
        ((loss, corrupted),) = replay([(ids,)])
        return loss.clone(), corrupted.clone()

    losses, corrupted = zip(*(step(ids) for _ in range(30)), strict=True)
    assert torch.stack(losses[-5:]).mean() < 0.9 * torch.stack(losses[:5]).mean()
    assert len({tuple(x.tolist()) for x in corrupted[-10:]}) > 5
    frozen = torch.cat([p.detach().flatten() for p in network.parameters()])
    step(ids)
    assert not torch.equal(frozen, torch.cat([p.detach().flatten() for p in network.parameters()]))
    with pytest.raises(ValueError, match="a captured step takes inputs like its first"):
        step(ids[:50])


def trained(step_class, n_parts, is_flat):
    """Weights and losses of ten updates whose rate and temperature change, by one optimizer for each network."""
    network = model("triton", dropout=0.1)
    network.temperature = torch.tensor(1.0, device=DEVICE)
    discriminator = set(network.discriminator.parameters())
    parts = [[p for p in network.parameters() if (p in discriminator) == is_one] for is_one in (False, True)]
    optimizers = [AdamW(part, impl="triton") for part in parts]
    ids, packed = batch([24] * 4)

    def compute(ids, random):
        output = network(ids, packed, random=random)
        output.loss.backward()
        return {"loss": output.loss.detach()}

    step = step_class(compute, optimizers, FlatGradients(network, 1) if is_flat else Gradients(network))
    losses = []
    for i in range(10):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-2 / (i + 1)
        network.temperature.fill_(1 + i / 4)
        torch.manual_seed(i)
        data = [(ids.roll(j), torch.rand(3, len(ids), device=DEVICE)) for j in range(n_parts)]
        losses += [outputs["loss"].clone() for outputs in step(data)]
    return [torch.stack(losses), *(p.detach() for p in network.parameters())]


@pytest.mark.gpu
@pytest.mark.parametrize("is_flat", [False, True], ids=["alone", "flat"])
@pytest.mark.parametrize("n_parts", [1, 3])
def test_replayed_steps_are_the_eager_ones(n_parts, is_flat):
    """tests/training/test_capture.py with real graphs; flat gradients go through NCCL."""
    with join("cuda"):
        found, expected = (trained(each, n_parts, is_flat) for each in (CapturedStep, Step))
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)
