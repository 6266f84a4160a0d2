"""The arguments of generate(): as in transformers, or refused by name."""

import pytest
import torch
from parity import twins

IDS = torch.randint(1, 97, (2, 6), generator=torch.Generator().manual_seed(0))
ONES = torch.ones_like(IDS)


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(max_new_tokens=4, eos_token_id=torch.tensor(5)),
        dict(max_new_tokens=4, eos_token_id=torch.tensor([5, 6]), pad_token_id=torch.tensor(1)),
        dict(max_new_tokens=4, eos_token_id=[]),
        dict(max_new_tokens=4, do_sample=None, use_cache=None),
        dict(max_new_tokens=4, do_sample=True, top_k=1, temperature=None, top_p=None),
        dict(max_new_tokens=4, do_sample=True, top_k=None, top_p=1e-9),
        dict(max_new_tokens=4, attention_mask=ONES[:1]),
        dict(max_new_tokens=4, attention_mask=ONES.bool()),
        dict(max_new_tokens=4, token_type_ids=ONES[:1]),
        dict(max_new_tokens=26),
    ],
    ids=str,
)
def test_served_as_in_transformers(options):
    theirs, ours = twins("ElectraForCausalLM", is_decoder=True)
    expected = theirs.generate(IDS, **{"do_sample": False, "attention_mask": ONES, **options})
    assert torch.equal(ours.generate(IDS, **{"attention_mask": ONES, **options}), expected)


@pytest.mark.parametrize("length", [6, 20, 31])
def test_without_a_length_20_tokens_are_added_if_they_fit(length):
    theirs, ours = twins("ElectraForCausalLM", is_decoder=True)
    ids = torch.randint(1, 97, (1, length))
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False)
    assert expected.shape[1] == min(32, length + 20)
    assert torch.equal(ours.generate(ids), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(inputs=IDS.tolist()), TypeError, "input_ids must be a torch tensor, got a list"),
        (dict(inputs=IDS.float()), ValueError, "input_ids must be int64 or int32"),
        (dict(attention_mask=ONES.tolist()), TypeError, "attention_mask must be a torch tensor, got a list"),
        (dict(attention_mask=ONES[0]), ValueError, r"attention_mask must have shape \(2, 6\), got \(6,\)"),
        (dict(attention_mask=ONES * 0), ValueError, "padded on the left, with at least one real token"),
        (dict(attention_mask=ONES.tril(3)), ValueError, "padded on the left"),
        (dict(max_new_tokens=2.5), ValueError, "max_new_tokens must be an integer, got 2.5"),
        (dict(max_new_tokens="3"), ValueError, "max_new_tokens must be an integer, got '3'"),
        (dict(max_new_tokens=0), ValueError, "nothing to generate: .* max_new_tokens is 0"),
        (dict(max_length=True), ValueError, "max_length must be an integer, got True"),
        (dict(num_return_sequences=0), ValueError, "num_return_sequences must be at least 1, got 0"),
        (dict(num_return_sequences=2.0), ValueError, "num_return_sequences must be an integer, got 2.0"),
        (dict(do_sample=True, top_k="x"), ValueError, "top_k must be an integer, got 'x'"),
        (dict(eos_token_id="[SEP]"), ValueError, r"eos_token_id must be an integer .* got '\[SEP\]'"),
        (dict(pad_token_id=0.5), ValueError, "pad_token_id must be an integer"),
        (dict(length_penalty=ONES), NotImplementedError, "length_penalty"),
        (dict(max_new_tokens=40), ValueError, "position_ids must be in|max_position_embeddings"),
    ],
    ids=str,
)
def test_refused_by_name(options, error, message):
    _, ours = twins("ElectraForCausalLM", is_decoder=True)
    with pytest.raises(error, match=message):
        ours.generate(**{"inputs": IDS, **options})
