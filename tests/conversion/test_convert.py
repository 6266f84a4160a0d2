"""`electra-fast convert` between TensorFlow 1 and the Hub, whole or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import TINY, assert_same_weights, edit, random_model

from electra_fast import (
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForTokenClassification,
    ElectraModel,
    ElectraTokenizer,
)
from electra_fast.cli.main import main
from electra_fast.conversion import Tf1Bundle, convert_to_hub, convert_to_tf1, write_bundle
from electra_fast.conversion.convert import tf1_variables
from electra_fast.conversion.sources import read_checkpoint

REAL = Path(__file__).parents[3] / "shared/data/tf1_checkpoint"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"{REAL} is absent")
CLASSES = {"discriminator": ElectraForPreTraining, "generator": ElectraForMaskedLM}
SIZES = {**TINY, "num_attention_heads": 1}  # Google's rule for hidden sizes below 128
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]


@pytest.fixture
def models():
    """A generator and a discriminator with the same embeddings."""
    discriminator = random_model(ElectraForPreTraining, **SIZES)
    generator = random_model(ElectraForMaskedLM, **{**SIZES, "hidden_size": 24, "intermediate_size": 96})
    generator.electra.embeddings.load_state_dict(discriminator.electra.embeddings.state_dict())
    return {"discriminator": discriminator, "generator": generator}


@pytest.fixture
def pair(models, tmp_path):
    for name, model in models.items():
        model.save_pretrained(tmp_path / "pair" / name)
    return tmp_path / "pair"


@pytest.fixture
def tf1(pair, tmp_path):
    """The same as a TensorFlow checkpoint with an optimizer's variables and a count of steps."""
    variables = tf1_variables(read_checkpoint(pair).networks)
    slots = {f"{name}/adam_m": torch.zeros_like(value) for name, value in variables.items()}
    directory = tmp_path / "tf1"
    directory.mkdir()
    write_bundle(directory / "model.ckpt-50", {**variables, **slots, "global_step": torch.tensor(50)}, n_shards=3)
    return directory


def rewrite(directory, change):
    """The checkpoint of a directory with what `change` makes of its variables."""
    bundle = Tf1Bundle(directory)
    variables = {name: bundle.read(name) for name in bundle.entries}
    change(variables)
    shutil.rmtree(directory)
    directory.mkdir()
    write_bundle(directory / "model.ckpt-50", variables)


