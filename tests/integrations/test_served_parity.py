"""Served calls beside transformers' own: outputs at real tokens, losses and all gradients."""

import pytest
import torch
from electra_calls import CLASSES, MAX_LENGTH, as_choices, assert_same, labels_for, padded_batch, results, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast.integrations import packed_electra
from electra_fast.integrations.transformers import patch, unpatch, why_not

PADDINGS = ("no mask", "full", "right", "left", "scattered", "empty row")


@st.composite
def calls(draw, name: str) -> dict:
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 11))
    seed, padding = draw(st.integers(0, 1000)), draw(st.sampled_from(PADDINGS))
    call = padded_batch(rows, length, padding, seed)
    if draw(st.booleans()):
        call |= labels_for(name, call, at_padding=draw(st.booleans()), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    if draw(st.booleans()):
        call["token_type_ids"] = torch.randint(0, 2, (rows, length), generator=generator)
    positions = draw(st.sampled_from(["none", "random", "restarting"]))
    if positions != "none":
        places = torch.randint(0, MAX_LENGTH, (rows, length), generator=generator)
        call["position_ids"] = places if positions == "random" else torch.arange(length).expand(rows, -1) % 4
    if name == "ElectraForMultipleChoice":
        call = as_choices(call)
    if draw(st.booleans()):
        call["inputs_embeds"] = torch.randn(*call.pop("input_ids").shape, 16, generator=generator)
    if draw(st.booleans()):
        call["output_hidden_states"] = True
    return call


@pytest.mark.parametrize("name", CLASSES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_outputs_losses_and_gradients(name, data):
    call = data.draw(calls(name))
    shape = {
        "embedding_size": data.draw(st.sampled_from([16, 16, 32])) if "inputs_embeds" not in call else 16,
        "hidden_act": data.draw(st.sampled_from(["gelu", "gelu", "relu", "gelu_new"])),
        "summary_type": data.draw(st.sampled_from(["first", "last", "mean"])),
        "attn_implementation": data.draw(st.sampled_from(["sdpa", "eager"])),
    }
    model = tiny(name, **shape).train(data.draw(st.booleans()))
    expected = results(model, call)
    assert_same(results(patch(model), call), expected)
    again = results(unpatch(model), call)
    assert all(torch.equal(again[key], value) or value.isnan().any() for key, value in expected.items())


@pytest.mark.parametrize("name", CLASSES)
def test_right_padded_batches_are_packed(name, monkeypatch):
    """Parity alone would hold if nothing were served."""
    n_tokens = []
    run = packed_electra._run_layer

    def spy(layer, bound, packed, seeds, hidden):
        n_tokens.append(len(hidden))
        return run(layer, bound, packed, seeds, hidden)

    monkeypatch.setattr(packed_electra, "_run_layer", spy)
    call = padded_batch()
    call = as_choices(call) if name == "ElectraForMultipleChoice" else call
    model = patch(tiny(name))
    assert why_not(model, **call) is None
    model(**call)
    assert n_tokens == [int(call["attention_mask"].sum())] * 2


def test_padding_is_zero_and_answers_are_not_found_there():
    call = padded_batch()
    is_padding = call["attention_mask"] == 0
    assert is_padding.any()
    output = patch(tiny("ElectraModel"))(**call, output_hidden_states=True)
    assert all((state[is_padding] == 0).all() for state in output.hidden_states)
    answers = patch(tiny("ElectraForQuestionAnswering"))
    lowest = torch.finfo(torch.float32).min
    for logits in (*answers(**call)[:2], *answers(**call, return_dict=False)):
        assert (logits[is_padding] == lowest).all() and (logits[~is_padding] > lowest).all()


@pytest.mark.parametrize(
    ("name", "padding", "labels"),
    [
        ("ElectraForSequenceClassification", "left", False),
        ("ElectraForQuestionAnswering", "right", True),
        ("ElectraForMaskedLM", "right", True),
    ],
)
def test_what_reads_padding_stays_padded(name, padding, labels):
    call = padded_batch(padding=padding)
    call |= labels_for(name, call, at_padding=True) if labels else {}
    assert why_not(tiny(name), **call).startswith("padding read")


def test_masked_tokens_that_are_no_padding_have_their_states():
    """As the [MASK]s have that ColBERT puts after a query, and reads."""
    call, model = padded_batch(), tiny("ElectraModel")
    assert why_not(model, **call) is None
    call["input_ids"][call["attention_mask"] == 0] = 4
    expected = model(**call).last_hidden_state
    assert why_not(model, **call).startswith("padding read: masked tokens")
    assert torch.equal(patch(model)(**call).last_hidden_state, expected)
    assert why_not(tiny("ElectraForPreTraining"), **call) is None  # its caller reads real tokens


def test_tuples_and_selected_states():
    call, model = padded_batch(padding="full"), tiny("ElectraModel")
    selected = model(**call, output_hidden_states=[-1]).hidden_states
    as_tuple = model(**call, output_hidden_states=True, return_dict=False)
    patch(model)
    ours = model(**call, output_hidden_states=True, return_dict=False)
    assert isinstance(ours, tuple) and len(ours) == len(as_tuple) == 2 and len(ours[1]) == 3
    again = model(**call, output_hidden_states=[-1]).hidden_states
    assert [x is None for x in again] == [x is None for x in selected] == [True, True, False]


@pytest.mark.parametrize("which", [0, [0, 2], [-1, 1]])
def test_states_by_number_are_those_of_all(which):
    call, model = padded_batch(), patch(tiny("ElectraModel"))
    assert why_not(model, **call, output_hidden_states=which) is None
    everything = model(**call, output_hidden_states=True).hidden_states
    selected = model(**call, output_hidden_states=which).hidden_states
    kept = {number % 3 for number in ([which] if isinstance(which, int) else which)}
    assert [x is not None for x in selected] == [number in kept for number in range(3)]
    assert all(torch.equal(selected[number], everything[number]) for number in kept)


def test_feed_forward_in_chunks_changes_nothing():
    call, model = padded_batch(), patch(tiny("ElectraModel"))
    expected = model(**call).last_hidden_state
    for layer in model.encoder.layer:
        layer.chunk_size_feed_forward = 1
    assert why_not(model, **call) is None
    torch.testing.assert_close(model(**call).last_hidden_state, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision(dtype):
    call, model = padded_batch(), tiny("ElectraForPreTraining")
    expected = model(**call).logits[call["attention_mask"].bool()]
    ours = patch(model).to(dtype)(**call).logits[call["attention_mask"].bool()]
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), expected, rtol=0.1, atol=0.1)


def test_dropout_draws_and_checkpointed_layers_draw_again():
    call = padded_batch() | labels_for("ElectraForPreTraining", padded_batch())
    model = patch(tiny("ElectraForPreTraining", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)).train()
    model.enable_input_require_grads()  # a hook that checkpointing adds: the embedding goes piece by piece then
    found = []
    for checkpointed in (False, True, True):
        torch.manual_seed(len(found) // 2)  # the third draws otherwise
        if checkpointed:
            model.gradient_checkpointing_enable()
        assert why_not(model, **call) is None
        found.append(results(model, call))
    assert_same(found[1], found[0])
    assert not torch.allclose(found[2]["loss 0"], found[0]["loss 0"])
    assert torch.equal(model.eval()(**call).loss, model(**call).loss)


def test_rows_of_several_sequences_are_what_they_are_to_the_attention():
    rows = torch.arange(9)[None] % 3
    call = {"input_ids": padded_batch(1, 9, "no mask")["input_ids"], "position_ids": rows}
    separate = {name: x.view(3, 3) for name, x in call.items()}
    for attention, expected in (("sdpa", call), ("electra_fast", separate)):
        model = tiny("ElectraModel")
        own = model(**expected).last_hidden_state.view(1, 9, -1)
        if attention == "electra_fast":
            from electra_fast.integrations.transformers import register_attention

            register_attention()
            model.set_attn_implementation(attention)
        torch.testing.assert_close(patch(model)(**call).last_hidden_state, own, rtol=0, atol=1e-5)
