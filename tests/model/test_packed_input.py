"""Rows that hold several sequences already, as transformers' DataCollatorWithFlattening makes them."""

import pytest
import torch
from parity import VOCAB, assert_close, twins

LENGTHS = [3, 1, 4]
POSITIONS = torch.cat([torch.arange(n) for n in LENGTHS])[None]
MARKS = torch.tensor([0, *LENGTHS]).cumsum(0).int()
KINDS = {
    "positions": dict(position_ids=POSITIONS),
    "marks": dict(position_ids=POSITIONS, cu_seq_lens_q=MARKS, cu_seq_lens_k=MARKS, max_length_q=4, max_length_k=4),
    "marks without a length": dict(position_ids=POSITIONS, cu_seq_lens_q=MARKS),
}
PADDED_FORM = {
    "fast": {},
    "attentions": dict(output_attentions=True),
    "head mask": dict(head_mask=torch.ones(4)),
}


@pytest.fixture
def row():
    """[1, 8] ids, and the same as a right-padded batch with its mask."""
    torch.manual_seed(0)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, VOCAB, mask.shape)
    return ids[mask][None], ids, mask.long()


def assert_sequences_are_apart(row, is_decoder: bool, **inputs) -> None:
    _, model = twins("ElectraModel", is_decoder=is_decoder)
    ids, padded, mask = row
    expected = model(padded, attention_mask=mask).last_hidden_state[mask.bool()]
    assert_close("hidden", model(ids, **inputs).last_hidden_state[0], expected, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_of_a_row_do_not_see_each_other(row, kind):
    assert_sequences_are_apart(row, is_decoder=False, **KINDS[kind])
    assert_sequences_are_apart(row, is_decoder=True, use_cache=False, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("is_decoder", "form"),
    [(False, "attentions"), (False, "head mask"), (True, "fast"), (True, "attentions"), (True, "head mask")],
)
def test_nor_in_the_padded_form(row, is_decoder, form, kind):
    """Probabilities, head masks and a decoder's cache take the padded form."""
    assert_sequences_are_apart(row, is_decoder, **KINDS[kind], **PADDED_FORM[form])


def test_several_rows_can_be_marked(row):
    _, model = twins("ElectraModel")
    ids = torch.cat([row[0], row[0].flip(1)])
    marks = torch.tensor([0, 3, 8, 10, 16], dtype=torch.int32)  # 3 and 5 tokens; 2 and 6
    expected = [
        [model(part).last_hidden_state for part in ids[i : i + 1].split(n, 1)] for i, n in enumerate([[3, 5], [2, 6]])
    ]
    expected = torch.cat([torch.cat(parts, dim=1) for parts in expected])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3, 4, 5]])
    for form in PADDED_FORM.values():
        output = model(ids, position_ids=positions, cu_seq_lens_q=marks, **form)
        assert_close("hidden", output.last_hidden_state, expected, 1e-12)


@pytest.mark.parametrize(
    ("name", "n_classes"),
    [
        ("ElectraForPreTraining", 2),
        ("ElectraForMaskedLM", VOCAB),
        ("ElectraForTokenClassification", 2),
        ("ElectraForCausalLM", VOCAB),
    ],
)
def test_the_loss_of_a_row_is_that_of_the_padded_batch(row, name, n_classes):
    _, model = twins(name, is_decoder=name == "ElectraForCausalLM")
    ids, padded, mask = row
    labels = torch.randint(0, n_classes, padded.shape)
    if name != "ElectraForPreTraining":
        labels = labels.masked_fill(mask == 0, -100)
    in_row = labels[mask.bool()][None].clone()
    if name == "ElectraForCausalLM":
        in_row[0, MARKS[:-1].long()] = -100  # nothing predicts the first token of a sequence
    expected = model(padded, attention_mask=mask, labels=labels)
    output = model(ids, labels=in_row, **KINDS["marks"])
    assert_close("loss", output.loss, expected.loss, 1e-6)  # two of the four compute it in fp32
    assert_close("logits", output.logits[0], expected.logits[mask.bool()], 1e-12)


