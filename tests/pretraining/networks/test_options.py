"""Objectives, generators and the sharing of embeddings: what each of them computes, trains and writes."""

import copy
import dataclasses
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from pretraining_models import CLS, FULL, KINDS, MASK, SEP, SMALL, SPECIAL, VOCAB, batch, forward, make

from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel


def gradient_norms(model):
    return {name: 0.0 if p.grad is None else p.grad.abs().sum().item() for name, p in model.named_parameters()}


# All kinds


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_gets_a_gradient_and_learns(kind):
    model = make(kind)
    forward(model).loss.backward()
    unused = {name for name, norm in gradient_norms(model).items() if norm == 0}
    # Nothing comes of: a frozen generator, and rows of the discriminator's tables are not looked at one by one.
    assert unused == {name for name, p in model.named_parameters() if not p.requires_grad}
    assert (unused != set()) == kind.startswith("frozen")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        output = forward(model)
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_survives_copying_and_its_own_state_dict(kind):
    model, other = make(kind), make(kind, seed=1)
    expected = forward(model)
    assert torch.equal(forward(copy.deepcopy(model)).loss, expected.loss)
    assert not torch.equal(forward(other).loss, expected.loss)
    other.load_state_dict(model.state_dict())
    assert torch.equal(forward(other).loss, expected.loss)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_networks_are_the_models(kind, tmp_path):
    """Also with tables that are sums: the Hub's form has the sums."""
    transformers = pytest.importorskip("transformers")
    model = make(kind).float().eval()
    model.save_pretrained(tmp_path)
    expected = {"mlm": {"generator"}, "electric": {"discriminator"}, "frozen electric": {"discriminator"}}
    expected["uniform"] = {"discriminator"}
    assert {path.name for path in tmp_path.iterdir()} == expected.get(kind, {"generator", "discriminator"})
    ids, _ = batch([16])
    classes = {
        "generator": (ElectraForMaskedLM, transformers.ElectraForMaskedLM),
        "discriminator": (ElectraForPreTraining, transformers.ElectraForPreTraining),
    }
    for name in model.hub_networks:
        own = getattr(model, name)(ids[None]).logits
        for cls in classes[name]:
            loaded = cls.from_pretrained(tmp_path / name).eval()
            torch.testing.assert_close(loaded(ids[None]).logits, own, rtol=1e-5, atol=1e-5)
    # And back, into a model with other weights.
    other = make(kind, seed=1).float().eval()
    for name in model.hub_networks:
        loaded = classes[name][0].from_pretrained(tmp_path / name)
        other.load_network(name, loaded.state_dict())
    for name in model.hub_networks:
        torch.testing.assert_close(getattr(other, name)(ids[None]).logits, getattr(model, name)(ids[None]).logits)


# Objectives


def test_mlm_is_the_masked_language_model_alone():
    model, electra = make("mlm"), make("tied")
    output = forward(model)
    assert output.discriminator_loss is output.logits is output.is_replaced is output.corrupted_ids is None
    assert torch.equal(output.loss, output.generator_loss)
    electra.generator.load_state_dict(model.generator.state_dict())
    torch.testing.assert_close(output.generator_loss, forward(electra).generator_loss, rtol=0, atol=1e-12)


