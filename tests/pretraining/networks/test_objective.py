"""One pre-training forward and backward against the paper's description, written out with transformers' networks."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast import ElectraConfig
from electra_fast.model.packing import PackedBatch, cu_seqlens_of
from electra_fast.ops import reference
from electra_fast.pretraining.networks.objective import ElectraPretrainingModel

transformers = pytest.importorskip("transformers")

PAD, CLS, SEP, MASK, VOCAB = 0, 1, 2, 3, 50
SHARED = dict(
    vocab_size=VOCAB,
    embedding_size=12,
    num_hidden_layers=2,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
GENERATOR = dict(SHARED, hidden_size=8, num_attention_heads=1, intermediate_size=16)
DISCRIMINATOR = dict(SHARED, hidden_size=24, num_attention_heads=2, intermediate_size=37)


def small_model(**options) -> ElectraPretrainingModel:
    torch.manual_seed(0)
    options = {"mask_token_id": MASK, "special_token_ids": (PAD, CLS, SEP, MASK), **options}
    model = ElectraPretrainingModel(ElectraConfig(**GENERATOR), ElectraConfig(**DISCRIMINATOR), **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5).add_(torch.randn_like(parameter) * 0.05)
    return model


def batch(lengths):
    torch.manual_seed(1)
    rows = [torch.cat([torch.tensor([CLS]), torch.randint(4, VOCAB, (n - 2,)), torch.tensor([SEP])]) for n in lengths]
    packed = PackedBatch.from_cu_seqlens(1, sum(lengths), cu_seqlens_of(lengths), max(lengths))
    return rows, torch.cat(rows), packed


@pytest.mark.parametrize("lengths", [[9, 16, 3], [8, 8]], ids=str)
def test_one_step_is_the_papers(lengths):
    model = small_model()
    _, ids, packed = batch(lengths)
    output = model(ids, packed, random=torch.Generator().manual_seed(5))
    output.loss.backward()

    # The paper's description, a row at a time, on transformers' classes in eager mode and with separate embeddings.
    generator = transformers.ElectraForMaskedLM(transformers.ElectraConfig(**GENERATOR)).double().train()
    discriminator = transformers.ElectraForPreTraining(transformers.ElectraConfig(**DISCRIMINATOR)).double().train()
    generator.load_state_dict(model.generator.state_dict())
    discriminator.load_state_dict(model.discriminator.state_dict())
    starts = packed.cu_seqlens.tolist()
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(5))
    masked, positions, targets, is_used = reference.mask_tokens(
        ids, packed.cu_seqlens, ids >= 4, random, model.n_slots(packed), MASK
    )
    positions, targets = positions[is_used], targets[is_used]
    assert len(set(positions.tolist())) == len(positions) > 0
    logits = torch.cat([generator(masked[a:b][None]).logits[0] for a, b in pairwise(starts)])
    mlm_loss = F.cross_entropy(logits[positions], targets)
    corrupted = output.corrupted_ids
    untouched = torch.ones(len(ids), dtype=torch.bool)
    untouched[positions] = False
    assert torch.equal(corrupted[untouched], ids[untouched])
    assert torch.equal(output.is_replaced, corrupted != ids)
    scores = torch.cat([discriminator(corrupted[a:b][None]).logits[0] for a, b in pairwise(starts)])
    rtd_loss = F.binary_cross_entropy_with_logits(scores, (corrupted != ids).double())
    (mlm_loss + 50 * rtd_loss).backward()

    torch.testing.assert_close(output.generator_loss, mlm_loss, rtol=0, atol=1e-10)
    torch.testing.assert_close(output.discriminator_loss, rtd_loss, rtol=0, atol=1e-10)
    torch.testing.assert_close(output.loss, mlm_loss + 50 * rtd_loss, rtol=0, atol=1e-10)
    assert output.generator_accuracy == (logits[positions].argmax(-1) == targets).double().mean()

    def gradients(module):
        return {name: parameter.grad for name, parameter in module.named_parameters()}

    expected = {"generator": gradients(generator), "discriminator": gradients(discriminator)}
    for network, theirs in expected.items():
        for name, parameter in getattr(model, network).named_parameters():
            if ".embeddings." in name:  # shared: both networks' gradients
                gradient = expected["generator"][name] + expected["discriminator"][name]
            else:
                gradient = theirs[name]
            torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-10, msg=f"{network} {name}")


def test_the_networks_share_tables_and_their_norm_and_nothing_else():
    model = small_model()
    shared = {n for n, p in model.generator.named_parameters() if any(p is q for q in model.discriminator.parameters())}
    tables = {f"electra.embeddings.{t}_embeddings.weight" for t in ("word", "position", "token_type")}
    assert shared == tables | {f"electra.embeddings.LayerNorm.{kind}" for kind in ("weight", "bias")}
    assert model.generator.generator_lm_head.weight is model.discriminator.get_input_embeddings().weight


def test_the_discriminators_loss_does_not_reach_the_generator():
    model = small_model(gen_weight=0.0)
    _, ids, packed = batch([9, 16])
    model(ids, packed).loss.backward()
    own = [p for n, p in model.generator.named_parameters() if ".embeddings." not in n and "lm_head.weight" not in n]
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in own)


def test_a_generator_repeats_a_forward_exactly():
    model = small_model()
    _, ids, packed = batch([9, 16])
    first, again, other = (model(ids, packed, random=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first.loss, again.loss)
    assert torch.equal(first.corrupted_ids, again.corrupted_ids)
    assert not torch.equal(first.loss, other.loss)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 16), min_size=1, max_size=6),
    share=st.sampled_from([0.1, 0.15, 0.25, 0.5]),
    replacement=st.booleans(),
    seed=st.integers(0, 99),
)
def test_masking(lengths, share, replacement, seed):
    """Right counts, never a special token, nothing else changed, static shapes."""
    _, ids, packed = batch(lengths)
    model = small_model(mask_prob=share)
    n_slots = model.n_slots(packed)
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(seed))
    masked, positions, targets, is_used = reference.mask_tokens(
        ids, packed.cu_seqlens, ids >= 4, random, n_slots, MASK, share, replacement=replacement
    )
    assert len(positions) == len(targets) == len(is_used) == n_slots
    chosen = positions[is_used]
    assert (ids[chosen] >= 4).all()
    assert torch.equal(targets, ids[positions])
    counts = torch.bincount(torch.bucketize(chosen, packed.cu_seqlens[1:].long(), right=True), minlength=len(lengths))
    expected = [min(max(1, round(share * n)), n - 2) for n in lengths]
    assert counts.tolist() == expected
    if not replacement:
        assert len(set(chosen.tolist())) == len(chosen)
    changed = (masked != ids).nonzero().squeeze(1)
    assert set(changed.tolist()) <= set(chosen.tolist())
    assert (masked[changed] == MASK).all()


def test_85_in_100_chosen_tokens_become_the_mask():
    ids = torch.full((40_000,), 7)
    random = torch.rand(2, len(ids), generator=torch.Generator().manual_seed(0))
    every = torch.ones(len(ids), dtype=torch.bool)
    masked, _, _, is_used = reference.mask_tokens(ids, cu_seqlens_of([len(ids)]), every, random, 6000, MASK)
    assert is_used.all()
    assert abs((masked == MASK).sum().item() / 6000 - 0.85) < 0.02


def test_samples_are_written_back_and_right_guesses_count_as_original():
    ids = torch.tensor([CLS, 10, 11, 12, SEP])
    used = torch.tensor([True, True, False])
    corrupted, is_replaced = reference.place_samples(ids, torch.tensor([1, 3, 0]), torch.tensor([10, 9, 8]), used)
    assert corrupted.tolist() == [CLS, 10, 11, 9, SEP]
    assert is_replaced.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(generator=dict(vocab_size=51)), "vocab_size must agree: got 51 for the generator and 50"),
        (dict(generator=dict(embedding_size=8)), "embedding_size must agree"),
        (dict(options=dict(mask_prob=0.0)), "mask_prob must be between 0 and 1, got 0.0"),
        (dict(options=dict(mask_token_id=50)), "below vocab_size 50, got 50"),
    ],
)
def test_networks_that_do_not_fit_are_refused(change, message):
    generator = ElectraConfig(**{**GENERATOR, **change.get("generator", {})})
    options = {"mask_token_id": MASK, "special_token_ids": (PAD, CLS, SEP, MASK), **change.get("options", {})}
    with pytest.raises(ValueError, match=message):
        ElectraPretrainingModel(generator, ElectraConfig(**DISCRIMINATOR), **options)
