"""Calls within jit, grad, vmap and checkpoint, on two devices, and by the C++ encoder from within a graph."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY

from electra_fast import ElectraConfig, FlaxElectraForSequenceClassification, FlaxElectraModel

FIELDS = {**TINY, "num_hidden_layers": 1, "initializer_range": 0.3}
IDS = np.random.default_rng(0).integers(1, TINY["vocab_size"], (4, 7))
MASK = np.ones_like(IDS)
MASK[0, 4:] = 0


@pytest.fixture(scope="module")
def model():
    return FlaxElectraForSequenceClassification(ElectraConfig(**FIELDS))


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_where_parameters_are_known_cpp_computes(model, twin_calls):
    eager = model(IDS, MASK, output_hidden_states=True)
    assert twin_calls == [IDS.shape]
    jitted = jax.jit(lambda ids, mask: model(ids, mask, output_hidden_states=True))(IDS, MASK)
    assert len(twin_calls) == 2 and (jitted.logits == eager.logits).all()
    assert all((a == b).all() for a, b in zip(jitted.hidden_states, eager.hidden_states, strict=True))
    traced = jax.jit(lambda params: model(IDS, MASK, params=params, output_hidden_states=True))(model.params)
    assert len(twin_calls) == 2
    assert_near(eager.logits, traced.logits)
    for ours, theirs in zip(eager.hidden_states, traced.hidden_states, strict=True):
        assert_near(ours * MASK[..., None], theirs * MASK[..., None])


def test_an_unknown_id_within_a_graph_is_an_error(model):
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"input_ids must be in \[0, 99\)"):
        jax.block_until_ready(jax.jit(lambda ids: model(ids).logits)(IDS + 90))


def test_a_new_set_of_parameters_is_seen(model):
    other = jax.tree.map(lambda x: x * 0.5, model.params)
    first, second = model(IDS), model(IDS, params=other)
    assert (first.logits != second.logits).all() and (model(IDS).logits == first.logits).all()


def test_vmap(model, twin_calls):
    ids, mask = jnp.stack([IDS, IDS[::-1]]), jnp.stack([MASK, MASK[::-1]])
    expected = model(IDS, MASK).logits
    for found in (
        jax.vmap(lambda ids, mask: model(ids, mask).logits)(ids, mask),
        jax.jit(lambda params: jax.vmap(lambda *given: model(*given, params=params).logits)(ids, mask))(model.params),
    ):
        assert_near(found[0], expected)
        assert_near(found[1], expected[::-1])
    assert twin_calls == [(4, 7), (8, 7)]


def test_gradients_with_dropout_and_checkpointing(model):
    other = FlaxElectraForSequenceClassification(model.config, gradient_checkpointing=True)
    key = jax.random.key(3, impl="unsafe_rbg")  # is compiled in less time than the default

    def results(model):
        def loss(params):
            logits = model(IDS, MASK, params=params, dropout_rng=key, train=True).logits
            return (logits**2).sum(), logits

        return jax.jit(jax.grad(loss, has_aux=True))(other.params)

    plain, checkpointed = results(model), results(other)
    jax.tree.map(assert_near, plain, checkpointed)
    assert (plain[1] != other(IDS, MASK).logits).all()
    other = FlaxElectraModel(model.config)
    other.enable_gradient_checkpointing()
    assert other.module.checkpoint_layers


def test_half_precision(model):
    exact = model(IDS, MASK).logits
    half = FlaxElectraForSequenceClassification(model.config, dtype=jnp.bfloat16, _do_init=False)
    params = model.to_bf16(model.params)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    found = jax.jit(lambda params: half(IDS, MASK, params=params).logits)(params)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0, atol=0.1)
    mask = jax.tree.map(lambda x: x.ndim == 2, model.params)
    mixed = model.to_fp16(model.params, mask)
    assert {(x.ndim, str(x.dtype)) for x in jax.tree.leaves(mixed)} == {(1, "float32"), (2, "float16")}
    assert {str(x.dtype) for x in jax.tree.leaves(model.to_fp32(mixed))} == {"float32"}


TWO_DEVICES = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from electra_fast import ElectraConfig, FlaxElectraForSequenceClassification
model = FlaxElectraForSequenceClassification(ElectraConfig(**{fields}))
ids = np.arange(28).reshape(4, 7)
expected = model(ids).logits
mesh = jax.sharding.Mesh(jax.devices(), ("data",))
rows, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
shared, params = jax.device_put(ids, rows), jax.device_put(model.params, whole)

def loss(params, ids):
    logits = model(ids, params=params).logits
    return (logits ** 2).sum(), logits

gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params, shared)
assert len(logits.sharding.device_set) == 2 and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
for found in (logits, jax.jit(lambda ids: model(ids).logits)(shared)):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
"""

IN_FLIGHT = """
import os
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})  # so JAX has one thread
import jax, numpy as np
from electra_fast import ElectraConfig, FlaxElectraForSequenceClassification
model = FlaxElectraForSequenceClassification(ElectraConfig(**{fields}))
ids = np.ones((6000, 60), np.int32)
mask = ids * (np.arange(60) == 0)
run = jax.jit(lambda ids, mask: model(ids, mask).logits)
jax.block_until_ready([run(ids, mask) for _ in range(4)])
"""


@pytest.mark.parametrize("code", [TWO_DEVICES, IN_FLIGHT], ids=["two_devices", "large_batches_in_flight"])
def test_in_a_process_of_its_own(code, monkeypatch):
    devices = "--xla_force_host_platform_device_count=2" if code == TWO_DEVICES else ""
    monkeypatch.setenv("XLA_FLAGS", devices)
    code = code.format(fields=FIELDS)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
