"""Makes flax.npz, flax.json, tf.npz and tf.json: results and names of transformers 4.57's Flax and TensorFlow classes.

    python -m venv hf4
    hf4/bin/pip install transformers==4.57.6 "huggingface_hub<1" torch jax==0.10.2 flax==0.12.8
    hf4/bin/pip install tensorflow==2.21.0 tf-keras==2.21.0
    hf4/bin/python tests/golden/make_golden.py [flax] [tf]      writes the files beside this script
    hf4/bin/python tests/golden/make_golden.py load DIRECTORY   has those classes load what ours saved (see `load`)

It has an environment of its own since transformers 4 and this package need different versions of huggingface_hub.

An .npz holds, for each case: its outputs; `gradients`, two numbers for each parameter by name (`cases.projections`);
`scalars`, what the gradients are of, before and after a step of SGD along them. A .json holds the names and shapes of
the parameters in the framework's file, once where several cases have the same.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, FLAX, FOLDER, LEARNING_RATE, TF, Case, cases_of, cotangent, inputs_of, projections, weight

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
_KERAS_LEAVES = {"gamma": "scale", "beta": "bias", "weight": "embedding", "embeddings": "embedding"}


def canonical(name: str) -> str:
    """The name that `cases.weight` knows a Keras variable by."""
    *above, leaf = name.removesuffix(":0").replace("_._", "/").split("/")[1:]
    return "/".join([*above, _KERAS_LEAVES.get(leaf, leaf)])


def model_of(framework: str, case: Case) -> Any:
    import transformers

    prefix = {FLAX: "FlaxElectra", TF: "TFElectra"}[framework]
    return getattr(transformers, prefix + case.head)(transformers.ElectraConfig(**case.config))


def flax_results(name: str, case: Case) -> tuple[dict[str, Any], dict[str, list[int]]]:
    import jax
    from flax.traverse_util import flatten_dict, unflatten_dict

    model = model_of(FLAX, case)
    shapes = {path: list(x.shape) for path, x in sorted(flatten_dict(model.params, sep="/").items())}
    params = unflatten_dict({path: weight(path, shape) for path, shape in shapes.items()}, sep="/")
    labels = ("labels", "start_positions", "end_positions")
    inputs = {key: x for key, x in inputs_of(name).items() if key not in labels}
    outputs = model(**inputs, params=params, output_hidden_states=True, output_attentions=True)

    def scalar(params: Any) -> Any:
        outputs = model(**inputs, params=params)
        return sum((outputs[key] * cotangent(name, key, outputs[key].shape)).sum() for key in case.differentiated)

    before, gradients = jax.value_and_grad(scalar)(params)
    after = scalar(jax.tree.map(lambda x, gradient: x - LEARNING_RATE * gradient, params, gradients))
    gradients = flatten_dict(gradients, sep="/")
    results = {
        **{key: outputs[key] for key in case.outputs},
        "gradients": [projections(path, gradients[path]) for path in shapes],
        "scalars": [before, after],
    }
    return results, shapes


def tf_results(name: str, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    import tensorflow as tf

    model = model_of(TF, case)
    model.build_in_name_scope()
    for variable in model.weights:
        variable.assign(weight(canonical(variable.name), variable.shape))
    inputs = {key: tf.constant(x) for key, x in inputs_of(name).items()}
    n_past = inputs.pop("past_key_values", None)
    if n_past is not None:
        past = model(inputs["input_ids"][:, :n_past], attention_mask=inputs["attention_mask"][:, :n_past])
        inputs |= {key: inputs[key][:, n_past:] for key in ("input_ids", "token_type_ids")}
        inputs["past_key_values"] = past.past_key_values
    inputs.setdefault("input_ids", None)  # Keras wants the first argument
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)

    def scalar() -> Any:
        outputs = model(**inputs, training=True)
        if outputs.get("loss") is not None:
            return tf.reduce_mean(outputs.loss)
        return sum(tf.reduce_sum(outputs[key] * factors) for key, factors in cotangents.items())

    cotangents = {key: cotangent(name, key, outputs[key].shape) for key in case.differentiated}
    variables = sorted(model.trainable_variables, key=lambda variable: canonical(variable.name))
    with tf.GradientTape() as tape:
        before = scalar()
    gradients = tape.gradient(before, variables, unconnected_gradients="zero")
    gradients = [tf.convert_to_tensor(x) for x in gradients]
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign_sub(LEARNING_RATE * gradient)
    pairs = zip(variables, gradients, strict=True)
    results = {
        **{key: outputs[key] for key in case.outputs},
        "gradients": [projections(canonical(variable.name), gradient.numpy()) for variable, gradient in pairs],
        "scalars": [before, scalar()],
    }
    if outputs.get("loss") is not None:
        results["loss"] = outputs.loss
    return results, h5_layout(model)


def h5_layout(model: Any) -> dict[str, dict[str, list[int]]]:
    """The groups of the model's tf_model.h5 in Keras's order, each with the names in it and the shapes of these."""
    import h5py

    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        with h5py.File(Path(directory, "tf_model.h5")) as file:
            groups = {group: file[group] for group in map(_text, file.attrs["layer_names"])}
            return {
                name: {path: list(group[path].shape) for path in map(_text, group.attrs["weight_names"])}
                for name, group in groups.items()
            }


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode()


def make(framework: str) -> None:
    arrays: dict[str, np.ndarray] = {}
    names = {}
    for name, case in cases_of(framework).items():
        results, names[name] = {FLAX: flax_results, TF: tf_results}[framework](name, case)
        for key, value in results.items():
            if isinstance(value, tuple):
                arrays |= {f"{name}/{key}/{i}": np.asarray(x) for i, x in enumerate(value)}
            else:
                arrays[f"{name}/{key}"] = np.asarray(value, np.float32)
    np.savez_compressed(FOLDER / f"{framework}.npz", **arrays)
    first = {json.dumps(value): name for name, value in reversed(names.items())}
    names = {name: names[name] for name in reversed(first.values())}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in names.items())
    (FOLDER / f"{framework}.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def load(directory: Path) -> None:
    """Loads each directory FRAMEWORK-CASE that ours saved with the weights of the case; exits where one differs."""
    import transformers

    found = sorted(path for path in directory.iterdir() if path.is_dir())
    for path in found:
        framework, _, name = path.name.partition("-")
        case = CASES[name]
        prefix = {FLAX: "FlaxElectra", TF: "TFElectra"}[framework]
        model = getattr(transformers, prefix + case.head).from_pretrained(path)
        if framework == FLAX:
            from flax.traverse_util import flatten_dict

            weights = {key: np.asarray(x) for key, x in flatten_dict(model.params, sep="/").items()}
        else:
            weights = {canonical(x.name): x.numpy() for x in model.weights}
        for key, value in weights.items():
            if not np.array_equal(value, weight(key, value.shape)):
                raise SystemExit(f"{path.name}: {key} differs")
        print(f"{path.name}: {len(weights)} parameters are equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=[FLAX, TF])
    what = parser.parse_args().what
    if what[0] == "load":
        load(Path(what[1]))
    else:
        for framework in what:
            make(framework)


if __name__ == "__main__":
    main()