def test_electric_is_noise_contrastive_estimation_on_a_two_tower_model():
    """Each token's distribution from the text before it alone and the text behind it alone, and the loss by hand."""
    model = make("electric")
    ids, packed = batch()
    output = forward(model)
    tower, starts = model.generator, packed.cu_seqlens.tolist()

    def log_q(i):
        start, end = next((a, b) for a, b in pairwise(starts) if a <= i < b)
        before, behind = ids[start:i], ids[i + 1 : end].flip(0)
        left = tower.left.encode_packed(before, PackedBatch.full(1, len(before), ids.device))[-1]
        places = torch.arange(i + 1 - start, end - start).flip(0)
        right = tower.right.encode_packed(behind, PackedBatch.full(1, len(behind), ids.device), None, places)[-1]
        hidden = tower.generator_predictions(torch.cat([left, right]))
        return (tower.left.embeddings.word_embeddings.weight @ hidden + tower.generator_lm_bias).log_softmax(0)

    is_candidate = ids >= 4
    table = {int(i): log_q(int(i)) for i in is_candidate.nonzero()}
    cloze_loss = -torch.stack([table[i][ids[i]] for i in table]).mean()
    torch.testing.assert_close(output.generator_loss, cloze_loss, rtol=0, atol=1e-10)

    positions = ids.new_tensor([i for i in range(len(ids)) if output.is_replaced[i]])
    assert len(positions) == output.is_used.sum() == 4
    assert torch.equal(output.corrupted_ids[~output.is_replaced], ids[~output.is_replaced])
    hidden = model.discriminator.electra.encode_packed(output.corrupted_ids, packed)
    energy = model.discriminator.discriminator_predictions(hidden)[1]
    for i, log_probabilities in table.items():
        expected = energy[i] + log_probabilities[output.corrupted_ids[i]] + math.log(0.15 / 0.85)
        torch.testing.assert_close(output.logits[i], expected, rtol=0, atol=1e-10)
    loss = F.binary_cross_entropy_with_logits(output.logits, output.is_replaced.double())
    torch.testing.assert_close(output.discriminator_loss, loss, rtol=0, atol=1e-12)

    # No gradient of the discriminator's goes through q.
    model.gen_weight = 0.0
    forward(model).loss.backward()
    norms = gradient_norms(model.generator)
    assert all(norm == 0 for name, norm in norms.items() if "embeddings." not in name)


def test_electrics_negatives_follow_the_cloze_distribution():
    model = make("electric")
    lengths = [6] * 3000
    ids = torch.tensor([CLS, 10, 11, 12, 13, SEP]).repeat(3000)
    packed = PackedBatch.from_cu_seqlens(1, len(ids), cu_seqlens_of(lengths), 6)
    with torch.no_grad():
        output = model(ids, packed, random=torch.Generator().manual_seed(0))
        one = PackedBatch.full(1, 6, ids.device)
        encoded = model.generator._encode(ids[:6], one, torch.zeros_like(ids[:6]), one.position_ids(6))
        weight = model.generator.left.embeddings.word_embeddings.weight
        probabilities = (encoded @ weight.T + model.generator.generator_lm_bias).softmax(-1)
    for place in (1, 2, 3, 4):
        samples = output.corrupted_ids.view(-1, 6)[output.is_replaced.view(-1, 6)[:, place], place]
        assert 600 < len(samples) < 900
        shares = samples.bincount(minlength=VOCAB) / len(samples)
        assert (shares - probabilities[place]).abs().sum() / 2 < 0.15


# Generators


def test_a_tied_generator_is_one_body_with_two_heads():
    model = make("tied")
    assert model.generator.electra is model.discriminator.electra
    bodies = sum(p.numel() for p in model.discriminator.electra.parameters())
    heads = sum(p.numel() for p in model.discriminator.discriminator_predictions.parameters())
    heads += sum(p.numel() for p in model.generator.generator_predictions.parameters()) + VOCAB
    assert sum(p.numel() for p in model.parameters()) == bodies + heads


@pytest.mark.parametrize("never_label", [False, True])
def test_uniform_replacements_are_uniform_over_ordinary_tokens(never_label):
    model = make("uniform", mask_prob=0.5, never_label=never_label)
    ids = torch.tensor([CLS, *[10] * 398, SEP]).repeat(60)
    packed = PackedBatch.full(60, 400, ids.device)
    batch = model._mask(ids, packed, None, torch.rand(2, len(ids), generator=torch.Generator().manual_seed(3)), None)
    random = torch.rand(len(batch.input_ids), generator=torch.Generator().manual_seed(4))
    samples = model._guess(batch, random).samples[batch.is_used]
    counts = samples.bincount(minlength=VOCAB).double()
    assert counts[:4].sum() == 0
    possible = torch.ones(VOCAB, dtype=torch.bool)
    possible[:4] = False
    if never_label:
        assert counts[10] == 0
        possible[10] = False
    expected = counts.sum() / possible.sum()
    chi_squared = ((counts[possible] - expected) ** 2 / expected).sum()
    assert chi_squared < 80  # of 44 or 45 degrees of freedom: p = 0.001
    output = forward(make("uniform"))
    assert output.generator_loss is output.generator_accuracy is output.is_correct is None
    assert torch.equal(output.loss, 50 * output.discriminator_loss)


