"""Padding that stays in a batch, as a CUDA graph needs it: it changes no loss, no choice, no sample and no gradient."""

import pytest
import torch
from pretraining_models import CLS, KINDS, LENGTHS, PAD, SEP, VOCAB, make

from electra_fast.model.packing import PackedBatch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
S = max(LENGTHS)
BY_TOKEN = ("logits", "is_replaced", "is_candidate", "corrupted_ids")
LOSSES = ("loss", "generator_loss", "discriminator_loss", "generator_accuracy")


def rows(pad=PAD):
    """Padded rows: ids, whether they are tokens, token types, words' starts, and random numbers [3, B, S]."""
    source = torch.Generator().manual_seed(1)
    is_token = torch.arange(S) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(4, VOCAB, is_token.shape, generator=source)
    ids[:, 0] = CLS
    ids[torch.arange(len(LENGTHS)), torch.tensor(LENGTHS) - 1] = SEP
    types = (torch.arange(S) > 4).long().expand_as(ids)
    starts = torch.rand(ids.shape, generator=source) < 0.6
    random = torch.rand(3, *ids.shape, generator=source)
    return [x.to(DEVICE) for x in (ids.where(is_token, pad), is_token, types, starts, random)]


def step(model, form, whole_word=False, pad=PAD):
    ids, is_token, types, starts, random = rows(pad)
    packed = form(is_token)
    random = packed.pack(random.permute(1, 2, 0)).T.float()
    output = model(packed.pack(ids), packed, packed.pack(types), random, packed.pack(starts) if whole_word else None)
    output.loss.backward()
    return output


def assert_same(got, expected, models, **close):
    n = sum(LENGTHS)
    for name in (*LOSSES, *BY_TOKEN):
        if expected.get(name) is not None:
            value = got[name][:n] if name in BY_TOKEN else got[name]
            torch.testing.assert_close(value, expected[name], **close, msg=lambda text, name=name: f"{name}: {text}")
    assert len(got.is_candidate) == len(LENGTHS) * S and not got.is_candidate[n:].any()
    assert got.is_used.sum() == expected.is_used.sum() > 0
    for (name, p), q in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if q.grad is None:
            assert p.grad is None, name
        else:
            torch.testing.assert_close(p.grad, q.grad, **close, msg=lambda text, name=name: f"{name}: {text}")


CASES = {kind: (kind, {}, False) for kind in KINDS} | {
    "replacement": ("electra", dict(replacement=True), False),
    "never_label": ("electra", dict(never_label=True), False),
    "whole_word": ("electra", {}, True),
    "whole_word electric": ("electric", {}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_with_padding_is_the_step_without(case):
    kind, options, whole_word = CASES[case]
    models = [make(kind, **options).to(DEVICE) for _ in range(2)]
    got = step(models[0], PackedBatch.with_padding, whole_word)
    expected = step(models[1], PackedBatch.from_mask, whole_word)
    assert_same(got, expected, models, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["electra", "electric", "whole_word", "replacement"])
def test_so_it_is_on_the_kernels(case):
    kind, options, whole_word = CASES[case]
    models = [make(kind, impl="triton", **options).float().to(DEVICE) for _ in range(2)]
    got = step(models[0], PackedBatch.with_padding, whole_word)
    expected = step(models[1], PackedBatch.from_mask, whole_word)
    assert_same(got, expected, models, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_what_padding_holds_does_not_matter(case):
    """Also tokens that could be masked, were they text."""
    kind, options, whole_word = CASES[case]
    models = [make(kind, **options).to(DEVICE) for _ in range(2)]
    got = step(models[0], PackedBatch.with_padding, whole_word, pad=7)
    expected = step(models[1], PackedBatch.from_mask, whole_word)
    assert_same(got, expected, models, rtol=0, atol=1e-10)