@needs_real
@pytest.mark.parametrize("network", CLASSES)
def test_what_tensorflow_wrote(network, tmp_path):
    """Every tensor is the file's, the config is the one beside it, and transformers loads the result."""
    transformers = pytest.importorskip("transformers")
    assert convert_to_hub(REAL, tmp_path / "out").step == 1000
    out, bundle = tmp_path / "out" / network, Tf1Bundle(REAL)
    config = json.loads((out / "config.json").read_text())
    expected = json.loads((REAL / f"{network}_config.json").read_text())
    assert {name: config[name] for name in expected} == expected

    found = load_file(out / "model.safetensors")
    scope = {"discriminator": "electra", "generator": "generator"}[network]
    for layer in range(config["num_hidden_layers"]):
        for part in ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense",
                     "intermediate/dense", "output/dense"):  # fmt: skip
            there = f"{scope}/encoder/layer_{layer}/{part}"
            here = f"electra.encoder.layer.{layer}.{part.replace('/', '.')}"
            assert torch.equal(found.pop(f"{here}.weight"), bundle.read(f"{there}/kernel").T)
            assert torch.equal(found.pop(f"{here}.bias"), bundle.read(f"{there}/bias"))
        for part in ("attention/output", "output"):
            there = f"{scope}/encoder/layer_{layer}/{part}/LayerNorm"
            here = f"electra.encoder.layer.{layer}.{part.replace('/', '.')}.LayerNorm"
            assert torch.equal(found.pop(f"{here}.weight"), bundle.read(f"{there}/gamma"))
            assert torch.equal(found.pop(f"{here}.bias"), bundle.read(f"{there}/beta"))
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        here = found.pop(f"electra.embeddings.{table}.weight")
        assert torch.equal(here, bundle.read(f"electra/embeddings/{table}"))
    rest = {
        "electra.embeddings.LayerNorm.weight": "electra/embeddings/LayerNorm/gamma",
        "electra.embeddings.LayerNorm.bias": "electra/embeddings/LayerNorm/beta",
        "electra.embeddings_project.weight": f"{scope}/embeddings_project/kernel",
        "electra.embeddings_project.bias": f"{scope}/embeddings_project/bias",
    }
    rest |= {
        "discriminator": {
            "discriminator_predictions.dense.weight": "discriminator_predictions/dense/kernel",
            "discriminator_predictions.dense.bias": "discriminator_predictions/dense/bias",
            "discriminator_predictions.dense_prediction.weight": "discriminator_predictions/dense_1/kernel",
            "discriminator_predictions.dense_prediction.bias": "discriminator_predictions/dense_1/bias",
        },
        "generator": {
            "generator_predictions.dense.weight": "generator_predictions/dense/kernel",
            "generator_predictions.dense.bias": "generator_predictions/dense/bias",
            "generator_predictions.LayerNorm.weight": "generator_predictions/LayerNorm/gamma",
            "generator_predictions.LayerNorm.bias": "generator_predictions/LayerNorm/beta",
            "generator_lm_head.bias": "generator_predictions/output_bias",
        },
    }[network]
    for here, there in rest.items():
        value = bundle.read(there)
        assert torch.equal(found.pop(here), value.T if there.endswith("kernel") else value), here
    assert not found

    auto = {"discriminator": "AutoModelForPreTraining", "generator": "AutoModelForMaskedLM"}[network]
    theirs, info = getattr(transformers, auto).from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        ours = CLASSES[network].from_pretrained(out)(ids).logits
        torch.testing.assert_close(ours, theirs.eval()(ids).logits, rtol=0, atol=1e-5)


@needs_real
def test_there_and_back(tmp_path):
    convert_to_hub(REAL, tmp_path / "hub")
    convert_to_tf1(tmp_path / "hub", tmp_path / "tf1")
    theirs, ours = Tf1Bundle(REAL), Tf1Bundle(tmp_path / "tf1")
    assert ours.entries.keys() == {n for n in theirs.entries if not n.endswith(("adam_m", "adam_v", "global_step"))}
    for name in ours.entries:
        assert torch.equal(ours.read(name), theirs.read(name)), name


@pytest.mark.parametrize("is_shared", [True, False])
def test_back_and_there(models, pair, tmp_path, is_shared):
    if not is_shared:
        models["generator"].electra.embeddings.LayerNorm.bias.data[0] += 1
        models["generator"].save_pretrained(pair / "generator")
    convert_to_tf1(pair, tmp_path / "tf1")
    assert ("generator/embeddings/word_embeddings" in Tf1Bundle(tmp_path / "tf1").entries) is not is_shared
    convert_to_hub(tmp_path / "tf1", tmp_path / "hub")
    for name, model in models.items():
        assert_same_weights(CLASSES[name].from_pretrained(tmp_path / "hub" / name), model.state_dict())


@pytest.mark.parametrize("network", CLASSES)
def test_one_network(models, tf1, tmp_path, network):
    checkpoint = convert_to_hub(tf1, tmp_path / "out", [network])
    assert [n.name for n in checkpoint.networks] == [network]
    assert_same_weights(CLASSES[network].from_pretrained(tmp_path / "out"), models[network].state_dict())


@pytest.mark.parametrize("kind", [ElectraModel, ElectraForMaskedLM])
def test_one_network_to_tf1_and_back(kind, tmp_path):
    model = random_model(kind, **SIZES)
    model.save_pretrained(tmp_path / "one")
    convert_to_tf1(tmp_path / "one", tmp_path / "tf1")
    (network,) = convert_to_hub(tmp_path / "tf1", tmp_path / "hub").networks
    assert network.model_class is kind
    assert_same_weights(kind.from_pretrained(tmp_path / "hub"), model.state_dict())


