"""The torch implementation of each op against its formula, written out in fp64 with loops where that is plainest."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from electra_fast.model.packing import cu_seqlens_of
from electra_fast.ops import reference, reference_optim

LENGTHS = [[5], [1], [3, 7, 1], [4, 4, 4], [2, 0, 3], [0]]


def fp64(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def plain_attention(q, k, v, lengths, causal):
    out, start = torch.zeros_like(q), 0
    for n in lengths:
        for head in range(q.shape[1]):
            for i in range(start, start + n):
                seen = range(start, i + 1 if causal else start + n)
                scores = torch.stack([q[i, head] @ k[j, head] / math.sqrt(q.shape[2]) for j in seen])
                weights = scores.exp() / scores.exp().sum()
                out[i, head] = sum(w * v[j, head] for w, j in zip(weights, seen, strict=True))
        start += n
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention_is_softmax_within_each_sequence(lengths, causal):
    q, k, v = (torch.randn(sum(lengths), 3, 8, dtype=torch.float64) for _ in range(3))
    out = reference.attention(torch.stack([q, k, v], 1), cu_seqlens_of(lengths), max(lengths), causal=causal)
    torch.testing.assert_close(out, plain_attention(q, k, v, lengths, causal), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [[3, 2], [2, 2], [3, 0, 1]], ids=str)
def test_attention_gradient(lengths):
    qkv = fp64(sum(lengths), 3, 2, 4)
    assert gradcheck(lambda x: reference.attention(x, cu_seqlens_of(lengths), max(lengths)), (qkv,))


def test_attention_dropout_keeps_the_mean():
    qkv = torch.zeros(64, 3, 1, 4)
    qkv[:, 2] = 1
    out = torch.stack([reference.attention(qkv, cu_seqlens_of([64]), 64, dropout_p=0.25) for _ in range(50)])
    assert abs(out.mean().item() - 1) < 0.02
    assert out.std().item() > 0.01


@pytest.mark.parametrize("masked", [False, True])
def test_the_padded_forms_agree_with_the_packed_one(masked):
    q, k, v = (torch.randn(2, 4, 3, 8, dtype=torch.float64) for _ in range(3))
    lengths = [4, 2 if masked else 4]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    out = reference.padded_attention(q, k, v, mask[:, None, None])
    explicit, probabilities = reference.explicit_attention(q, k, v, mask[:, None, None])
    packed = reference.attention(torch.stack([x[mask] for x in (q, k, v)], 1), cu_seqlens_of(lengths), 4)
    torch.testing.assert_close(out[mask], packed, rtol=0, atol=1e-12)
    torch.testing.assert_close(explicit, out, rtol=0, atol=1e-12)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 3, 4, dtype=torch.float64))
    assert probabilities.masked_select(~mask[:, None, None]).abs().sum() == 0


@pytest.mark.parametrize("project", [False, True])
def test_embed_norm_project(project):
    word, position, kind = fp64(11, 6), fp64(5, 6), fp64(2, 6)
    weight, bias = fp64(6), fp64(6)
    matrix, offset = (fp64(9, 6), fp64(9)) if project else (None, None)
    ids, kinds, positions = torch.tensor([3, 0, 3]), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 4])
    out = reference.embed_norm_project(
        ids, kinds, positions, word, position, kind, weight, bias, 1e-12, matrix, offset, padding_idx=0
    )
    x = word[ids] + kind[kinds] + position[positions]
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-12).sqrt() * weight + bias
    expected = x @ matrix.T + offset if project else x
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    out.sin().sum().backward()
    assert word.grad[0].abs().sum() == 0  # the padding row learns nothing
    assert word.grad[3].abs().sum() > 0


def test_embed_takes_vectors_in_place_of_ids():
    word, position, kind, weight, bias = fp64(11, 6), fp64(5, 6), fp64(2, 6), fp64(6), fp64(6)
    ids, zeros = torch.tensor([[3, 4]]), torch.zeros(1, 2, dtype=torch.long)
    tables = (zeros, zeros, word, position, kind, weight, bias, 1e-12)
    out = reference.embed_norm_project(None, *tables, inputs_embeds=word[ids])
    assert torch.equal(out, reference.embed_norm_project(ids, *tables))


def test_dropout_add_norm():
    x, residual, weight, bias = fp64(3, 7), fp64(3, 7), fp64(7), fp64(7)
    s = x + residual
    expected = (s - s.mean(1, keepdim=True)) / (s.var(1, keepdim=True, correction=0) + 1e-12).sqrt() * weight + bias
    out = reference.dropout_add_norm(x, residual, weight, bias, 1e-12)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    assert gradcheck(lambda *a: reference.dropout_add_norm(*a, 1e-12), (x, residual, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_norm_of_equal_values_is_the_bias_and_not_nan(dtype):
    zero, weight, bias = torch.zeros(2, 8, dtype=dtype), torch.ones(8, dtype=dtype), torch.full((8,), 0.5, dtype=dtype)
    assert torch.equal(reference.dropout_add_norm(zero, zero, weight, bias, 1e-12), bias.expand(2, 8))


def test_linear_gelu_is_the_erf_gelu():
    x, weight, bias = fp64(3, 4), fp64(5, 4), fp64(5)
    y = x @ weight.T + bias
    expected = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
    torch.testing.assert_close(reference.linear_gelu(x, weight, bias), expected, rtol=0, atol=1e-12)


def test_rtd_head():
    hidden, dense, dense_bias, prediction, offset = fp64(5, 4), fp64(4, 4), fp64(4), fp64(1, 4), fp64(1)
    labels = torch.tensor([0, 1, 1, 0, 0])
    loss, logits = reference.rtd_head(hidden, dense, dense_bias, prediction, offset, labels)
    gate = torch.nn.functional.gelu(hidden @ dense.T + dense_bias)
    expected = gate @ prediction[0] + offset
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    p = torch.sigmoid(expected)
    torch.testing.assert_close(loss, -torch.where(labels == 1, p, 1 - p).log().mean(), rtol=0, atol=1e-12)
    assert reference.rtd_head(hidden, dense, dense_bias, prediction, offset)[0] is None


def test_masked_mean():
    values, counts = fp64(5), torch.tensor([True, False, True, True, False])
    assert torch.autograd.gradcheck(lambda x: reference.masked_mean(x, counts), fp64(5).requires_grad_())
    assert reference.masked_mean(values, counts) == (values[0] + values[2] + values[3]) / 3
    assert reference.masked_mean(values, torch.zeros(5, dtype=torch.bool)) == 0


def test_mlm_head_loss_and_accuracy():
    hidden, weight, bias = fp64(6, 4), fp64(9, 4), fp64(9)
    labels = torch.tensor([0, 8, 3, 3, 1, 2])
    losses, is_correct, samples = reference.mlm_head(hidden, weight, bias, labels)
    logits = hidden @ weight.T + bias
    expected = torch.stack([row.exp().sum().log() - row[label] for row, label in zip(logits, labels, strict=True)])
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-12)
    assert torch.equal(is_correct, logits.argmax(1) == labels)
    assert samples is None


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("never_label", [False, True])
def test_mlm_head_draws_from_the_softmax(temperature, never_label):
    n, vocab = 40_000, 7
    bias = torch.randn(vocab)
    labels = torch.full((n,), 2)
    uniform = torch.rand(n)
    _, _, samples = reference.mlm_head(
        torch.zeros(n, 4), torch.zeros(vocab, 4), bias, labels, uniform, temperature, never_label
    )
    p = (bias / temperature).masked_fill(torch.arange(vocab) == 2, -math.inf if never_label else bias[2] / temperature)
    p = p.softmax(0)
    counts = torch.bincount(samples, minlength=vocab)
    assert counts[p == 0].sum() == 0
    chi_square = ((counts - n * p) ** 2 / (n * p))[p > 0].sum().item()
    assert chi_square < 22.5  # 6 degrees of freedom, one in a thousand; the seed is fixed


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_mlm_head_at_the_ends_of_the_unit_interval(uniform):
    n, vocab = 50, 1000
    hidden = torch.randn(n, 8)
    _, _, samples = reference.mlm_head(
        hidden, torch.randn(vocab, 8), torch.zeros(vocab), torch.zeros(n, dtype=torch.long), torch.full((n,), uniform)
    )
    assert samples.min() >= 0
    assert samples.max() < vocab


def test_lamb_against_the_paper():
    p, grad = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    ours, m, v = p.clone(), torch.zeros_like(p), torch.zeros_like(p)
    reference_optim.lamb([ours], [ours], [grad], [m], [v], 0.1, 0.9, 0.999, 1e-6, 0.01, step=1)
    update = grad / (grad.abs() + 1e-6) + 0.01 * p
    torch.testing.assert_close(ours, p - 0.1 * p.norm() / update.norm() * update, rtol=0, atol=1e-12)


def test_lamb_without_adaptation_is_adamw():
    p, grad = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    states = [[p.clone(), torch.zeros_like(p), torch.zeros_like(p)] for _ in range(2)]
    hyper = (0.1, 0.9, 0.999, 1e-6, 0.01)
    for step in (1, 2, 3):
        for update, (p, m, v), options in zip(
            (reference_optim.lamb, reference_optim.adamw), states, ({"adapt": False}, {}), strict=True
        ):
            update([p], [p], [grad], [m], [v], *hyper, step=step, **options)
    torch.testing.assert_close(states[0][0], states[1][0], rtol=0, atol=1e-12)


def test_lamb_leaves_a_zero_tensor_without_nan():
    p, grad = torch.zeros(3), torch.zeros(3)
    reference_optim.lamb([p], [p], [grad], [torch.zeros(3)], [torch.zeros(3)], 0.1, 0.9, 0.999, 1e-6, 0.01)
    assert torch.equal(p, torch.zeros(3))


def test_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'gleu'"):
        reference.activation_of("gleu")
