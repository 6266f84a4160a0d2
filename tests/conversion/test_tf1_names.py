"""Names of Google's checkpoints and of the Hub: one for one, both ways."""

import pytest
import torch

from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from electra_fast.conversion.tf1_names import network_scopes, networks_of, others, scopes, to_hub, to_tf1, transposed

CLASSES = {"discriminator": ElectraForPreTraining, "generator": ElectraForMaskedLM}
# As run_pretraining.py of google-research/electra makes them.
KNOWN = {
    "discriminator": {
        "electra/embeddings/word_embeddings": "electra.embeddings.word_embeddings.weight",
        "electra/embeddings/LayerNorm/gamma": "electra.embeddings.LayerNorm.weight",
        "electra/embeddings_project/kernel": "electra.embeddings_project.weight",
        "electra/encoder/layer_11/attention/self/query/kernel": "electra.encoder.layer.11.attention.self.query.weight",
        "electra/encoder/layer_0/output/LayerNorm/beta": "electra.encoder.layer.0.output.LayerNorm.bias",
        "discriminator_predictions/dense/kernel": "discriminator_predictions.dense.weight",
        "discriminator_predictions/dense_1/bias": "discriminator_predictions.dense_prediction.bias",
        "generator/encoder/layer_0/output/dense/bias": None,
        "generator_predictions/output_bias": None,
    },
    "generator": {
        "electra/embeddings/position_embeddings": "electra.embeddings.position_embeddings.weight",
        "generator/embeddings_project/bias": "electra.embeddings_project.bias",
        "generator/encoder/layer_2/intermediate/dense/kernel": "electra.encoder.layer.2.intermediate.dense.weight",
        "generator_predictions/dense/kernel": "generator_predictions.dense.weight",
        "generator_predictions/LayerNorm/beta": "generator_predictions.LayerNorm.bias",
        "generator_predictions/output_bias": "generator_lm_head.bias",
        "electra/encoder/layer_0/output/dense/bias": None,
        "discriminator_predictions/dense/kernel": None,
    },
}


@pytest.mark.parametrize("network", KNOWN)
def test_known_names(network):
    every = [name for known in KNOWN.values() for name in known]
    assert networks_of(every) == ["discriminator", "generator"]
    for tf1, hub in KNOWN[network].items():
        assert to_hub(tf1, scopes(every, network)) == hub
        if hub:
            assert to_tf1(hub, scopes(every, network)) == tf1
    assert to_hub("electra/encoder/layer_0/output/dense/bias/adam_m", scopes(every, network)) is None
    assert to_hub("global_step", scopes(every, network)) is None


@pytest.mark.parametrize("tables", ["electra", "generator"])
@pytest.mark.parametrize("network", CLASSES)
def test_every_tensor_of_the_model_has_a_name_of_its_own(network, tables):
    with torch.device("meta"):
        model = CLASSES[network](ElectraConfig(num_hidden_layers=2))
    names = [name for name in model.state_dict() if name != "generator_lm_head.weight"]
    own = "electra" if network == "discriminator" else "generator"
    places = network_scopes(network, own, "electra" if network == "discriminator" else tables)
    there = [to_tf1(name, places) for name in names]
    assert len(set(there)) == len(names)
    assert [to_hub(name, places) for name in there] == names
    assert scopes([*there, "electra/encoder/layer_0/output/dense/bias"], network) == places


def test_names_without_a_place():
    with pytest.raises(ValueError, match=r"classifier.weight has no name in a TensorFlow checkpoint"):
        to_tf1("classifier.weight", network_scopes("discriminator", "electra", "electra"))
    with pytest.raises(ValueError, match="must be there, got conv/kernel"):
        networks_of(["conv/kernel"])


def test_which_networks_are_there():
    encoder, head = "electra/encoder/layer_0/output/dense/bias", "generator_predictions/dense/bias"
    assert networks_of([encoder]) == ["discriminator"]
    bert = ["bert/encoder/layer_0/output/dense/bias", "cls/predictions/output_bias"]
    assert networks_of(bert) == ["discriminator"]
    assert scopes(bert, "discriminator") == network_scopes("discriminator", "bert", "bert")
    assert networks_of([encoder, head]) == ["generator"]  # MLM alone: electra/ is its encoder
    assert scopes([encoder, head], "generator") == network_scopes("generator", "electra", "electra")
    both = [encoder, head, "discriminator_predictions/dense/bias"]  # one encoder with both heads
    assert networks_of(both) == ["discriminator", "generator"]
    assert scopes(both, "generator")["electra/encoder/"] == "electra.encoder."


def test_others_are_not_the_optimizers():
    names = ["a/kernel", "a/kernel/adam_m", "a/kernel/Adam_1", "global_step", "beta1_power", "task_specific/x/kernel"]
    assert others(names, ["a/kernel"]) == ["task_specific/x/kernel"]


def test_matrices_are_transposed_and_tables_are_not():
    tensor = torch.arange(6).reshape(2, 3)
    assert torch.equal(transposed("a/kernel", tensor), tensor.T)
    assert transposed("a/word_embeddings", tensor) is tensor
