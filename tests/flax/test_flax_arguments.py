"""Parameters, results and wrong input of the Flax classes: one clear error each."""

from __future__ import annotations

import copy
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import TINY

from electra_fast import (
    ElectraConfig,
    FlaxElectraForCausalLM,
    FlaxElectraForMultipleChoice,
    FlaxElectraForPreTraining,
    FlaxElectraForQuestionAnswering,
    FlaxElectraModel,
)
from electra_fast.flax.outputs import FlaxElectraForPreTrainingOutput
from electra_fast.functional.parameters import flatten

CONFIG = ElectraConfig(**TINY, id2label={0: "a", 1: "b"})
IDS = np.arange(14).reshape(2, 7)


@pytest.fixture(scope="module")
def model():
    return FlaxElectraForPreTraining(CONFIG)


@pytest.fixture(scope="module")
def base():
    return FlaxElectraModel(CONFIG)


@pytest.mark.parametrize("arguments, message", [
    ({"input_ids": None}, r"input_ids must have shape \[batch, length\] with at least one token, got None"),
    ({"input_ids": IDS[0]}, r"input_ids must have shape \[batch, length\] .*, got \(7,\)"),
    ({"input_ids": IDS[:, :0]}, r"at least one token, got \(2, 0\)"),
    ({"input_ids": IDS + 93}, r"input_ids must be in \[0, 99\), got values from 93 to 106"),
    ({"input_ids": IDS - 1}, r"input_ids must be in \[0, 99\), got values from -1 to 12"),
    ({"input_ids": IDS + 2**32}, r"input_ids must be in \[0, 99\), got values from 4294967296"),
    ({"input_ids": IDS.astype(float)}, "input_ids must be integers, got float64"),
    ({"input_ids": [[1, 2], [3]]}, r"must have rows of one length: pad them \(tokenizer\(..., padding=True\)"),
    ({"input_ids": np.zeros((2, 65), int)}, "sequence length 65 is over max_position_embeddings 64: truncate"),
    ({"attention_mask": IDS[:, :5]}, r"attention_mask must have shape \(2, 7\), got \(2, 5\)"),
    ({"token_type_ids": IDS}, r"token_type_ids must be in \[0, 2\), got values from 0 to 13"),
    ({"position_ids": IDS + 60}, r"position_ids must be in \[0, 64\), got values from 60 to 73"),
    ({"position_ids": IDS[:, 0]}, r"position_ids must have shape \(2, 7\), got \(2,\)"),
    ({"head_mask": np.ones((3, 4))}, r"head_mask must have shape \(2, 4\), got \(3, 4\)"),
    ({"encoder_hidden_states": np.ones((2, 3, 32))}, "need a config with add_cross_attention=True"),
    ({"encoder_attention_mask": np.ones((2, 3))}, "encoder_attention_mask needs encoder_hidden_states beside it"),
    ({"past_key_values": {}}, "past_key_values need a config with is_decoder=True"),
    ({"train": True}, "train=True needs a dropout_rng"),
    ({"params": [1]}, "params must be a dictionary of parameters, got a list"),
], ids=["none", "1d", "empty", "above", "below", "overflow", "floats", "ragged", "long", "mask", "types", "positions",
        "positions_1d", "head_mask", "cross", "cross_mask", "cache", "train", "params"])  # fmt: skip
def test_wrong_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**{"input_ids": IDS, **arguments})


def test_misspelt_keywords(model):
    with pytest.raises(TypeError, match="atention_mask"):
        model(IDS, atention_mask=IDS)
    with pytest.raises(TypeError, match="do_init"):
        FlaxElectraModel(CONFIG, do_init=False)
    with pytest.raises(TypeError, match=r"config must be an electra_fast\.ElectraConfig, got dict"):
        FlaxElectraModel(dict(TINY))
    with pytest.raises(ValueError, match="dtype must be a floating dtype, got 'int8'"):
        FlaxElectraModel(CONFIG, dtype="int8")
    with pytest.raises(ValueError, match="dtype must be a floating dtype, got None"):
        FlaxElectraModel(CONFIG, dtype=None)
    with pytest.raises(ValueError, match=r"question answering needs num_labels 2 \(start and end\), got 3"):
        FlaxElectraForQuestionAnswering(ElectraConfig(**TINY, num_labels=3))
    with pytest.raises(ValueError, match=r"input_ids must have shape \[batch, choices, length\]"):
        choice = FlaxElectraForMultipleChoice(CONFIG)
        choice(IDS)