def test_heads_of_tasks_stay_on_the_hub(tmp_path):
    random_model(ElectraForTokenClassification, **SIZES).save_pretrained(tmp_path / "one")
    with pytest.raises(ValueError, match="holds networks of pre-training, got ElectraForTokenClassification"):
        convert_to_tf1(tmp_path / "one", tmp_path / "out")


def test_an_output_table_of_its_own_is_kept(tmp_path):
    """The config calls it tied to the word table, and the file tells otherwise."""
    random_model(ElectraForMaskedLM, **SIZES).save_pretrained(tmp_path / "one")
    table = torch.randn(TINY["vocab_size"], TINY["embedding_size"])
    edit(tmp_path / "one", lambda state: {**state, "generator_lm_head.weight": table})
    convert_to_hub(tmp_path / "one", tmp_path / "out")
    found = ElectraForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.equal(found.generator_lm_head.weight, table) and not found.config.tie_word_embeddings
    with pytest.raises(ValueError, match=r"generator_lm_head.weight has no name in a TensorFlow checkpoint"):
        convert_to_tf1(tmp_path / "one", tmp_path / "tf1")


def test_finetuned_checkpoint_of_google(models, tf1, tmp_path):
    def finetuned(variables):
        for name in list(variables):
            if not name.startswith("electra/"):
                del variables[name]
        variables["task_specific/cola/dense/kernel"] = torch.ones(32, 2)

    rewrite(tf1, finetuned)
    (network,) = convert_to_hub(tf1, tmp_path / "out").networks
    assert "left out: task_specific/cola/dense/kernel" in network.notes[-1]
    assert_same_weights(ElectraModel.from_pretrained(tmp_path / "out"), models["discriminator"].electra.state_dict())


@pytest.mark.parametrize(
    "name, message",
    [
        ("electra/encoder/layer_1/output/dense/kernel", "lacks electra/encoder/layer_1/output/dense/kernel$"),
        ("electra/embeddings/word_embeddings", "lacks electra/embeddings/word_embeddings$"),
        ("electra/embeddings_project/bias", "lacks electra/embeddings_project/bias$"),
        ("discriminator_predictions/dense_1/bias", "lacks discriminator_predictions/dense_1/bias$"),
        ("generator/encoder/layer_0/attention/self/key/bias", "lacks generator/encoder/layer_0/attention/self/key/bi"),
        ("generator_predictions/output_bias", "lacks generator_predictions/output_bias$"),
    ],
)
def test_missing_tensor(tf1, tmp_path, name, message):
    rewrite(tf1, lambda variables: variables.pop(name))
    with pytest.raises(ValueError, match=message):
        convert_to_hub(tf1, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_tensors_that_contradict_each_other(tf1, tmp_path):
    def cut(variables):
        variables["electra/encoder/layer_1/intermediate/dense/bias"] = torch.zeros(5)

    rewrite(tf1, cut)
    with pytest.raises(ValueError, match=r"electra/encoder/layer_1/intermediate/dense/bias is \[5\] .* ask for \[37\]"):
        convert_to_hub(tf1, tmp_path / "out")


def test_config(tf1, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"hidden_size": 32, "num_attention_heads": 4, "embedding_size": None, "hidden_act": "relu"})
    )
    (network,) = convert_to_hub(tf1, tmp_path / "out", ["discriminator"], [path]).networks
    assert (network.config.num_attention_heads, network.config.hidden_act) == (4, "relu")
    assert network.config.embedding_size == TINY["embedding_size"] and not network.notes
    assert "heads: 1, by Google's rule" in read_checkpoint(tf1, ["discriminator"]).networks[0].notes[0]
    with pytest.raises(ValueError, match="a config must be given for each of discriminator, generator, got 1"):
        read_checkpoint(tf1, None, [path])
    with pytest.raises(
        ValueError, match=r"config.json contradicts .*ckpt-50: hidden_size is 32 there and 24 in the ten"
    ):
        read_checkpoint(tf1, ["generator"], [path])
    path.write_text(json.dumps({"num_hidden_layers": 12, "vocab_size": 100}))
    with pytest.raises(
        ValueError, match="vocab_size is 100 there and 99 in the tensors; num_hidden_layers is 12 there"
    ):
        read_checkpoint(tf1, ["discriminator"], [path])
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config.json must hold JSON"):
        read_checkpoint(tf1, ["discriminator"], [path])


