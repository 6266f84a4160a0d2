"""Pieces of the pure functions beside the PyTorch classes: activations, names, summaries, the cache, dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tiny_models import TINY, random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraForMultipleChoice
from electra_fast.functional import jax_ops
from electra_fast.functional.activations import ACTIVATIONS, activate
from electra_fast.functional.core import Network, empty_cache
from electra_fast.functional.heads import HEADS, forward
from electra_fast.functional.parameters import flatten, initial_values, shapes, unflatten
from electra_fast.hub.names import TRANSPOSED, flax_parts, torch_name
from electra_fast.ops import reference

IDS = np.random.default_rng(0).integers(1, TINY["vocab_size"], (3, 7))


def parameters_of(model, kind):
    """A PyTorch model's values in the layout of Flax."""
    state, tree = model.state_dict(), {}
    for path, shape in flatten(shapes(model.config, kind)):
        value = state[torch_name(path)]
        tree[path] = jnp.asarray((value.T if path[-1] == TRANSPOSED else value).numpy())
        assert tree[path].shape == shape
    return unflatten(tree)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = torch.linspace(-12, 12, 101)
    found = activate(jax_ops, name, jnp.asarray(x.numpy()))
    np.testing.assert_allclose(found, reference.ACTIVATIONS[name](x), rtol=1e-5, atol=2e-6)


def test_activations_are_those_of_the_pytorch_classes():
    assert ACTIVATIONS.keys() == reference.ACTIVATIONS.keys()
    assert activate(jax_ops, jnp.cos, jnp.zeros(1)) == 1 and activate(jax_ops, None, 3) == 3
    with pytest.raises(ValueError, match=r"must be one of gelu, .*, got 'nothing'"):
        activate(jax_ops, "nothing", jnp.zeros(1))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_names_are_those_of_the_pytorch_classes(kind, tie, cross):
    fields = {"tie_word_embeddings": tie, "is_decoder": cross or kind == "ForCausalLM", "add_cross_attention": cross}
    model = random_model(getattr(electra_fast, f"Electra{kind}"), **fields)
    names = {torch_name(path): path for path, _ in flatten(shapes(model.config, kind))}
    tied = {"generator_lm_head.weight"} if tie else set()
    assert names.keys() | tied == model.state_dict().keys() | tied
    assert all(flax_parts(name) == path for name, path in names.items())


@pytest.mark.parametrize("fields", [{"summary_type": "mean"}, {"summary_type": "last", "summary_use_proj": False},
                                    {"summary_activation": "tanh", "embedding_size": 32}],
                         ids=["mean", "last", "tanh"])  # fmt: skip
def test_summaries(fields):
    model = random_model(ElectraForMultipleChoice, **fields)
    net = Network(jax_ops, model.config, jnp.float32)
    ids = IDS.reshape(3, 1, 7).repeat(2, 1)
    run = jax.jit(lambda *given: forward(net, "ForMultipleChoice", *given)[0])
    results = run(parameters_of(model, "ForMultipleChoice"), ids)
    with torch.no_grad():
        np.testing.assert_allclose(results["logits"], model(torch.from_numpy(ids)).logits, rtol=0, atol=1e-5)


def decoder(**fields):
    config = ElectraConfig(**TINY, is_decoder=True, **fields)
    draw = np.random.default_rng(0)
    params = initial_values(shapes(config, "Model"), lambda shape: draw.normal(size=shape).astype("f") * 0.3, np.full)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return Network(jax_ops, config, jnp.float32), params


def test_a_cache_gives_what_the_whole_sequence_gives():
    net, params = decoder(add_cross_attention=True)
    states = np.random.default_rng(1).normal(size=(3, 5, 32))
    mask = np.ones((3, 9), int)
    mask[0, :2] = 0
    run = jax.jit(lambda *given, cache=None: net.encode(params, *given, encoder_hidden_states=states, cache=cache))
    whole = run(IDS, mask[:, :7]).hidden
    cache = empty_cache(net, 3, 9, jnp.zeros)
    parts = []
    for columns in (IDS[:, :6], IDS[:, 6:]):
        encoded = run(columns, mask, cache=cache)
        cache = encoded.cache
        parts.append(encoded.hidden)
    assert int(cache["index"]) == 7
    real = mask[:, :7, None]
    np.testing.assert_allclose(jnp.concatenate(parts, 1) * real, whole * real, rtol=0, atol=1e-5)


def test_dropout_draws_by_its_key():
    x = jnp.ones((100, 100))
    first, again, other = (jax_ops.dropout(x, 0.25, jax.random.PRNGKey(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)} and abs(float(first.mean()) - 1) < 0.02


def test_a_row_that_sees_nothing_is_finite_and_an_unknown_id_is_nan():
    net, params = decoder()
    mask = np.ones_like(IDS)
    mask[1] = 0
    run = jax.jit(lambda ids, mask: net.encode(params, ids, mask).hidden)
    assert np.isfinite(run(IDS, mask)).all()
    assert np.isnan(run(IDS + 98, mask)[:, 0]).all()
