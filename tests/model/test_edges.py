"""Edges of a forward, for all classes: no rows, one token, the longest row, nothing real; what is refused by name."""

import numpy as np
import pytest
import torch
from parity import CLASSES, MAX_LENGTH, VOCAB, assert_close, twins

IDS = torch.arange(1, 13).reshape(2, 6)
PADDED = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
ONE_ROW = torch.tensor([[0] * 6, [1] * 6])
PER_TOKEN = ("ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForCausalLM", "ElectraForTokenClassification")
# Keywords that transformers 5 knows for all models, those of its forwards, and others that its forwards pass on.
KEYWORDS = """
    num_items_in_batch output_hidden_states output_attentions output_router_logits cu_seq_lens_q cu_seq_lens_k
    max_length_q max_length_k position_ids is_causal seq_idx past_key_values cache_position use_cache return_dict
    head_mask labels encoder_hidden_states encoder_attention_mask start_positions end_positions attention_mask
    token_type_ids inputs_embeds
    special_tokens_mask offset_mapping adapter_names
""".split()


def shaped(name: str, x: torch.Tensor) -> torch.Tensor:
    """An argument [B, ...] for a class: two choices a row for multiple choice."""
    return torch.stack([x, x], dim=1) if name == "ElectraForMultipleChoice" else x


def values(output) -> list[torch.Tensor]:
    return [x for key, x in output.items() if key != "past_key_values"]


def assert_same(name: str, theirs, ours, inputs: dict, is_real=None, tolerance=1e-10) -> None:
    for mode in ("eval", "train"):
        for grad in (False, True):
            getattr(theirs, mode)(), getattr(ours, mode)()
            with torch.set_grad_enabled(grad):
                pairs = zip(values(ours(**inputs)), values(theirs(**inputs)), strict=True)
            for x, y in pairs:
                if is_real is not None and x.shape[:2] == is_real.shape:
                    x, y = x[is_real != 0], y[is_real != 0]
                assert_close(f"{name} {mode} {grad}", x, y, tolerance)


@pytest.mark.parametrize("name", CLASSES)
def test_one_token_and_the_longest_row(name):
    theirs, ours = twins(name, is_decoder=name == "ElectraForCausalLM")
    for ids in (IDS[:, :1], IDS[:1, :1], torch.randint(1, VOCAB, (2, MAX_LENGTH))):
        assert_same(name, theirs, ours, dict(input_ids=shaped(name, ids)))
    for name_, x in (("input_ids", torch.ones(2, MAX_LENGTH + 1).long()), ("inputs_embeds", torch.ones(2, 33, 16))):
        with pytest.raises(ValueError, match=r"sequence length 33 is over max_position_embeddings 32"):
            ours(**{name_: shaped(name, x)})


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_real_in_a_row_or_anywhere(name):
    theirs, ours = twins(name)
    for mask in (ONE_ROW, PADDED * 0, PADDED):
        ids = shaped(name, IDS)
        expected = values(theirs(ids, attention_mask=shaped(name, mask.bool())))
        for dtype in (torch.long, torch.bool, torch.int8, torch.float32, torch.float16):
            output = ours(ids, attention_mask=shaped(name, mask.to(dtype)))
            for x, y in zip(values(output), expected, strict=True):
                if x.shape[:2] == mask.shape:
                    x, y = x[mask != 0], y[mask != 0]
                assert_close(f"{name} {dtype}", x, y, 1e-10)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("form", ["ids", "embeds", "mask", "attentions"])
