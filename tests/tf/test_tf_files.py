"""Files: names of transformers 4.57, every format of every framework, shards, SavedModel, and another vocabulary."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from golden.cases import CASES, FOLDER, TF, inputs_of

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")

import keras  # noqa: E402
from tf_models import error, make, tokens_of  # noqa: E402

import electra_fast  # noqa: E402
from electra_fast.functional.parameters import flatten  # noqa: E402
from electra_fast.model.pretrained import CheckpointWarning  # noqa: E402

NAMES = json.loads((FOLDER / f"{TF}.json").read_text(encoding="utf-8"))
FORMATS = {
    "h5": {},
    "safetensors": {"safe_serialization": True},
    "h5_in_shards": {"max_shard_size": "20KB"},
    "safetensors_in_shards": {"safe_serialization": True, "max_shard_size": "20KB"},
}


def assert_same(model, other):
    leaves, others = dict(flatten(model.tree())), dict(flatten(other.tree()))
    assert leaves.keys() == others.keys()
    for path, value in leaves.items():
        np.testing.assert_array_equal(value.numpy(), others[path].numpy(), err_msg=str(path))


@pytest.mark.parametrize("name", NAMES)
def test_names_in_h5_are_those_of_transformers(tmp_path, name):
    make(name).save_pretrained(tmp_path)
    with h5py.File(tmp_path / "tf_model.h5") as file:
        found = {
            group: {path: list(file[group][path].shape) for path in file[group].attrs["weight_names"]}
            for group in file.attrs["layer_names"]
        }
    expected = {group: paths for group, paths in NAMES[name].items() if paths}  # they write one for dropout
    if "generator_lm_head" in expected:  # theirs has the embeddings a second time
        expected["generator_lm_head"] = {k: v for k, v in expected["generator_lm_head"].items() if k.endswith("bias:0")}
    # The model's name, which stands before all others, has a number where a process has made several.
    assert _without_model(found) == _without_model(expected)
    assert all(path.startswith("tf_electra_") for paths in found.values() for path in paths)


def _without_model(names):
    return {group: {path.partition("/")[2]: shape for path, shape in paths.items()} for group, paths in names.items()}


def test_a_file_of_transformers_with_tables_twice(tmp_path):
    """transformers 4 writes the embeddings a second time into the group of the tied head."""
    model = make("masked_lm")
    model.save_pretrained(tmp_path)
    with h5py.File(tmp_path / "tf_model.h5", "a") as file:
        file.copy(f"electra/{model.name}/electra/embeddings", f"generator_lm_head/{model.name}/electra/embeddings")
    assert_same(model, type(model).from_pretrained(tmp_path))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["model", "masked_lm", "classes"])
def test_round_trip(tmp_path, name, format):
    model = make(name)
    model.save_pretrained(tmp_path, **FORMATS[format])
    assert len(list(tmp_path.glob("*-of-*"))) == 0 if "shards" not in format else len(list(tmp_path.glob("*-of-*"))) > 1
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert_same(model, loaded)
    assert not any(info.values())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [f"Electra{CASES[name].head}"]


@pytest.mark.parametrize("format", ["h5", "safetensors"])
@pytest.mark.parametrize("name", ["model", "pretraining", "masked_lm", "classes", "choice", "tokens", "answer"])
def test_to_pytorch_and_back(tmp_path, name, format):
    model, inputs = make(name), tokens_of(name)
    model.save_pretrained(tmp_path / "tf", safe_serialization=True)
    twin = getattr(electra_fast, f"Electra{CASES[name].head}").from_pretrained(tmp_path / "tf")
    twin.save_pretrained(tmp_path / "torch", safe_serialization=format == "safetensors")
    loaded = type(model).from_pretrained(tmp_path / "torch", from_pt=True)
    assert_same(model, loaded)
    for key in CASES[name].outputs[:1]:
        assert error(name, key, loaded(inputs)[key]) < 1e-5


def test_safetensors_of_transformers_4(tmp_path):
    """With names of Keras and kernels that are not transposed, as its TensorFlow classes write them."""
    from safetensors.numpy import save_file

    model = make("classes")
    model.save_pretrained(tmp_path)
    with h5py.File(tmp_path / "tf_model.h5") as file:
        groups = [file[group] for group in file.attrs["layer_names"]]
        tensors = {p.partition("/")[2]: g[p][()] for g in groups for p in g.attrs["weight_names"]}
    (tmp_path / "tf_model.h5").unlink()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "tf"})
    assert_same(model, type(model).from_pretrained(tmp_path))
    # The PyTorch classes read it, too.
    electra_fast.ElectraForSequenceClassification.from_pretrained(tmp_path)


def test_what_does_not_fit(tmp_path):
    model = make("pretraining")
    model.save_pretrained(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"newly initialised.*classifier\.dense"):
        type(make("classes")).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"word_embeddings\.weight must be \[50, 16\], got \[99, 16\]"):
        type(model).from_pretrained(tmp_path, vocab_size=50)
    with pytest.warns(CheckpointWarning, match="newly initialised since the shapes differ"):
        type(model).from_pretrained(tmp_path, vocab_size=50, ignore_mismatched_sizes=True)
    with pytest.raises(TypeError, match="no fields of the config: hiden_size"):
        type(model).from_pretrained(tmp_path, hiden_size=4)
    with pytest.raises(FileNotFoundError, match=r"must hold weights, one of model\.safetensors"):
        type(model).from_pretrained(tmp_path, use_safetensors=True)
    (tmp_path / "tf_model.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="must be a whole HDF5 file"):
        type(model).from_pretrained(tmp_path)


RELOAD = """
import sys, numpy as np, tensorflow as tf
directory, tokens = sys.argv[1], dict(np.load(sys.argv[2]))
loaded = tf.saved_model.load(directory)
for signature, dtype in (("serving_default", tf.int32), ("int64_serving", tf.int64)):
    output = loaded.signatures[signature](**{name: tf.constant(x, dtype) for name, x in tokens.items()})
    np.savez(f"{directory}/{signature}.npz", **output)
