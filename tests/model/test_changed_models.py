"""Models whose config or layers were changed after they were made, and models without layers."""

import pytest
import torch
from parity import twins


@pytest.mark.parametrize("embedding_size", [16, 32])
@pytest.mark.parametrize("grad", [False, True])
def test_a_model_without_layers_gives_its_embeddings(embedding_size, grad):
    theirs, ours = twins("ElectraModel", torch.float32, num_hidden_layers=0, embedding_size=embedding_size)
    ids = torch.arange(1, 13).reshape(2, 6)
    with torch.set_grad_enabled(grad):
        expected, output = theirs(ids).last_hidden_state, ours(ids, output_hidden_states=True)
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.hidden_states[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_hidden_layers", 0),
        ("num_hidden_layers", 9),
        ("hidden_size", 64),
        ("intermediate_size", 500),
        ("num_attention_heads", 2),
        ("embedding_size", 8),
        ("layer_norm_eps", 1.0),
    ],
)
@pytest.mark.parametrize("is_used", [False, True])
@torch.no_grad()
def test_a_config_that_changes_under_a_model_changes_no_sizes(name, value, is_used):
    theirs, ours = twins("ElectraModel", torch.float32)
    ids = torch.arange(1, 13).reshape(2, 6)
    if is_used:
        ours(ids)
    setattr(theirs.config, name, value)
    setattr(ours.config, name, value)
    output = ours(ids, output_hidden_states=True)
    expected = theirs(ids).last_hidden_state
    torch.testing.assert_close(output.last_hidden_state, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.hidden_states[-1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.train()(ids).last_hidden_state, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layers_that_are_cut_off_leave_no_state_behind():
    _, ours = twins("ElectraModel", torch.float32)
    ids = torch.arange(1, 13).reshape(2, 6)
    ours(ids)
    del ours.encoder.layer[1]
    output = ours(ids, output_hidden_states=True)
    assert len(output.hidden_states) == 2
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


@torch.no_grad()
def test_a_model_that_becomes_a_decoder_sees_no_later_tokens():
    _, ours = twins("ElectraModel", torch.float32)
    ids = torch.arange(1, 13).reshape(2, 6)
    both_ways = ours(ids).last_hidden_state
    ours.config.is_decoder = True
    causal = ours(ids, use_cache=False).last_hidden_state
    torch.testing.assert_close(causal[:, :3], ours(ids[:, :3], use_cache=False).last_hidden_state, rtol=0, atol=1e-5)
    assert (causal - both_ways).abs().max() > 1e-3