def test_positions_that_do_not_start_again_are_one_sequence(row):
    theirs, ours = twins("ElectraModel")
    ids = row[0]
    for positions in (
        torch.arange(3, 11)[None],
        torch.randperm(8)[None],
        torch.zeros(1, 8).long()[:, :1].expand(1, 8) + 5,
    ):
        expected = theirs(ids, position_ids=positions).last_hidden_state
        assert_close("hidden", ours(ids, position_ids=positions).last_hidden_state, expected, 1e-10)


@pytest.mark.parametrize("marks", [[0, 3], [0, 3, 9], [1, 8], [0, 5, 3, 8]], ids=str)
def test_marks_that_do_not_fit_are_refused(row, marks):
    _, model = twins("ElectraModel")
    with pytest.raises(ValueError, match=r"cu_seq_lens_q must rise from 0 to 8 tokens, got \["):
        model(row[0], cu_seq_lens_q=torch.tensor(marks), max_length_q=8)


@pytest.mark.parametrize(
    "marks",
    [
        torch.stack([MARKS, MARKS * 0 + 7], dim=1)[:, 0],
        torch.stack([MARKS, MARKS * 0 + 7], dim=1).long()[:, 0],
    ],
    ids=["strided int32", "strided int64"],
)
@torch.no_grad()
def test_marks_may_lie_anywhere_in_memory(row, marks):
    """C++ reads them as an array."""
    _, model = twins("ElectraModel", torch.float32)
    ids, padded, mask = row
    expected = model(padded, attention_mask=mask).last_hidden_state[mask.bool()]
    for form in ({}, dict(output_attentions=True)):
        output = model(ids, position_ids=POSITIONS, cu_seq_lens_q=marks, **form)
        assert_close("hidden", output.last_hidden_state[0], expected, 1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(cu_seq_lens_q=MARKS.float()), ValueError, "int32 or int64 .* got torch.float32"),
        (dict(cu_seq_lens_q=MARKS[None]), ValueError, r"int32 or int64 .* of shape \(1, 4\)"),
        (dict(cu_seq_lens_q=MARKS[:0]), ValueError, "rise from 0 to 8"),
        (dict(cu_seq_lens_q=MARKS.tolist()), TypeError, "cu_seq_lens_q must be a torch tensor, got a list"),
        (dict(cu_seq_lens_q=MARKS, max_length_q=3), ValueError, "max_length_q must be at least 4, .* got 3"),
        (dict(cu_seq_lens_q=MARKS, cu_seq_lens_k=MARKS.flip(0)), ValueError, "cu_seq_lens_k must equal cu_seq_lens_q"),
        (
            dict(cu_seq_lens_q=MARKS, attention_mask=torch.tensor([[1] * 7 + [0]])),
            ValueError,
            "attention_mask must be None or all ones beside cu_seq_lens_q",
        ),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_marks_of_another_kind_are_named(row, options, error, message, grad):
    _, model = twins("ElectraModel", torch.float32)
    with torch.set_grad_enabled(grad), pytest.raises(error, match=message):
        model(row[0], **options)


def test_marks_are_not_for_a_cache(row):
    _, model = twins("ElectraModel", is_decoder=True)
    cache = model(row[0]).past_key_values
    with pytest.raises(ValueError, match="cu_seq_lens_q cannot be served with past_key_values"):
        model(row[0], past_key_values=cache, cu_seq_lens_q=MARKS)


def test_sequence_numbers_go_with_positions_or_marks(row):
    _, model = twins("ElectraModel")
    numbers = torch.arange(3).repeat_interleave(torch.tensor(LENGTHS))[None].int()
    expected = model(row[0], position_ids=POSITIONS)[0]
    for options in (dict(position_ids=POSITIONS), dict(position_ids=POSITIONS, cu_seq_lens_q=MARKS)):
        assert_close("hidden", model(row[0], seq_idx=numbers, **options)[0], expected, 1e-12)