assert "electra_fast" not in sys.modules
"""


@pytest.mark.parametrize("name", ["model", "choice", "answer"])
def test_saved_model_in_another_process(tmp_path, name):
    model, tokens = make(name, output_hidden_states=name == "model"), tokens_of(name)
    model.save_pretrained(tmp_path, saved_model=True)
    np.savez(tmp_path / "tokens.npz", **tokens)
    directory = tmp_path / "saved_model" / "1"
    subprocess.run([sys.executable, "-c", RELOAD, directory, tmp_path / "tokens.npz"], check=True)
    for signature in ("serving_default", "int64_serving"):
        output = np.load(directory / f"{signature}.npz")
        for key in CASES[name].differentiated:
            assert error(name, key, output[key]) < 1e-5
        if name == "model":
            assert output["hidden_states"].shape == (3, 3, 9, 36)


def test_keras_own_files(tmp_path):
    model, tokens = make("classes"), tokens_of("classes")
    model.save_weights(tmp_path / "own.weights.h5")
    other = type(model)(model.config)
    other.load_weights(tmp_path / "own.weights.h5")
    assert_same(model, other)
    model.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    assert error("classes", "logits", loaded(tokens).logits) < 1e-5


def test_a_compiled_model_in_keras_own_files(tmp_path):
    model, inputs = make("classes"), inputs_of("classes")
    model.compile(keras.optimizers.Adam(0.01), metrics=["accuracy"])
    model.fit(inputs, verbose=0)
    model.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    histories = [each.fit(inputs, verbose=0).history for each in (model, loaded)]
    assert histories[0].keys() == histories[1].keys() == {"loss", "accuracy"}
    for key, found in histories[0].items():
        assert found == pytest.approx(histories[1][key], rel=1e-5)


def test_checkpoints_of_tensorflow(tmp_path):
    model, inputs = make("classes"), tokens_of("classes")
    path = tf.train.Checkpoint(model=model).save(tmp_path / "step")
    other = type(model)(model.config)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    np.testing.assert_array_equal(other(inputs).logits, model(inputs).logits)


def test_dtypes_of_keras(tmp_path):
    model = make("classes")
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype="bfloat16")
    assert {weight.dtype for weight in half.weights} == {"bfloat16"} == {half.compute_dtype}
    assert (
        error("classes", "", tf.cast(half(tokens_of("classes")).logits, tf.float32), model(tokens_of("classes")).logits)
        < 0.5
    )
    copied = type(model).from_config(type(model)(model.config, dtype="mixed_bfloat16").get_config())
    assert (copied.compute_dtype, copied.variable_dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize("name", ["masked_lm", "model"])
def test_another_vocabulary(tmp_path, name):
    model, ids = make(name), inputs_of(name)["input_ids"]
    before = model(ids)[0]
    part = model.resize_token_embeddings(105)
    assert part.embedding.shape == (105, 16) and model.config.vocab_size == 105
    assert len(model.weights) == len(make(name).weights)
    after = model(ids)[0]
    np.testing.assert_allclose(after[..., :99], before[..., :99], atol=1e-5)
    assert model(ids + 5)[0].shape == after.shape
    model.save_pretrained(tmp_path)
    assert_same(model, type(model).from_pretrained(tmp_path))
    with pytest.raises(ValueError, match="vocab_size must be a positive integer, got 0"):
        model.resize_token_embeddings(0)
    assert model.config.vocab_size == 105
    model.resize_token_embeddings(99)
    np.testing.assert_allclose(model(ids)[0], before, atol=1e-5)
    if name == "model":
        assert model.get_bias() is None
        return
    model.set_bias({"bias": np.ones(99, "f4")})
    assert model.get_bias()["bias"].numpy().tolist() == [1] * 99
    model.compile(keras.optimizers.SGD(0.01))
    assert np.isfinite(model.fit(inputs_of(name), verbose=0).history["loss"][0])
    assert model.num_parameters() == sum(int(np.prod(w.shape)) for w in model.weights)
