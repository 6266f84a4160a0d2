"""`electra-fast convert --to keras-hub` and back; with KerasHub itself where that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
from tiny_models import TINY, assert_same_weights, random_model
from tokenizers import AddedToken

from electra_fast import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForTokenClassification,
    ElectraModel,
    ElectraTokenizer,
)
from electra_fast.cli.main import main
from electra_fast.conversion import convert_to_hub, convert_to_keras_hub, convert_to_tf1

h5py = pytest.importorskip("h5py")

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "##es", "É", "e", "林", "."]
WEIGHTS = "model.weights.h5"


def ids(tokens):
    return {token: i for i, token in enumerate(tokens)}


def saved(path, model_class=ElectraModel, tokenizer=None, **fields):
    model = random_model(model_class, **fields)
    model.save_pretrained(path)
    (tokenizer or ElectraTokenizer(ids(TOKENS))).save_pretrained(path)
    return model


def with_word(tokenizer):
    tokenizer.add_tokens(["plain"])
    return tokenizer


@pytest.fixture
def preset(tmp_path):
    saved(tmp_path / "hub")
    convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset")
    return tmp_path / "preset"


def change(path, **fields):
    content = json.loads(path.read_text())
    content["config"].update(fields)
    path.write_text(json.dumps(content))


# Files


def test_every_variable_has_its_place(tmp_path):
    model = saved(tmp_path / "hub", num_hidden_layers=2)
    convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset")
    state = model.state_dict()
    with h5py.File(tmp_path / "preset" / WEIGHTS) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)

        def take(name):
            names.remove(name)
            return torch.from_numpy(file[name][()])

        for ours, theirs in (
            ("word_embeddings", "reversible_embedding"),
            ("position_embeddings", "position_embedding"),
            ("token_type_embeddings", "embedding"),
            ("LayerNorm", "layer_normalization"),
        ):
            assert torch.equal(take(f"layers/{theirs}/vars/0"), state[f"embeddings.{ours}.weight"])
        assert torch.equal(take("layers/layer_normalization/vars/1"), state["embeddings.LayerNorm.bias"])
        assert torch.equal(take("layers/dense/vars/0"), state["embeddings_project.weight"].T)
        assert torch.equal(take("layers/dense/vars/1"), state["embeddings_project.bias"])
        assert take("layers/dense_1/vars/0").shape == (32, 32)
        assert torch.equal(take("layers/dense_1/vars/1"), torch.zeros(32))
        for layer, place in enumerate(("layers/transformer_encoder", "layers/transformer_encoder_1")):
            for part in ("query", "key", "value"):
                weight, bias = (
                    state[f"encoder.layer.{layer}.attention.self.{part}.{leaf}"] for leaf in ("weight", "bias")
                )
                theirs = f"{place}/_self_attention_layer/{part}_dense/vars"
                assert torch.equal(take(f"{theirs}/0"), weight.T.reshape(32, 4, 8))
                assert torch.equal(take(f"{theirs}/1"), bias.reshape(4, 8))
            out = f"encoder.layer.{layer}.attention.output.dense"
            weight = take(f"{place}/_self_attention_layer/output_dense/vars/0")
            assert torch.equal(weight, state[f"{out}.weight"].T.reshape(4, 8, 32))
            assert torch.equal(take(f"{place}/_self_attention_layer/output_dense/vars/1"), state[f"{out}.bias"])
            for ours, theirs in (
                ("attention.output.LayerNorm", "_self_attention_layer_norm"),
                ("intermediate.dense", "_feedforward_intermediate_dense"),
                ("output.dense", "_feedforward_output_dense"),
                ("output.LayerNorm", "_feedforward_layer_norm"),
            ):
                weight = state[f"encoder.layer.{layer}.{ours}.weight"]
                assert torch.equal(take(f"{place}/{theirs}/vars/0"), weight.T if weight.ndim == 2 else weight)
                assert torch.equal(take(f"{place}/{theirs}/vars/1"), state[f"encoder.layer.{layer}.{ours}.bias"])
    assert names == []


@pytest.mark.parametrize("embedding_size", [16, 32], ids=["projection", "none"])
@pytest.mark.parametrize("model_class", [ElectraModel, ElectraForPreTraining, ElectraForMaskedLM])
def test_there_and_back(tmp_path, model_class, embedding_size):
    model = saved(tmp_path / "hub", model_class, embedding_size=embedding_size, hidden_act="gelu_new")
    (written,) = convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset").networks
    assert any("the head is left out" in note for note in written.notes) is (model_class is not ElectraModel)
    (network,) = convert_to_hub(tmp_path / "preset", tmp_path / "back").networks
    pooler = f"layers/dense{'_1' if embedding_size == 16 else ''}/vars"
    assert network.notes == [f"no part of an ElectraModel, left out: {pooler}/0, {pooler}/1"]
    encoder = model if model_class is ElectraModel else model.electra
    assert_same_weights(ElectraModel.from_pretrained(tmp_path / "back"), encoder.state_dict())
    config = ElectraConfig.from_pretrained(tmp_path / "back")
    assert config.hidden_act == "gelu_pytorch_tanh"
    sizes = {**TINY, "embedding_size": embedding_size}
    assert {name: getattr(config, name) for name in sizes} == sizes


def test_a_pair_becomes_two_presets(tmp_path):
    models = {}
    for name, kind in (("discriminator", ElectraForPreTraining), ("generator", ElectraForMaskedLM)):
        models[name] = saved(tmp_path / "pair" / name, kind, intermediate_size=40 + len(name))
    convert_to_keras_hub(tmp_path / "pair", tmp_path / "presets")
    back = convert_to_hub(tmp_path / "presets", tmp_path / "back")
    assert [network.model_class for network in back.networks] == [ElectraModel, ElectraModel]
    assert back.tokenizer is not None
    for name, model in models.items():
        assert_same_weights(ElectraModel.from_pretrained(tmp_path / "back" / name), model.electra.state_dict())
    with pytest.raises(ValueError, match="tells a generator by its head, got two networks without that"):
        convert_to_tf1(tmp_path / "presets", tmp_path / "tf1")


@pytest.mark.parametrize("strip_accents, is_lower", [(None, True), (None, False), (False, True)])
def test_the_tokenizer(tmp_path, strip_accents, is_lower):
    options = {"strip_accents": strip_accents, "tokenize_chinese_chars": False}
    tokenizer = ElectraTokenizer(ids(TOKENS), is_lower, extra_special_tokens=["New York"], **options)
    saved(tmp_path / "hub", tokenizer=tokenizer)
    convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset")
    assert (tmp_path / "preset/assets/tokenizer/vocabulary.txt").read_text(encoding="utf-8").split("\n") == [
        *TOKENS,
        "New York",
        "",
    ]
    options = json.loads((tmp_path / "preset/tokenizer.json").read_text())["config"]
    assert (options["lowercase"], options["strip_accents"]) == (is_lower, is_lower and strip_accents is None)
    assert options["split_on_cjk"] is False and options["special_tokens_in_strings"] is True
    back = convert_to_hub(tmp_path / "preset", tmp_path / "back").tokenizer
    assert back.model_max_length == TINY["max_position_embeddings"]
    for text in ("The FOXES. É", "林The fox 林", "the [MASK]", "theNew York", "new york"):
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_conversions_are_equal(tmp_path, preset):
    convert_to_keras_hub(tmp_path / "hub", tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (preset / WEIGHTS).read_bytes()


# What differs, and what is refused


def test_notes_tell_what_keras_hub_has_otherwise(tmp_path, capsys):
    tokenizer = with_word(ElectraTokenizer(ids(TOKENS), image_token="<image>"))
    tokenizer.add_tokens([AddedToken("[whole]", single_word=True, normalized=False)])
    saved(tmp_path / "hub", tokenizer=tokenizer, attention_probs_dropout_prob=0.3)
    assert main(["convert", str(tmp_path / "hub"), str(tmp_path / "preset"), "--to", "keras-hub"]) == 0
    printed = capsys.readouterr().out
    for note in (
        "pooled_dense has fresh values",
        "hidden_act is gelu with erf, and KerasHub computes its tanh approximation",
        "attention's dropout becomes that of hidden states, 0.1",
        "added tokens are found only as they are written, and inside words, too: [whole], plain\n",
    ):
        assert note in printed


REFUSED = {
    "a task's head": (
        lambda path: saved(path, ElectraForTokenClassification),
        "must be an ElectraModel or one .*, got an ElectraForTokenClassification: save its encoder as an ElectraModel",
    ),
    "an activation": (lambda path: saved(path, hidden_act="relu"), "hidden_act must be a GELU for .*, got relu"),
    "an epsilon": (lambda path: saved(path, layer_norm_eps=1e-5), "layer_norm_eps must be 1e-12 for .*, got 1e-05"),
    "a decoder": (lambda path: saved(path, is_decoder=True), "is_decoder must be False for .*, got True"),
    "no mask token": (
        lambda path: (
            saved(path),
            (path / "tokenizer.json").unlink(),
            (path / "vocab.txt").write_text("\n".join(TOKENS[:4])),
            ElectraTokenizer.from_pretrained(path, mask_token="[UNK]").save_pretrained(path),
        ),
        r"the vocabulary must hold \[CLS\], .* got one without \[MASK\]$",
    ),
    "a token that ends with space": (
        lambda path: saved(path, tokenizer=ElectraTokenizer(ids([*TOKENS, "a "]))),
        "tokens .* must not end with space, got 'a '",
    ),
    "an added token with accents": (
        lambda path: saved(path, tokenizer=ElectraTokenizer(ids(TOKENS), image_token="<É>")),
        "added tokens .* must have no accents, .*, got '<É>'",
    ),
    "an added token, where special ones are split": (
        lambda path: saved(path, tokenizer=with_word(ElectraTokenizer(ids(TOKENS), split_special_tokens=True))),
        "added tokens .* must be special, .*, got 'plain'",
    ),
    "ids with gaps": (
        lambda path: saved(path, tokenizer=ElectraTokenizer({**ids(TOKENS), "far": 20})),
        r"ids must be 0 to 12 without gaps for the lines of a vocabulary\.txt, got 20 for 'far' and none that is 12",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_keras_hub_cannot_be(tmp_path, kind):
    make, message = REFUSED[kind]
    make(tmp_path / "hub")
    with pytest.raises(ValueError, match=message):
        convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset")
    assert {path.name for path in tmp_path.iterdir()} == {"hub"}


def test_mistakes_are_one_line(tmp_path, capsys, monkeypatch):
    saved(tmp_path / "hub")
    arguments = ["convert", str(tmp_path / "hub"), str(tmp_path / "out"), "--to"]
    (tmp_path / "out").mkdir()
    assert main([*arguments, "keras-hub"]) == 2
    assert "the output must be a new directory" in capsys.readouterr().err
    (tmp_path / "out").rmdir()
    assert main([*arguments, "kerashub"]) == 2
    assert "invalid choice 'kerashub'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert main([*arguments, "keras-hub"]) == 2
    assert "model.weights.h5 needs h5py: pip install 'electra_fast[convert]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def without(place):
    return lambda preset: edit(preset, lambda file: file.__delitem__(place))


def edit(preset, change_file):
    with h5py.File(preset / WEIGHTS, "a") as file:
        change_file(file)


def of_bytes(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = torch.zeros(16, 32, dtype=torch.int8).numpy()


KEY = "layers/transformer_encoder/_self_attention_layer/key_dense/vars/0"
DAMAGE = {
    "another class": (
        lambda preset: (preset / "config.json").write_text('{"registered_name": "keras_hub>BertBackbone"}'),
        "must be of KerasHub's ElectraBackbone, got 'keras_hub>BertBackbone'",
    ),
    "a missing variable": (without(KEY), f"lacks {KEY}$"),
    "other heads": (
        lambda preset: change(preset / "config.json", num_heads=8),
        r"weights.h5 contradicts .*config.json: .*dense/vars/.: 8 heads must be one axis, got shape \[.*4, 8",
    ),
    "other sizes": (
        lambda preset: change(preset / "config.json", vocab_size=100),
        "config.json contradicts .*weights.h5: vocab_size is 100 there and 99 in the tensors",
    ),
    "half a file": (
        lambda preset: (preset / WEIGHTS).write_bytes((preset / WEIGHTS).read_bytes()[:3000]),
        r"weights.h5 must be a whole HDF5 file of Keras",
    ),
    "eight bits": (
        lambda preset: edit(preset, of_bytes),
        "layers/dense/vars/0 of int8, no weights",
    ),
    "another tokenizer": (
        lambda preset: (preset / "tokenizer.json").write_text('{"version": "1.0"}'),
        "tokenizer.json must be of KerasHub's ElectraTokenizer, got None",
    ),
    "special tokens as a text": (
        lambda preset: change(preset / "tokenizer.json", special_tokens="[PAD]"),
        r"tokenizer.json must have a list as special_tokens, got '\[PAD\]'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_presets_are_refused(tmp_path, preset, kind):
    damage, message = DAMAGE[kind]
    damage(preset)
    with pytest.raises(ValueError, match=message):
        convert_to_hub(preset, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_preset_without_weights(tmp_path, preset):
    (preset / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold model\.weights\.h5"):
        convert_to_hub(preset, tmp_path / "back")


# KerasHub itself

TEXTS = ["The foxes. 林", "the [MASK]", "aNew York [UNK]<image> big new york"]
SCRIPT = """
import sys
import keras_hub
import torch