def test_no_rows_give_no_rows(name, form):
    _, ours = twins(name, torch.float32, is_decoder=name == "ElectraForCausalLM")
    inputs = {
        "ids": dict(input_ids=IDS[:0]),
        "embeds": dict(inputs_embeds=torch.zeros(0, 6, 16)),
        "mask": dict(input_ids=IDS[:0], attention_mask=PADDED[:0]),
        "attentions": dict(input_ids=IDS[:0], output_attentions=True),
    }[form]
    inputs = {key: shaped(name, x) if isinstance(x, torch.Tensor) else x for key, x in inputs.items()}
    whole = ours(shaped(name, IDS))
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            output = ours(**inputs)
        assert [len(x) for x in values(output) if isinstance(x, torch.Tensor)] == [0] * len(values(whole))
        assert output[0].shape[1:] == whole[0].shape[1:]
    ours.train()(**inputs)[0].sum().backward()


@pytest.mark.parametrize("name", CLASSES)
def test_none_asks_for_nothing(name):
    _, ours = twins(name, is_decoder=name == "ElectraForCausalLM")
    ids = shaped(name, IDS)
    expected = values(ours(ids))
    for keyword in KEYWORDS:
        for x, y in zip(values(ours(ids, **{keyword: None})), expected, strict=True):
            assert torch.equal(x, y), keyword


@pytest.mark.parametrize("name", CLASSES)
def test_what_else_a_tokenizer_returns_changes_nothing(name):
    theirs, ours = twins(name)
    extra = dict(special_tokens_mask=IDS, offset_mapping=IDS, length=IDS[:, 0], overflow_to_sample_mapping=IDS[:, 0])
    assert_same(name, theirs, ours, dict(input_ids=shaped(name, IDS), cache_position=torch.arange(6), **extra))


NOT_SERVED = (
    ("output_router_logits", True, ValueError, "output_router_logits must be False or None"),
    ("seq_idx", IDS.int(), ValueError, "seq_idx needs cu_seq_lens_q or position_ids"),
    ("cu_seq_lens_k", torch.tensor([0, 12]), ValueError, "cu_seq_lens_k needs cu_seq_lens_q"),
    ("past_key_values", (), TypeError, "past_key_values must be what an earlier call .* got a tuple"),
    ("head_mask", [1, 1, 1, 1], TypeError, "head_mask must be a torch tensor, got a list"),
    ("attention_mask", PADDED.tolist(), TypeError, "attention_mask must be a torch tensor, got a list"),
    ("token_type_ids", PADDED.numpy(), TypeError, "token_type_ids must be a torch tensor, got a ndarray"),
    ("output_atentions", True, TypeError, "unexpected keyword output_atentions"),
)


@pytest.mark.parametrize("name", CLASSES)
def test_a_value_that_is_not_served_is_named(name):
    _, ours = twins(name, is_decoder=name == "ElectraForCausalLM")
    for keyword, value, error, message in NOT_SERVED:
        if keyword == "past_key_values" and name not in ("ElectraModel", "ElectraForCausalLM"):
            continue  # goes through the same check
        with pytest.raises(error, match=message):
            ours(shaped(name, IDS), **{keyword: value})


def test_is_causal_is_what_the_config_says():
    for is_decoder in (False, True):
        _, ours = twins("ElectraModel", is_decoder=is_decoder)
        assert torch.equal(ours(IDS, is_causal=is_decoder)[0], ours(IDS)[0])
        with pytest.raises(ValueError, match=f"is_causal must be what config.is_decoder is, {is_decoder}, got "):
            ours(IDS, is_causal=not is_decoder)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("argument", ["input_ids", "token_type_ids", "position_ids"])
