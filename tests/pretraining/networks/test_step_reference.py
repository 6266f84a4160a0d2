"""Whole training steps against the paper's description, written out here by hand: networks, losses, AdamW, clipping.

Nothing of the package computes the expected values; gradients are autograd's, of formulas in plain torch.
"""

import math

import pytest
import torch

from electra_fast import ElectraConfig
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel
from electra_fast.training.optim import AdamW, decay_groups

PAD, CLS, SEP, MASK, VOCAB = 0, 1, 2, 3, 40
SPECIAL = (PAD, CLS, SEP, MASK)
LENGTHS = [12, 7, 16]
EPS = 1e-12
SHAPES = {"generator": dict(n_layers=2, n_heads=1), "discriminator": dict(n_layers=2, n_heads=3)}
SHARED = "electra.embeddings."


def model():
    torch.manual_seed(0)
    same = dict(
        vocab_size=VOCAB,
        embedding_size=10,
        num_hidden_layers=2,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    made = ElectraPretrainingModel(
        ElectraConfig(**same, hidden_size=8, num_attention_heads=1, intermediate_size=24),
        ElectraConfig(**same, hidden_size=24, num_attention_heads=3, intermediate_size=40),
        mask_token_id=MASK,
        special_token_ids=SPECIAL,
        impl="torch",
    ).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5).add_(torch.randn_like(parameter) * 0.1)
    return made


def text(seed):
    random = torch.Generator().manual_seed(seed)
    rows = [[CLS, *torch.randint(4, VOCAB, (n - 2,), generator=random).tolist(), SEP] for n in LENGTHS]
    return rows, torch.rand(3, sum(LENGTHS), generator=random)


# The paper, by hand


def norm(x, w, name):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def encode(ids, w, n_layers, n_heads):
    """[S] token ids -> [S, H]"""
    n = len(ids)
    table = {kind: w[f"{SHARED}{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")}
    x = table["word"][ids] + table["position"][:n] + table["token_type"][0]
    x = dense(norm(x, w, f"{SHARED}LayerNorm"), w, "electra.embeddings_project")
    for i in range(n_layers):
        layer = f"electra.encoder.layer.{i}"
        q, k, v = (
            dense(x, w, f"{layer}.attention.self.{part}").view(n, n_heads, -1).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        scores = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).exp()
        attended = ((scores / scores.sum(-1, keepdim=True)) @ v).transpose(0, 1).reshape(n, -1)
        x = norm(x + dense(attended, w, f"{layer}.attention.output.dense"), w, f"{layer}.attention.output.LayerNorm")
        inner = dense(gelu(dense(x, w, f"{layer}.intermediate.dense")), w, f"{layer}.output.dense")
        x = norm(x + inner, w, f"{layer}.output.LayerNorm")
    return x


def vocabulary_logits(hidden, w):
    x = norm(gelu(dense(hidden, w, "generator_predictions.dense")), w, "generator_predictions.LayerNorm")
    return x @ w[f"{SHARED}word_embeddings.weight"].T + w["generator_lm_head.bias"]


def losses_of(weights, rows, uniform):
    """(generator's loss, discriminator's loss) of one step, the masks and samples drawn from the numbers given."""
    generator, discriminator = weights["generator"], weights["discriminator"]
    masked_losses, token_losses, start = [], [], 0
    for row in rows:
        numbers = uniform[:, start : start + len(row)].tolist()
        candidates = [i for i, token in enumerate(row) if token not in SPECIAL]
        n_masked = max(1, round(0.15 * len(row)))
        chosen = sorted(candidates, key=lambda i: numbers[0][i])[:n_masked]
        read = [MASK if i in chosen and numbers[1][i] < 0.85 else token for i, token in enumerate(row)]
        hidden = encode(torch.tensor(read), generator, **SHAPES["generator"])
        corrupted = list(row)
        for i in chosen:
            logits = vocabulary_logits(hidden[i], generator)
            probabilities = logits.exp() / logits.exp().sum()
            masked_losses.append(-probabilities[row[i]].log())
            cumulative, corrupted[i] = 0.0, VOCAB - 1
            for token, probability in enumerate(probabilities.tolist()):
                cumulative += probability
                if cumulative > numbers[2][i]:
                    corrupted[i] = token
                    break
        hidden = encode(torch.tensor(corrupted), discriminator, **SHAPES["discriminator"])
        inner = gelu(dense(hidden, discriminator, "discriminator_predictions.dense"))
        is_fake = 1 / (1 + (-dense(inner, discriminator, "discriminator_predictions.dense_prediction")[:, 0]).exp())
        for i, token in enumerate(row):
            token_losses.append(-(is_fake[i] if corrupted[i] != token else 1 - is_fake[i]).log())
        start += len(row)
    return sum(masked_losses) / len(masked_losses), sum(token_losses) / len(token_losses)


