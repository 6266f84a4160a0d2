"""Weights of transformers 4 for Keras and Flax, and BERT: written here in their layouts, and read back."""

from __future__ import annotations

import json

import h5py
import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TINY, assert_same_weights, random_model

import electra_fast
from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraModel
from electra_fast.conversion import convert_to_hub, write_bundle
from electra_fast.hub.foreign_weights import read_flax, read_keras

CLASSES = ("ElectraModel", "ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForSequenceClassification",
           "ElectraForTokenClassification", "ElectraForQuestionAnswering", "ElectraForMultipleChoice")  # fmt: skip


def parameters(model):
    """A model's tensors as other libraries have them: tied ones once, names split at the dots."""
    for name, tensor in model.state_dict().items():
        if name != "generator_lm_head.weight":
            yield name.split("."), tensor.numpy()


def write_keras(model, path):
    """transformers 4's `save_pretrained` of a TensorFlow model: a group for each layer at the top."""
    root = f"tf_{type(model).__name__}"
    with h5py.File(path, "w") as file:
        for parts, array in parameters(model):
            *above, leaf = parts if parts[0] in ("electra", *heads(model)) else ["electra", *parts]
            module = above[-1]
            if module == "LayerNorm":
                leaf = {"weight": "gamma", "bias": "beta"}[leaf]
            elif module in ("position_embeddings", "token_type_embeddings"):
                leaf = "embeddings"
            elif leaf == "weight" and module != "word_embeddings":
                leaf, array = "kernel", array.T
            name = "/".join([*above, leaf]).replace("/layer/", "/layer_._")
            file[f"{above[0]}/{root}/{name}:0"] = array
        file.attrs["layer_names"] = ["electra"]


def flax_array(array):
    """flax.serialization's form of an array."""
    content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
    return msgpack.ExtType(1, content)


def write_flax(model, path, pack=flax_array):
    """transformers 4's `save_pretrained` of a Flax model: dictionaries in dictionaries."""
    tree = {}
    for parts, array in parameters(model):
        *above, leaf = parts
        if above[-1] == "LayerNorm":
            leaf = {"weight": "scale", "bias": "bias"}[leaf]
        elif above[-1].endswith("_embeddings"):
            leaf = "embedding"
        elif leaf == "weight":
            leaf, array = "kernel", array.T
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[leaf] = pack(np.ascontiguousarray(array))
    path.write_bytes(msgpack.packb(tree))


def heads(model):
    return {name for name, _ in model.named_children()} - {"embeddings", "encoder", "embeddings_project"}


WRITERS = {"tf_model.h5": write_keras, "flax_model.msgpack": write_flax}


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("file", WRITERS)
def test_every_class(file, class_name, tmp_path):
    cls = getattr(electra_fast, class_name)
    labels = ["start", "end"] if class_name == "ElectraForQuestionAnswering" else ["a", "b", "c"]
    model = random_model(cls, id2label=dict(enumerate(labels)))
    source = tmp_path / "source"
    source.mkdir()
    model.config.save_pretrained(source)
    WRITERS[file](model, source / file)
    assert_same_weights(cls.from_pretrained(source), model.state_dict())
    (network,) = convert_to_hub(source, tmp_path / "out").networks
    assert network.model_class is cls and not network.notes
    found, info = cls.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert_same_weights(found, model.state_dict())
    assert found.config.num_attention_heads == TINY["num_attention_heads"]
    assert list(found.config.id2label.values()) == labels


