"""Decoders: causal attention, caches, cross-attention, generation; against transformers."""

import pytest
import torch
from parity import assert_close, transformers, twins

import electra_fast


@pytest.fixture
def batch():
    """Ids and a mask with padding on the left."""
    torch.manual_seed(0)
    ids, mask = torch.randint(1, 97, (3, 6)), torch.ones(3, 6, dtype=torch.long)
    ids[0, :3], mask[0, :3] = 0, 0
    return ids, mask


def decoders(**shape):
    return twins("ElectraForCausalLM", is_decoder=True, **shape)


@pytest.mark.parametrize("use_cache", [True, False])
def test_causal_attention_with_padding(batch, use_cache):
    theirs, ours = decoders()
    ids, mask = batch
    expected = theirs(ids, attention_mask=mask, use_cache=use_cache)
    output = ours(ids, attention_mask=mask, use_cache=use_cache)
    assert set(output) == set(expected)
    assert_close("logits", output.logits[mask.bool()], expected.logits[mask.bool()], 1e-10)


def test_step_by_step_is_the_full_pass(batch):
    _, ours = decoders()
    ids, _ = batch
    full, past, steps = ours(ids).logits, None, []
    for i in range(ids.shape[1]):
        output = ours(ids[:, i : i + 1], past_key_values=past)
        past = output.past_key_values
        steps.append(output.logits)
    assert past.get_seq_length() == ids.shape[1]
    assert_close("logits", torch.cat(steps, dim=1), full, 1e-10)


def test_step_by_step_with_padding_is_transformers(batch):
    """A cache that begins with padding: the mask covers the past too."""
    theirs, ours = decoders()
    ids, mask = batch
    past = {}
    for start, end in ((0, 4), (4, 5), (5, 6)):
        logits = {}
        for model in (theirs, ours):
            output = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=past.get(model))
            past[model], logits[model] = output.past_key_values, output.logits[mask[:, start:end].bool()]
        assert_close(f"logits {start} to {end}", logits[ours], logits[theirs], 1e-10)


def test_cross_attention(batch):
    theirs, ours = decoders(add_cross_attention=True, attention="eager")
    ids, mask = batch
    encoder, encoder_mask = torch.randn(3, 5, 32, dtype=torch.float64), torch.ones(3, 5)
    encoder_mask[1, 3:] = 0
    inputs = dict(
        attention_mask=mask,
        encoder_hidden_states=encoder,
        encoder_attention_mask=encoder_mask,
        output_attentions=True,
    )
    expected, output = theirs(ids, **inputs), ours(ids, **inputs)
    is_real = mask.bool()
    assert_close("logits", output.logits[is_real], expected.logits[is_real], 1e-10)
    for x, y in zip(output.cross_attentions, expected.cross_attentions, strict=True):
        assert_close("cross attentions", x.transpose(1, 2)[is_real], y.transpose(1, 2)[is_real], 1e-10)
    first = ours(ids[:, :4], encoder_hidden_states=encoder, encoder_attention_mask=encoder_mask)
    rest = ours(
        ids[:, 4:],
        encoder_hidden_states=encoder,
        encoder_attention_mask=encoder_mask,
        past_key_values=first.past_key_values,
    )
    full = ours(ids, encoder_hidden_states=encoder, encoder_attention_mask=encoder_mask)
    assert_close("cached cross attention", rest.logits, full.logits[:, 4:], 1e-10)


def test_cross_attention_needs_its_layers():
    _, ours = decoders()
    with pytest.raises(ValueError, match="add_cross_attention"):
        ours(torch.ones(1, 2, dtype=torch.long), encoder_hidden_states=torch.zeros(1, 2, 32))


@pytest.mark.parametrize("keep", [0, 1, 3, torch.tensor([0, 2])], ids=str)
def test_logits_to_keep(batch, keep):
    theirs, ours = decoders()
    assert_close(
        "logits", ours(batch[0], logits_to_keep=keep).logits, theirs(batch[0], logits_to_keep=keep).logits, 1e-10
    )


