"""attn_implementation="electra_fast": our attention in models that are otherwise transformers' own."""

import dataclasses

import pytest
import torch
from electra_calls import SHAPE, VOCAB, assert_same, padded_batch, results, tiny, transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from electra_fast import ops
from electra_fast.integrations.attention import packed_attention
from electra_fast.integrations.transformers import register_attention

KINDS = ("electra", "bert", "distilbert", "roberta", "gpt_neox")


@pytest.fixture(autouse=True, scope="module")
def registered():
    register_attention()
    register_attention()


def model_of(kind: str, attention: str = "sdpa", **changes):
    torch.manual_seed(0)
    shape = {name: SHAPE[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")}
    shape |= dict(intermediate_size=37, max_position_embeddings=32, pad_token_id=0, attn_implementation=attention)
    shape |= dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0) | changes
    if kind == "distilbert":
        shape = dict(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=4, hidden_dim=37, dropout=0.0) | {
            "attention_dropout": 0.0, "attn_implementation": attention, "pad_token_id": 0}  # fmt: skip
    config = transformers.AutoConfig.for_model(kind, **shape)
    poolerless = {"add_pooling_layer": False} if kind in ("bert", "roberta") else {}  # it reads a padding position
    return transformers.AutoModel.from_config(config, attn_implementation=attention, **poolerless).train()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 4),
    length=st.integers(1, 9),
    padding=st.sampled_from(["no mask", "full", "right", "left"]),
    seed=st.integers(0, 99),
)
def test_models_give_the_same(kind, rows, length, padding, seed):
    call = padded_batch(rows, length, padding, seed)
    call |= {"use_cache": False} if kind == "gpt_neox" else {}
    theirs, ours = model_of(kind), model_of(kind, "electra_fast")
    ours.load_state_dict(theirs.state_dict())
    assert ours.config._attn_implementation == "electra_fast"
    assert_same(results(ours, call), results(theirs, call))


def test_it_is_our_attention_that_runs(monkeypatch):
    seen = []
    bound = ops.select("auto", 8)

    def recorded(qkv, *args):
        seen.append(tuple(qkv.shape))
        return bound.attention(qkv, *args)

    monkeypatch.setattr(ops, "select", lambda *args: dataclasses.replace(bound, attention=recorded))
    call = padded_batch()
    model_of("bert", "electra_fast")(**call)
    assert seen == [(int(call["attention_mask"].sum()), 3, 4, 8)] * 2


def test_dropout_and_scaling():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    module = torch.nn.Module()
    expected = (query @ key.mT * 0.3).softmax(-1) @ value
    out, probabilities = packed_attention(module, query, key, value, None, scaling=0.3)
    torch.testing.assert_close(out, expected.transpose(1, 2))
    assert probabilities is None
    dropped, _ = packed_attention(module, query, key, value, None, scaling=0.3, dropout=0.5)
    assert not torch.allclose(dropped, out)


def test_packed_rows_are_attended_one_by_one():
    ids = padded_batch(1, 9, "no mask")["input_ids"]
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    positions = torch.cat([torch.arange(4), torch.arange(5)])[None]
    model = model_of("electra", "electra_fast").eval()
    marks = dict(cu_seq_lens_q=starts, cu_seq_lens_k=starts, max_length_q=5, max_length_k=5)
    expected = torch.cat([model(part).last_hidden_state for part in ids.split([4, 5], dim=1)], dim=1)
    for call in (dict(position_ids=positions), dict(position_ids=positions, **marks)):
        torch.testing.assert_close(model(ids, **call).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_marks_that_do_not_fit_are_refused_and_others_may_be_strided():
    ids = padded_batch(1, 9, "no mask")["input_ids"]
    model = model_of("electra", "electra_fast").eval()
    starts = torch.tensor([[0, 7], [4, 7], [9, 7]], dtype=torch.int32)[:, 0]
    expected = torch.cat([model(part).last_hidden_state for part in ids.split([4, 5], dim=1)], dim=1)
    positions = torch.cat([torch.arange(4), torch.arange(5)])[None]
    output = model(ids, position_ids=positions, cu_seq_lens_q=starts, max_length_q=5)
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"cu_seq_lens_q must rise from 0 to 9 tokens, got \[0, 9, 4\]"):
        model(ids, cu_seq_lens_q=torch.tensor([0, 9, 4]), max_length_q=9)


def test_what_it_does_not_serve_is_refused_by_name():
    model, call = model_of("bert", "electra_fast"), padded_batch()
    with pytest.raises(ValueError, match=r"masks \[batch, length\], got one of \[3, 1, 9, 9\]"):
        model(call["input_ids"], attention_mask=torch.ones(3, 1, 9, 9, dtype=torch.bool))
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 7, 8)
    with pytest.raises(ValueError, match="no caches"):
        packed_attention(torch.nn.Module(), query, key, key, None)
    with pytest.raises(ValueError, match="sliding_window"):
        packed_attention(torch.nn.Module(), query, query, query, None, sliding_window=4)
    decoder = model_of("gpt_neox", "electra_fast").eval()
    cached = decoder(**call, use_cache=True)
    more = torch.cat([call["attention_mask"], torch.ones(3, 1, dtype=torch.long)], dim=1)
    with pytest.raises(ValueError, match="no caches"):
        decoder(call["input_ids"][:, :1], attention_mask=more, past_key_values=cached.past_key_values)
    mistral = transformers.MistralModel(transformers.MistralConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=37, sliding_window=3, attn_implementation="electra_fast"))  # fmt: skip
    with pytest.raises(ValueError, match="full and causal attention"):
        mistral(**call)


def test_it_can_be_chosen_later():
    model, call = tiny("ElectraForPreTraining").train(), padded_batch()
    expected = results(model, call)
    model.set_attn_implementation("electra_fast")
    assert_same(results(model, call), expected)