def test_ids_are_int64_or_int32(name, argument):
    _, ours = twins(name, torch.float32)
    for grad in (False, True):
        inputs = {"input_ids": IDS, argument: torch.ones(2, 6).int()}
        with torch.set_grad_enabled(grad):
            ours(**{key: shaped(name, x) for key, x in inputs.items()})
        for dtype in (torch.float32, torch.bool, torch.uint8, torch.int16):
            inputs[argument] = torch.ones(2, 6).to(dtype)
            with (
                torch.set_grad_enabled(grad),
                pytest.raises(ValueError, match=f"{argument} must be int64 or int32, got {dtype}"),
            ):
                ours(**{key: shaped(name, x) for key, x in inputs.items()})


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("argument", "limit"), [("input_ids", 97), ("token_type_ids", 2), ("position_ids", 32)])
def test_ids_outside_their_table_are_named(name, argument, limit):
    _, ours = twins(name)
    for value in (-1, limit):
        inputs = {"input_ids": IDS, argument: torch.full((2, 6), value)}
        with pytest.raises(
            ValueError, match=rf"{argument} must be in \[0, {limit}\), got values from {value} to {value}"
        ):
            ours(**{key: shaped(name, x) for key, x in inputs.items()})


@pytest.mark.parametrize("name", CLASSES)
def test_lists_arrays_both_and_neither_are_named(name):
    _, ours = twins(name)
    for ids, found in ((IDS.tolist(), "list"), (IDS.numpy(), np.ndarray.__name__)):
        with pytest.raises(TypeError, match=f"input_ids must be a torch tensor, got a {found}"):
            ours(ids)
    both = dict(input_ids=shaped(name, IDS), inputs_embeds=shaped(name, torch.zeros(2, 6, 16).double()))
    for inputs in (both, {}, dict(attention_mask=shaped(name, PADDED))):
        with pytest.raises(ValueError, match=r"exactly one of input_ids or inputs_embeds"):
            ours(**inputs)


@pytest.mark.parametrize("name", CLASSES)
def test_embeddings_of_another_dtype(name):
    theirs, ours = twins(name, torch.float32)
    embeds = torch.randn(2, 6, 16).half()
    assert_same(name, theirs, ours, dict(inputs_embeds=shaped(name, embeds)), tolerance=1e-4)
    for grad in (False, True):
        with (
            torch.set_grad_enabled(grad),
            pytest.raises(ValueError, match=r"inputs_embeds must have the model's dtype"),
        ):
            ours(inputs_embeds=shaped(name, embeds.double()))


@pytest.mark.parametrize("name", CLASSES)
def test_inputs_need_not_be_contiguous(name):
    _, ours = twins(name, torch.float32)
    ids, mask = torch.randint(1, VOCAB, (2, 12)), PADDED.repeat_interleave(2, 1)
    inputs = dict(input_ids=ids[:, ::2], attention_mask=mask[:, ::2], token_type_ids=mask[:, ::2])
    plain = {key: shaped(name, x.contiguous()) for key, x in inputs.items()}
    strided = {key: shaped(name, x) if name != "ElectraForMultipleChoice" else x[:, None].expand(2, 2, 6)
               for key, x in inputs.items()}  # fmt: skip
    with torch.no_grad():
        for x, y in zip(values(ours(**strided)), values(ours(**plain)), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attentions", [False, True])
def test_an_added_mask_may_have_another_dtype(dtype, model_dtype, attentions):
    _, ours = twins("ElectraModel", model_dtype)
    hides = torch.zeros(2, 1, 1, 6, dtype=dtype).masked_fill(PADDED[:, None, None] == 0, torch.finfo(dtype).min)
    added = ours(IDS, attention_mask=hides, output_attentions=attentions).last_hidden_state
    expected = ours(IDS, attention_mask=PADDED).last_hidden_state
    assert_close("hidden", added[PADDED != 0], expected[PADDED != 0], 0.05 if model_dtype != torch.float32 else 1e-5)


def test_one_row_of_positions_serves_all_choices():
    theirs, ours = twins("ElectraForMultipleChoice")
    inputs = dict(input_ids=shaped("ElectraForMultipleChoice", IDS), position_ids=torch.arange(6).flip(0)[None])
    assert_same("choices", theirs, ours, inputs)
    for ids in (IDS, IDS[:, None][:, :0]):
        with pytest.raises(ValueError, match=r"input_ids must have shape \[batch, choices, length\], got "):
            ours(ids)