def test_loss_by_number_of_items(batch):
    theirs, ours = decoders(dtype=torch.float32)
    ids, _ = batch
    expected = theirs(ids, labels=ids, num_items_in_batch=7).loss
    assert_close("loss", ours(ids, labels=ids, num_items_in_batch=7).loss, expected, 1e-5)


@pytest.mark.parametrize(
    "options",
    [
        dict(max_new_tokens=8),
        dict(max_length=12),
        dict(max_new_tokens=12, eos_token_id=list(range(5, 26)), pad_token_id=0),
    ],
    ids=["new", "length", "ends"],
)
def test_greedy_generation_is_transformers_token_for_token(batch, options):
    theirs, ours = decoders()
    ids, mask = batch
    expected = theirs.generate(ids, attention_mask=mask, do_sample=False, **options)
    assert torch.equal(ours.generate(ids, attention_mask=mask, **options), expected)
    assert torch.equal(ours.generate(ids, **options), expected)  # the mask is told from the padding token
    assert torch.equal(ours.generate(ids, attention_mask=mask, use_cache=False, **options), expected)


def test_sampling_draws_from_the_cut_distribution(batch):
    _, ours = decoders()
    ids = batch[0][1:2]
    probabilities = (ours(ids).logits[0, -1] / 0.7).softmax(-1)
    allowed = set(probabilities.topk(3).indices.tolist())
    options = dict(do_sample=True, temperature=0.7, max_new_tokens=1, num_return_sequences=300)
    torch.manual_seed(0)
    drawn = ours.generate(ids, top_k=3, **options)[:, -1].tolist()
    assert set(drawn) <= allowed
    assert len(set(drawn)) > 1
    kept = int((probabilities.sort(descending=True).values.cumsum(0) < 0.5).sum()) + 1
    nucleus = set(probabilities.topk(kept).indices.tolist())
    assert set(ours.generate(ids, top_k=0, top_p=0.5, **options)[:, -1].tolist()) <= nucleus


def test_generate_takes_all_that_a_tokenizer_returns(batch):
    theirs, ours = decoders()
    ids, mask = batch
    types = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    inputs = dict(input_ids=ids, attention_mask=mask, token_type_ids=types, max_new_tokens=8)
    expected = theirs.generate(**inputs, do_sample=False)
    assert torch.equal(ours.generate(**inputs), expected)
    assert torch.equal(ours.generate(**inputs, use_cache=False), expected)


@pytest.mark.parametrize(
    "asked",
    [
        dict(num_beams=4),
        dict(return_dict_in_generate=True),
        dict(max_time=1),
        dict(tmperature=0),
        dict(encoder_hidden_states=torch.zeros(3, 2, 32)),
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_what_generate_cannot_do_names_transformers(batch, asked):
    _, ours = decoders()
    with pytest.raises(NotImplementedError, match=rf"{next(iter(asked))}.*transformers\.ElectraForCausalLM"):
        ours.generate(batch[0], **asked)


def test_what_changes_nothing_can_be_said(batch):
    _, ours = decoders()
    neutral = dict(num_beams=1, repetition_penalty=1.0, min_length=0, return_dict_in_generate=False, streamer=None)
    assert torch.equal(ours.generate(batch[0], **neutral), ours.generate(batch[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_length=3), "max_length is 3"),
        (dict(num_return_sequences=2), "do_sample=True"),
        (dict(do_sample=True, temperature=0), "temperature > 0"),
    ],
)
def test_generate_refuses_what_has_no_meaning(batch, options, message):
    _, ours = decoders()
    with pytest.raises(ValueError, match=message):
        ours.generate(batch[0], **options)


def test_a_causal_model_that_is_no_decoder_warns():
    config = electra_fast.ElectraConfig(num_hidden_layers=1, vocab_size=9)
    with pytest.warns(UserWarning, match="is_decoder"):
        electra_fast.ElectraForCausalLM(config)
    assert transformers.ElectraConfig().is_decoder is False