_, there, *texts = sys.argv
backbone = keras_hub.models.ElectraBackbone.from_preset(f"{there}/preset")
tokenizer = keras_hub.models.ElectraTokenizer.from_preset(f"{there}/preset")
inputs = torch.load(f"{there}/inputs.pt")
with torch.no_grad():
    outputs = backbone({name: tensor.int() for name, tensor in inputs.items()})["sequence_output"]
torch.save((outputs, [[int(i) for i in tokenizer(text)] for text in texts]), f"{there}/outputs.pt")
backbone.save_to_preset(f"{there}/theirs")
tokenizer.save_to_preset(f"{there}/theirs")
keras_hub.models.ElectraBackbone.from_preset(f"{there}/preset", dtype="bfloat16").save_to_preset(f"{there}/bfloat16")
"""


@pytest.mark.slow
@pytest.mark.parametrize("embedding_size", [16, 32], ids=["projection", "none"])
def test_keras_hub_loads_and_agrees(tmp_path, embedding_size):
    """To rounding where ours has its GELU, and to the GELUs' difference where not; its own files come back, too."""
    if importlib.util.find_spec("keras_hub") is None:
        pytest.skip("keras_hub is not installed: make test-files installs it")
    tokenizer = ElectraTokenizer(ids(TOKENS), extra_special_tokens=["<image>", "New York"])
    tokenizer.add_tokens([AddedToken("<image> big", normalized=False)])
    model = saved(tmp_path / "hub", tokenizer=tokenizer, embedding_size=embedding_size)
    convert_to_keras_hub(tmp_path / "hub", tmp_path / "preset")
    input_ids, types = torch.randint(99, (3, 20)), torch.randint(2, (3, 20))
    mask = (torch.arange(20) < torch.tensor([[20], [11], [1]])).long()
    torch.save({"token_ids": input_ids, "segment_ids": types, "padding_mask": mask}, tmp_path / "inputs.pt")
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), *TEXTS], check=True, env=environment)
    outputs, encoded = torch.load(tmp_path / "outputs.pt")
    config = ElectraConfig.from_pretrained(tmp_path / "hub")
    config.hidden_act = "gelu_pytorch_tanh"
    twin = ElectraModel.from_pretrained(tmp_path / "hub", config=config)
    for ours, bound in ((twin, 1e-5), (model, 0.01)):
        with torch.no_grad():
            expected = ours.eval()(input_ids, mask, types).last_hidden_state
        torch.testing.assert_close(outputs[mask == 1], expected[mask == 1], rtol=0, atol=bound)
    convert_to_hub(tmp_path / "theirs", tmp_path / "back")
    for ours in (tokenizer, ElectraTokenizer.from_pretrained(tmp_path / "back")):
        assert encoded == [ours(text)["input_ids"][1:-1] for text in TEXTS]
    assert_same_weights(ElectraModel.from_pretrained(tmp_path / "back"), model.state_dict())
    convert_to_hub(tmp_path / "bfloat16", tmp_path / "half")
    half = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    assert_same_weights(ElectraModel.from_pretrained(tmp_path / "half", dtype="auto"), half)