def test_vocabulary(tf1, tmp_path):
    (tf1 / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    convert_to_hub(tf1, tmp_path / "lower")
    tokenizer = ElectraTokenizer.from_pretrained(tmp_path / "lower" / "generator")
    assert tokenizer("A b")["input_ids"] == [2, 5, 6, 3] and tokenizer.model_max_length == 64
    cased = tmp_path / "cased.txt"
    cased.write_text("\n".join([*TOKENS, "A"]) + "\n")
    convert_to_hub(tf1, tmp_path / "cased", vocab=cased)
    tokenizer = ElectraTokenizer.from_pretrained(tmp_path / "cased" / "discriminator")
    assert tokenizer("A b")["input_ids"] == [2, 12, 6, 3]
    convert_to_tf1(tmp_path / "cased", tmp_path / "back")
    assert (tmp_path / "back" / "vocab.txt").read_text() == cased.read_text()
    cased.write_text("\n".join([*TOKENS, *map(str, range(100))]) + "\n")
    with pytest.raises(ValueError, match="must fit the discriminator's table of 99 rows, got 112"):
        convert_to_hub(tf1, tmp_path / "long", vocab=cased)


def test_networks_that_are_not_there(tf1, pair):
    with pytest.raises(ValueError, match="must hold a generator, got: discriminator"):
        read_checkpoint(pair / "discriminator", ["generator"])
    with pytest.raises(ValueError, match=r"has a config.json of its own"):
        read_checkpoint(pair, None, ["config.json"])
    rewrite(tf1, lambda variables: [variables.pop(name) for name in list(variables) if "generator" in name])
    with pytest.raises(ValueError, match=r"model.ckpt-50 must hold a generator, got: discriminator"):
        read_checkpoint(tf1, ["discriminator", "generator"])
    rewrite(tf1, lambda variables: [variables.pop(name) for name in list(variables) if name != "global_step"])
    with pytest.raises(ValueError, match=r"model.ckpt-50 must be a checkpoint of ELECTRA or BERT.* got global_step"):
        read_checkpoint(tf1)


def test_a_directory_with_both_forms_is_the_hubs(models, tf1, tmp_path):
    (tf1 / "config.json").write_text("{}")
    assert read_checkpoint(tf1).step == 50
    models["generator"].save_pretrained(tf1)
    assert [network.name for network in read_checkpoint(tf1).networks] == ["generator"]
    assert read_checkpoint(tf1 / "model.ckpt-50").step == 50
    for path in tf1.glob("*.index"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"its model.ckpt-50.index is missing"):
        read_checkpoint(tf1 / "model.ckpt-50")
    write_bundle(tmp_path / "model[1].ckpt", {"x": torch.ones(1)})
    with pytest.raises(ValueError, match="must be a checkpoint of ELECTRA or BERT"):
        read_checkpoint(tmp_path / "model[1].ckpt")
    with pytest.raises(FileNotFoundError, match="neither a directory nor a name of a model on the Hub"):
        read_checkpoint(tmp_path / "nothing")


def test_command_line(tf1, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["convert", str(tf1), str(out), "--network", "both"]) == 0
    printed = capsys.readouterr().out
    assert "at step 50" in printed and "ElectraForPreTraining: 2 layers, hidden 32, heads 1" in printed
    assert "ElectraForMaskedLM: 2 layers, hidden 24" in printed and "no vocabulary was found" in printed
    assert main(["convert", str(out), str(tmp_path / "back"), "--to", "tf1"]) == 0
    assert Tf1Bundle(tmp_path / "back").prefix.name == "model.ckpt"
    capsys.readouterr()
    assert main(["convert", str(tf1), str(out)]) == 2
    assert "the output must be a new directory" in capsys.readouterr().err
    data = next(tf1.glob("*.data-00001*"))
    data.write_bytes(data.read_bytes()[:-100])
    assert main(["convert", str(tf1), str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert f"{data} is truncated" in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*new*"))
