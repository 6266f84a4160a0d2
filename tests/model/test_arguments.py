"""Masks of every form, version 4's keywords, and what is refused."""

import pytest
import torch
from parity import CLASSES, SHAPE, assert_close, twins

from electra_fast import ElectraConfig, ElectraForSequenceClassification, ElectraModel

IDS = torch.arange(1, 13).reshape(2, 6)
LOWER = torch.ones(6, 6).tril()


@pytest.mark.parametrize(
    "mask",
    [
        LOWER.bool().expand(2, 1, 6, 6),
        torch.zeros(2, 1, 6, 6, dtype=torch.float64).masked_fill(LOWER == 0, torch.finfo(torch.float64).min),
        torch.randn(2, 4, 6, 6, dtype=torch.float64),
        torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()[:, None, None],
    ],
    ids=["bool", "additive", "a head", "broadcast"],
)
def test_four_dimensional_masks_are_transformers(mask):
    theirs, ours = twins("ElectraModel")
    expected = theirs(IDS, attention_mask=mask).last_hidden_state
    assert_close("hidden", ours(IDS, attention_mask=mask).last_hidden_state, expected, 1e-10)


def test_three_dimensional_mask_says_who_sees_whom():
    theirs, ours = twins("ElectraModel")
    expected = theirs(IDS, attention_mask=LOWER.bool().expand(2, 1, 6, 6)).last_hidden_state
    assert_close("hidden", ours(IDS, attention_mask=LOWER.expand(2, 6, 6)).last_hidden_state, expected, 1e-10)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_mask_dtypes_agree(dtype):
    _, ours = twins("ElectraModel")
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    expected = ours(IDS, attention_mask=mask).last_hidden_state
    assert torch.equal(ours(IDS, attention_mask=mask.to(dtype)).last_hidden_state, expected)


def test_head_mask_multiplies_the_probabilities():
    _, ours = twins("ElectraModel")
    plain = ours(IDS, output_attentions=True)
    a_head = ours(IDS, head_mask=torch.tensor([1.0, 0.0, 1.0, 0.5]), output_attentions=True)
    first = plain.attentions[0] * torch.tensor([1.0, 0.0, 1.0, 0.5])[:, None, None]
    assert_close("attentions", a_head.attentions[0], first, 1e-10)
    ones = ours(IDS, head_mask=torch.ones(2, 4)).last_hidden_state
    assert_close("hidden", ones, plain.last_hidden_state, 1e-10)
    assert (a_head.last_hidden_state - plain.last_hidden_state).abs().max() > 1e-3


def test_version_4_keywords_can_be_set_in_the_config():
    _, ours = twins(
        "ElectraModel", output_hidden_states=True, output_attentions=True, return_dict=False, attention="eager"
    )
    assert len(ours(IDS)) == 4  # last, hidden states, attentions, cross attentions (empty)
    assert len(ours(IDS, output_hidden_states=False, output_attentions=False)) == 1


def test_probabilities_do_not_change_the_result():
    _, ours = twins("ElectraModel")
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    packed = ours(IDS, attention_mask=mask).last_hidden_state[mask.bool()]
    padded = ours(IDS, attention_mask=mask, output_attentions=True).last_hidden_state[mask.bool()]
    assert_close("hidden", padded, packed, 1e-12)


def test_answers_are_not_looked_for_in_padding():
    _, ours = twins("ElectraForQuestionAnswering")
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    output = ours(IDS, attention_mask=mask)
    assert output.start_logits[0].argmax() < 4
    assert (output.end_logits[0, 4:].exp() == 0).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (dict(input_ids=torch.tensor([[1, 97]])), r"input_ids must be in \[0, 97\), got values from 1 to 97"),
        (dict(input_ids=torch.tensor([[-1, 5]])), r"input_ids must be in \[0, 97\)"),
        (dict(input_ids=IDS, token_type_ids=torch.full((2, 6), 2)), r"token_type_ids must be in \[0, 2\)"),
        (dict(input_ids=IDS, position_ids=torch.full((2, 6), 32)), r"position_ids must be in \[0, 32\)"),
        (dict(input_ids=IDS, token_type_ids=torch.zeros(2, 5).long()), r"shape \(2, 6\), got \(2, 5\)"),
        (
            dict(input_ids=IDS, attention_mask=torch.ones(2, 5)),
            r"attention_mask must have shape \(2, 6\), got \(2, 5\)",
        ),
        (dict(input_ids=IDS, attention_mask=torch.ones(6)), "2, 3 or 4 dimensions"),
        (dict(input_ids=torch.ones(1, 33).long()), "sequence length 33 is over max_position_embeddings 32"),
        (dict(), "exactly one of input_ids or inputs_embeds"),
        (dict(input_ids=IDS, inputs_embeds=torch.zeros(2, 6, 16)), "exactly one of input_ids or inputs_embeds"),
        (dict(input_ids=torch.ones(5).long()), r"input_ids \[batch, length\], got shape \(5,\)"),
        (dict(input_ids=torch.ones(2, 0).long()), "at least one token"),
    ],
)
def test_bad_input_gets_one_clear_error(inputs, message):
    _, ours = twins("ElectraModel")
    with pytest.raises(ValueError, match=message):
        ours(**inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (dict(input_ids=IDS, attention_mask=torch.ones(2, 5, 6)), r"shape \(2, 6, 6\), .* got \(2, 5, 6\)"),
        (dict(input_ids=IDS, attention_mask=torch.ones(2, 3, 6, 6)), r"shape \(2, 4, 6, 6\), .* got \(2, 3, 6, 6\)"),
        (dict(input_ids=IDS, head_mask=torch.ones(3)), r"head_mask must have shape \(4,\), .* got \(3,\)"),
        (dict(input_ids=IDS, head_mask=torch.ones(3, 4)), r"head_mask must have shape \(2, 4\), .* got \(3, 4\)"),
        (dict(inputs_embeds=torch.zeros(2, 6, 17)), "16 wide .*, got 17"),
    ],
)
def test_shapes_that_do_not_fit_are_named(inputs, message):
    _, ours = twins("ElectraModel")
    with pytest.raises(ValueError, match=message):
        ours(**inputs)