def leaves(made):
    """The model's weights by their Hub names, cut from it; the embeddings once, for both networks."""
    weights = {}
    for network in ("discriminator", "generator"):
        state = getattr(made, network).state_dict()
        weights[network] = {name: value.clone().requires_grad_() for name, value in state.items()}
    for name in [name for name in weights["generator"] if name.startswith(SHARED)]:
        weights["generator"][name] = weights["discriminator"][name]
    del weights["generator"]["generator_lm_head.weight"]
    return weights


def unique(weights):
    return {id(value): (name, value) for network in weights.values() for name, value in network.items()}.values()


def adamw(weights, moments, lr):
    """The original's update: all gradients clipped to norm 1, no bias correction, eps outside the root."""
    entries = list(unique(weights))
    total = math.sqrt(sum(value.grad.square().sum().item() for _, value in entries))
    for name, value in entries:
        m, v = moments.setdefault(id(value), [torch.zeros_like(value), torch.zeros_like(value)])
        gradient = value.grad / max(total, 1.0)
        m.copy_(0.9 * m + 0.1 * gradient)
        v.copy_(0.999 * v + 0.001 * gradient**2)
        update = m / (v.sqrt() + 1e-6)
        if "LayerNorm" not in name and "bias" not in name:
            update = update + 0.01 * value.detach()
        with torch.no_grad():
            value -= lr * update
        value.grad = None
    return total


def test_three_steps_are_the_papers():
    made = model()
    weights, moments = leaves(made), {}
    optimizer = AdamW(decay_groups(made, 0.01), lr=3e-3, impl="torch")
    packed = PackedBatch.from_cu_seqlens(1, sum(LENGTHS), cu_seqlens_of(LENGTHS), max(LENGTHS))
    n_replaced = 0
    for step in range(3):
        rows, uniform = text(step)
        output = made(torch.tensor([token for row in rows for token in row]), packed, random=uniform)
        output.loss.backward()
        n_replaced += int(output.is_replaced.sum())

        generator_loss, discriminator_loss = losses_of(weights, rows, uniform)
        (generator_loss + 50 * discriminator_loss).backward()
        for got, expected in (
            (output.generator_loss, generator_loss),
            (output.discriminator_loss, discriminator_loss),
            (output.loss, generator_loss + 50 * discriminator_loss),
        ):
            assert got.item() == pytest.approx(expected.item(), rel=0, abs=1e-10)
        for network in ("generator", "discriminator"):
            for name, parameter in getattr(made, network).named_parameters():
                expected = weights[network][name].grad
                torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-10, msg=f"{step} {network} {name}")

        optimizer.step()
        optimizer.zero_grad()
        total = adamw(weights, moments, lr=3e-3)
        assert optimizer.grad_norm.item() == pytest.approx(total, rel=1e-12)
        assert total > 1, "or clipping was not tested"
        for network, expected in weights.items():
            state = getattr(made, network).state_dict()
            for name, value in expected.items():
                torch.testing.assert_close(state[name], value.detach(), rtol=0, atol=1e-10, msg=f"{step} {name}")
    assert n_replaced > 5, "or the discriminator's labels were not tested"


def test_shared_embeddings_get_both_gradients():
    """The sum of what each loss alone sends to the tables, and neither is zero."""
    rows, uniform = text(0)
    gradients = {}
    for weight in ((1.0, 0.0), (0.0, 50.0), (1.0, 50.0)):
        made = model()
        made.gen_weight, made.disc_weight = weight
        packed = PackedBatch.from_cu_seqlens(1, sum(LENGTHS), cu_seqlens_of(LENGTHS), max(LENGTHS))
        made(torch.tensor([token for row in rows for token in row]), packed, random=uniform).loss.backward()
        shared = [p for name, p in made.discriminator.named_parameters() if name.startswith(SHARED)]
        assert len(shared) == 5
        gradients[weight] = [p.grad for p in shared]
    for one, other, both in zip(*gradients.values(), strict=True):
        assert one.abs().max() > 1e-6
        assert other.abs().max() > 1e-6
        torch.testing.assert_close(one + other, both, rtol=0, atol=1e-10)