def test_transformers_loads_the_result(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = random_model(ElectraForMaskedLM)
    model.config.save_pretrained(tmp_path)
    write_flax(model, tmp_path / "flax_model.msgpack")
    convert_to_hub(tmp_path, tmp_path / "out")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


def test_flax_in_bfloat16(tmp_path):
    values = torch.randn(3, 4).to(torch.bfloat16)
    raw = values.view(torch.int16).numpy()
    content = msgpack.packb((raw.shape, "bfloat16", raw.tobytes()), use_bin_type=True)
    tree = {"params": {"qa_outputs": {"kernel": msgpack.ExtType(1, content)}}}
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    found = read_flax(tmp_path / "flax_model.msgpack")
    assert found.keys() == {"qa_outputs.weight"} and torch.equal(found["qa_outputs.weight"], values.T)


@pytest.mark.parametrize("read, name", [(read_keras, "tf_model.h5"), (read_flax, "flax_model.msgpack")])
def test_damaged_files(read, name, tmp_path):
    path = tmp_path / name
    WRITERS[name](random_model(ElectraForPreTraining), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\xff" * 2000, b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} must be a whole"):
            read(path)


def test_what_no_model_of_flax_holds(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    for tree, message in (
        ({"electra": {"step": 3}}, "must hold arrays, got int at electra/step"),
        ({"a": msgpack.ExtType(2, b"")}, "an extension of type 2"),
        ({"a": msgpack.ExtType(1, msgpack.packb(((1,), "string", b"a")))}, "an array of string"),
        ({"a": msgpack.ExtType(1, msgpack.packb(((3,), "int8", b"a")))}, "must be a whole file of Flax"),
        ([1], "a list, where a dictionary"),
    ):
        path.write_bytes(msgpack.packb(tree))
        with pytest.raises(ValueError, match=message):
            read_flax(path)


def test_what_no_model_of_keras_holds(tmp_path):
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file["electra/kernel"] = np.ones(2)
    with pytest.raises(ValueError, match="got an array without a model's name"):
        read_keras(tmp_path / "tf_model.h5")


def test_missing_tensor_and_config_that_contradicts(tmp_path):
    model = random_model(ElectraForPreTraining)
    source = tmp_path / "source"
    model.config.save_pretrained(source)
    write_keras(model, source / "tf_model.h5")
    with h5py.File(source / "tf_model.h5", "a") as file:
        del file["electra/tf_ElectraForPreTraining/electra/encoder/layer_._1/output/dense/bias:0"]
    with pytest.raises(
        ValueError, match=r"tf_model.h5 must hold all .* lacks electra.encoder.layer.1.output.dense.bias"
    ):
        convert_to_hub(source, tmp_path / "out")
    ElectraConfig(**{**TINY, "intermediate_size": 38}).save_pretrained(source)
    with pytest.raises(ValueError, match=r"config.json contradicts .*h5: intermediate_size is 38 there and 37 in the"):
        convert_to_hub(source, tmp_path / "out")
    (source / "tf_model.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold weights: model.safetensors, .*tf_model.h5"):
        convert_to_hub(source, tmp_path / "out")
    (source / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="must be of an ELECTRA or a BERT, got model_type 'gpt2'"):
        convert_to_hub(source, tmp_path / "out")


# BERT


@pytest.fixture
def bert():
    transformers = pytest.importorskip("transformers")
    sizes = {name: size for name, size in TINY.items() if name != "embedding_size"}
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(transformers.BertConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def assert_same_encoder(bert, directory):
    model = ElectraModel.from_pretrained(directory)
    ids = torch.arange(20).reshape(2, 10)
    types = torch.arange(10).ge(5).long().expand(2, -1)
    with torch.no_grad():
        expected = bert.bert(ids, token_type_ids=types).last_hidden_state
        torch.testing.assert_close(model(ids, token_type_ids=types)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_bert_of_the_hub(bert, tmp_path, prefix, is_old):
    source = tmp_path / "source"
    bert.save_pretrained(source)
    state = {name: tensor.clone() for name, tensor in bert.state_dict().items()}
    if not prefix:
        state = {name[5:]: tensor for name, tensor in state.items() if name.startswith("bert.")}
    if is_old:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            state = {key.replace(new, name): tensor for key, tensor in state.items()}
        state[f"{prefix}embeddings.position_ids"] = torch.arange(64)[None]
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    (network,) = convert_to_hub(source, tmp_path / "out").networks
    assert "pooler.dense.weight" in network.notes[-1] and "embeddings" not in network.notes[-1]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["ElectraModel"]
    assert_same_encoder(bert, tmp_path / "out")


def test_bert_of_google(bert, tmp_path):
    variables = {"global_step": torch.tensor(9), "cls/predictions/output_bias": torch.zeros(99)}
    for name, tensor in bert.state_dict().items():
        if name.startswith("bert."):
            name = name.replace("LayerNorm.weight", "LayerNorm/gamma").replace("LayerNorm.bias", "LayerNorm/beta")
            name = name.replace("_embeddings.weight", "_embeddings")
            if name.endswith("weight"):
                name, tensor = name.replace(".weight", "/kernel"), tensor.T
            variables[name.replace("layer.", "layer_").replace(".", "/")] = tensor
    write_bundle(tmp_path / "bert_model.ckpt", variables)
    (tmp_path / "bert_config.json").write_text(json.dumps({"hidden_size": 32, "num_attention_heads": 4}))
    checkpoint = convert_to_hub(tmp_path / "bert_model.ckpt", tmp_path / "out", configs=[tmp_path / "bert_config.json"])
    assert checkpoint.step == 9
    left = "left out: bert/pooler/dense/bias, bert/pooler/dense/kernel, cls/predictions/output_bias"
    assert [note for note in checkpoint.networks[0].notes if left in note]
    assert_same_encoder(bert, tmp_path / "out")