def test_parameters_of_another_model(model, base):
    with pytest.raises(ValueError, match=r"FlaxElectraForPreTraining, but lack .*discriminator_predictions/dense/bias"):
        model(IDS, params=base.params)
    with pytest.raises(ValueError, match=r"of FlaxElectraModel, but lack .* more"):
        base.params = model.params
    further = {**base.params, "pooler": {"kernel": jnp.ones((2, 2))}}
    with pytest.raises(ValueError, match="the parameters of FlaxElectraModel alone, got also pooler/kernel"):
        base.params = further
    other = FlaxElectraModel(ElectraConfig(**{**TINY, "vocab_size": 50}))
    with pytest.raises(
        ValueError, match=r"word_embeddings/embedding must be an array of shape \(99, 16\) in params, got one of \(50"
    ):
        base(IDS, params=other.params)


def test_without_parameters_of_its_own(model):
    outside = FlaxElectraForPreTraining(CONFIG, _do_init=False)
    for use in (lambda: outside.params, lambda: outside(IDS), lambda: setattr(outside, "params", model.params)):
        with pytest.raises(ValueError, match="created with _do_init=False: keep them outside of it"):
            use()
    params = outside.init_weights(jax.random.PRNGKey(0), (1, 1))
    jax.tree.map(np.testing.assert_array_equal, params, model.params)
    tree = jax.eval_shape(lambda params: params, params)
    assert tree == outside.params_shape_tree and {path for path, _ in flatten(tree)} == outside.required_params
    assert (outside(IDS, params=params).logits == model(IDS).logits).all()
    assert model.num_params() == sum(x.size for x in jax.tree.leaves(params)) and model.framework == "flax"


def test_defaults_and_forms_of_input(model):
    expected = model(IDS, np.ones_like(IDS), np.zeros_like(IDS), np.arange(7)[None]).logits
    for ids in (IDS.tolist(), jnp.asarray(IDS), IDS.astype(np.uint8)):
        assert (model(ids).logits == expected).all()
    mask = np.ones_like(IDS)
    mask[1, 4:] = 0
    expected = model(IDS, mask).logits
    for given in (mask == 1, mask * 0.5, jnp.asarray(mask, jnp.bfloat16)):
        assert (model(IDS, given).logits == expected).all()
        pure = model(IDS, given, output_attentions=True).logits
        np.testing.assert_allclose(np.where(mask, pure - expected, 0), 0, atol=1e-5)
    other = FlaxElectraForPreTraining(CONFIG, dtype="float32", _do_init=False)
    assert (other(IDS, given, params=model.params).logits == expected).all() and other._cpu._served
    assert not model.can_generate()


def test_results(model):
    output = model(IDS, output_hidden_states=True, output_attentions=True)
    assert type(output) is FlaxElectraForPreTrainingOutput and list(output) == ["logits", "hidden_states", "attentions"]
    assert output[0] is output.logits is output["logits"] and len(output.hidden_states) == 3
    as_tuple = model(IDS, output_hidden_states=True, output_attentions=True, return_dict=False)
    assert type(as_tuple) is tuple and len(as_tuple) == 3
    doubled = jax.tree.map(lambda x: 2 * x, output)
    assert type(doubled) is type(output) and (doubled.attentions[1] == 2 * output.attentions[1]).all()
    assert output.replace(logits=None).to_tuple() == output.to_tuple()[1:]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(output)]
    assert paths[:2] == [".logits", ".hidden_states[0]"]


def test_copies(model):
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (other(IDS).logits == model(IDS).logits).all()


def test_caches(base):
    decoder = FlaxElectraModel(ElectraConfig(**TINY, is_decoder=True))
    with pytest.raises(ValueError, match="a cache needs a config with is_decoder=True"):
        base.init_cache(2, 9)
    with pytest.raises(ValueError, match="max_length must be at most max_position_embeddings 64, got 65"):
        decoder.init_cache(2, 65)
    for cache, message in (
        ((1, 2), "must be what init_cache or an earlier call of this model returned"),
        (decoder.init_cache(3, 9), re.escape("must be of 2 rows and heads (4, 8), got arrays (3, 9, 4, 8)")),
    ):
        with pytest.raises(ValueError, match=message):
            decoder(IDS, past_key_values=cache)


def test_states_of_an_encoder():
    model = FlaxElectraModel(ElectraConfig(**TINY, is_decoder=True, add_cross_attention=True))
    for shape, message in (
        ((1, 3, 32), r"encoder_hidden_states must have shape \[2, length, 32\], got \(1, 3, 32\)"),
        ((2, 3, 31), r"encoder_hidden_states must have shape \[2, length, 32\], got \(2, 3, 31\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model(IDS, encoder_hidden_states=np.zeros(shape, np.float32))


def test_a_decoder_that_is_none():
    with pytest.warns(UserWarning, match="sees the tokens to the right too"):
        model = FlaxElectraForCausalLM(CONFIG, _do_init=False)
    with pytest.raises(ValueError, match=r"generate\(\) needs a config with is_decoder=True"):
        model.generate(IDS)