def test_a_frozen_generator_is_reported_and_not_trained():
    model = make("frozen")
    output = forward(model)
    assert output.generator_loss > 0
    assert not output.generator_loss.requires_grad
    assert torch.equal(output.loss, 50 * output.discriminator_loss)


def test_never_label_samples_no_true_token():
    model = make(never_label=True)
    for seed in range(20):
        output = forward(model, seed)
        assert output.is_replaced.sum() == output.is_used.sum()
    plain = make()
    assert any(forward(plain, s).is_replaced.sum() < forward(plain, s).is_used.sum() for s in range(20))


@pytest.mark.parametrize("kind", ["number", "tensor"])
def test_a_temperature_may_be_set_between_steps(kind):
    model = make()
    warm = forward(model)
    model.temperature = 0.01 if kind == "number" else torch.tensor(0.01)
    cold = forward(model)
    torch.testing.assert_close(warm.generator_loss, cold.generator_loss)
    guessed_right = cold.is_used.sum() - cold.is_replaced.sum()
    assert guessed_right == cold.is_correct[cold.is_used].sum()


# Sharing of embeddings


def test_gdes_tables_are_the_generators_plus_a_difference():
    torch.manual_seed(0)
    model = ElectraPretrainingModel(
        ElectraConfig(**SMALL), ElectraConfig(**FULL), MASK, SPECIAL, embedding_sharing="gdes", impl="torch"
    ).double()
    tables, base = model.discriminator.electra.embeddings, model.generator.electra.embeddings
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        assert torch.equal(getattr(tables, name).weight, getattr(base, name).weight)
    assert tables.LayerNorm is not base.LayerNorm

    model.gen_weight = 0.0
    forward(model).loss.backward()
    norms = gradient_norms(model)
    assert norms["generator.electra.embeddings.word_embeddings.weight"] == 0
    difference = "discriminator.electra.embeddings.word_embeddings.parametrizations.weight.original"
    assert norms[difference] > 0
    model.zero_grad()
    model.gen_weight, model.disc_weight = 1.0, 0.0
    forward(model).loss.backward()
    norms = gradient_norms(model)
    assert norms["generator.electra.embeddings.word_embeddings.weight"] > 0
    assert norms[difference] == 0
    # What the generator learns is the discriminator's at once.
    with torch.no_grad():
        base.word_embeddings.weight[7] += 1
    torch.testing.assert_close(tables.word_embeddings.weight[7], base.word_embeddings.weight[7], rtol=0, atol=1e-12)


def test_nes_shares_nothing():
    model = make("nes")
    own, theirs = ({id(p) for p in network.parameters()} for network in (model.generator, model.discriminator))
    assert not own & theirs


# On the kernels: on the GPU where there is one, else in Triton's interpreter.


@pytest.mark.parametrize("kind", ["electric", "gdes"])
def test_a_step_on_the_kernels_is_that_of_torch(kind):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kernels, plain = (make(kind, impl=impl).float().to(device) for impl in ("triton", "torch"))
    ids, packed = batch()
    packed = dataclasses.replace(packed, cu_seqlens=packed.cu_seqlens.to(device))
    random = torch.rand(3, len(ids), generator=torch.Generator().manual_seed(5)).to(device)
    starts = torch.arange(len(ids), device=device) % 3 > 0
    got, expected = (model(ids.to(device), packed, random=random, word_starts=starts) for model in (kernels, plain))
    assert torch.equal(got.corrupted_ids, expected.corrupted_ids)
    assert got.is_replaced.any()
    for name in ("loss", "generator_loss", "discriminator_loss", "logits"):
        torch.testing.assert_close(got.get(name), expected.get(name), rtol=1e-4, atol=1e-4)
    for output in (got, expected):
        output.loss.backward()
    for (name, p), q in zip(kernels.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3, msg=name)
