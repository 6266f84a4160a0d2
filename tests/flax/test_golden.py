"""Results, gradients and names of transformers 4.57's Flax classes (tests/golden), beside ours."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from golden.cases import (
    FLAX,
    FOLDER,
    LEARNING_RATE,
    cases_of,
    cotangent,
    inputs_of,
    projections,
    real_positions,
    weight,
)

import electra_fast
from electra_fast import ElectraConfig
from electra_fast.functional.parameters import flatten, unflatten

CASES = cases_of(FLAX)
LABELS = ("labels", "start_positions", "end_positions")
# A case that is not here has the names of another.
NAMES = json.loads((FOLDER / "flax.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden():
    with np.load(FOLDER / "flax.npz") as file:
        return dict(file)


def model_of(name):
    cls = getattr(electra_fast, f"FlaxElectra{CASES[name].head}")
    return cls(ElectraConfig(**CASES[name].config), _do_init=False)


def weights_of(model):
    shapes = flatten(model.params_shape_tree)
    return unflatten({path: weight("/".join(path), x.shape) for path, x in shapes})


def given(name):
    return {key: x for key, x in inputs_of(name).items() if key not in LABELS}


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes(name):
    shapes = {"/".join(path): list(x.shape) for path, x in flatten(model_of(name).params_shape_tree)}
    assert shapes == NAMES[name] if name in NAMES else shapes in NAMES.values()


@pytest.mark.parametrize("name", CASES)
def test_results_gradients_and_a_step(name, golden):
    case, model, inputs = CASES[name], model_of(name), given(name)

    def scalar(params):
        outputs = model(**inputs, params=params, output_hidden_states=True, output_attentions=True)
        factors = {key: cotangent(name, key, outputs[key].shape) for key in case.differentiated}
        return sum((outputs[key] * value).sum() for key, value in factors.items()), outputs

    params = weights_of(model)
    run = jax.value_and_grad(scalar, has_aux=True)
    # Op by op, operations of the same shapes are compiled once for all cases; those of several choices are others.
    run = jax.jit(run) if case.head == "ForMultipleChoice" else run
    (before, outputs), gradients = run(params)
    for key in case.outputs:
        found = outputs[key] if isinstance(outputs[key], tuple) else [outputs[key]]
        expected = [golden[x] for x in golden if x == f"{name}/{key}" or x.startswith(f"{name}/{key}/")]
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=key)
    paths = sorted("/".join(path) for path, _ in flatten(gradients))
    by_name = {"/".join(path): x for path, x in flatten(gradients)}
    found = [projections(path, by_name[path]) for path in paths]
    for path, ours, theirs in zip(paths, found, golden[f"{name}/gradients"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=path)
    (after, _), _ = run(jax.tree.map(lambda x, gradient: x - LEARNING_RATE * np.asarray(gradient), params, gradients))
    np.testing.assert_allclose([before, after], golden[f"{name}/scalars"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("wide", "heads", "causal_cross")])
def test_the_cpp_encoder_has_the_results_of_real_tokens(name, golden, twin_calls):
    model = model_of(name)
    outputs = model(**given(name), params=jax.tree.map(jax.numpy.asarray, weights_of(model)))
    assert len(twin_calls) == 1
    for key in CASES[name].differentiated:
        real = real_positions(name, outputs[key].shape)
        real = True if real is None else real
        np.testing.assert_allclose(outputs[key] * real, golden[f"{name}/{key}"] * real, rtol=0, atol=1e-5)