@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForTokenClassification"])
@pytest.mark.parametrize("mask", [None, torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])], ids=["full", "padded"])
def test_labels_are_one_a_token(name, mask):
    _, ours = twins(name)
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 6\), got \(2, 5\)"):
        ours(IDS, attention_mask=mask, labels=torch.zeros(2, 5).long())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ElectraForCausalLM", (2, 5)),
        ("ElectraForSequenceClassification", (3,)),
        ("ElectraForMultipleChoice", (3,)),
    ],
)
def test_labels_of_another_batch_are_refused(name, shape):
    _, ours = twins(name, is_decoder=name == "ElectraForCausalLM")
    with pytest.raises(ValueError, match=r"input batch_size .* target batch_size"):
        ours(IDS[None] if name == "ElectraForMultipleChoice" else IDS, labels=torch.zeros(shape).long())


@pytest.mark.parametrize("name", ["ElectraForMaskedLM", "ElectraForTokenClassification"])
def test_labels_at_padding_do_not_count(name):
    """transformers counts them unless they are -100; what it predicts there means nothing."""
    _, ours = twins(name)
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    labels = IDS % 2
    ignored = labels.masked_fill(mask == 0, -100)
    assert torch.equal(
        ours(IDS, attention_mask=mask, labels=labels).loss, ours(IDS, attention_mask=mask, labels=ignored).loss
    )


def test_an_unknown_keyword_is_named():
    _, ours = twins("ElectraModel")
    with pytest.raises(TypeError, match="output_atentions"):
        ours(IDS, output_atentions=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(hidden_size=33), "multiple of num_attention_heads, got 33 and 4"),
        (dict(vocab_size=0), "vocab_size must be a positive integer, got 0"),
        (dict(hidden_dropout_prob=1.5), r"hidden_dropout_prob must be in \[0, 1\)"),
        (dict(add_cross_attention=True), "is_decoder=True"),
        (dict(position_embedding_type="relative_key"), "'absolute', got 'relative_key'"),
        (dict(hidden_act="gleu"), "'gleu'"),
        (dict(summary_type="attn"), "'attn'"),
        (dict(problem_type="guess"), "'guess'"),
        (dict(num_labels=3), "num_labels 2"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_config_that_makes_no_model_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        for name in CLASSES:
            twins_shape = {**SHAPE, **fields}
            model = getattr(__import__("electra_fast"), name)(ElectraConfig(**twins_shape))
            if name == "ElectraForSequenceClassification":
                model(IDS, labels=torch.zeros(2).long())


def test_the_problem_type_is_written_into_the_config():
    model = ElectraForSequenceClassification(ElectraConfig(**SHAPE, num_labels=3))
    model(IDS, labels=torch.tensor([0, 2]))
    assert model.config.problem_type == "single_label_classification"


def test_regression_to_several_values_is_transformers():
    theirs, ours = twins("ElectraForSequenceClassification", num_labels=3, problem_type="regression")
    labels = torch.randn(2, 3, dtype=torch.float64)
    assert_close("loss", ours(IDS, labels=labels).loss, theirs(IDS, labels=labels).loss, 1e-10)


def test_one_row_of_ids_serves_all_and_any_integer_will_do():
    theirs, ours = twins("ElectraModel")
    types, positions = torch.ones(1, 6).int(), torch.arange(6)[None].flip(1).int()
    expected = theirs(IDS, token_type_ids=types.long(), position_ids=positions.long()).last_hidden_state
    output = ours(IDS.int(), token_type_ids=types, position_ids=positions).last_hidden_state
    assert_close("hidden", output, expected, 1e-10)


def test_a_model_wants_a_config():
    with pytest.raises(TypeError, match="ElectraConfig, got dict"):
        ElectraModel(dict(SHAPE))
