"""Arguments in every form, results as types and tuples, decoders' caches, and wrong input: one clear error each."""

import copy
from collections import UserDict
from itertools import pairwise
from threading import Event, Thread

import numpy as np
import pytest
from golden.cases import CASES, LENGTH, ROWS, TF, cases_of, inputs_of

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")

import keras  # noqa: E402
from tf_models import error, make, tokens_of  # noqa: E402

from electra_fast.functional.twin import Twin  # noqa: E402
from electra_fast.tf import cpu  # noqa: E402

NAMES = ("input_ids", "attention_mask", "token_type_ids")
FORMS = {
    "by_name": lambda model, x: model(**x),
    "dict": lambda model, x: model(x),
    "user_dict": lambda model, x: model(UserDict(x)),
    "list": lambda model, x: model([x[name] for name in NAMES]),
    "tuple": lambda model, x: model(tuple(tf.constant(x[name]) for name in NAMES)),
    "in_order": lambda model, x: model(*(x[name] for name in NAMES)),
    "lists_of_python": lambda model, x: model({name: value.tolist() for name, value in x.items()}),
    "int64": lambda model, x: model({name: value.astype(np.int64) for name, value in x.items()}),
    "mixed": lambda model, x: model({"input_ids": x["input_ids"]}, **{name: x[name] for name in NAMES[1:]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    assert error("pretraining", "logits", FORMS[form](make("pretraining"), inputs_of("pretraining")).logits) < 1e-5


def test_ids_alone():
    model, ids = make("pretraining"), inputs_of("pretraining")["input_ids"]
    expected = model(ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids)).logits
    for given in (ids, tf.constant(ids), ids.tolist()):
        assert abs(model(given).logits - expected).numpy().max() < 1e-6


@pytest.mark.parametrize("name", cases_of(TF))
def test_tuples_have_the_same_values_in_the_same_order(name):
    model, inputs = make(name), inputs_of(name)
    inputs.pop("past_key_values", None)
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    values = model(**inputs, output_attentions=True, output_hidden_states=True, return_dict=False)
    assert isinstance(values, tuple) and len(values) == len(output)
    assert next(iter(output)) == (
        "loss" if "labels" in inputs or "start_positions" in inputs else CASES[name].outputs[0]
    )
    np.testing.assert_array_equal(values[0], output[0])


@pytest.mark.parametrize("options", [{}, {"output_attentions": True}], ids=["cpp", "graph"])
def test_masks_and_integers_of_every_dtype(options):
    model, inputs = make("classes"), tokens_of("classes")
    expected = model(inputs, **options).logits
    mask = inputs.pop("attention_mask")
    small = {name: value.astype(np.uint8) for name, value in inputs.items()}
    for given in (mask == 1, mask * 0.5, mask.astype(np.int8)):
        for tokens in (inputs, small):
            assert abs(model(tokens, attention_mask=given, **options).logits - expected).numpy().max() < 1e-6


def test_the_functional_api():
    model = make("model")
    ids, mask = (keras.Input((None,), dtype="int32") for _ in range(2))
    first = model(ids, attention_mask=mask).last_hidden_state
    again = model({"input_ids": ids, "attention_mask": mask})[0]
    whole = keras.Model([ids, mask], [first, again])
    inputs = inputs_of("model")
    first, again = whole([inputs["input_ids"], inputs["attention_mask"]])
    expected = model(inputs["input_ids"], inputs["attention_mask"])[0]
    assert error("model", "", first, expected) < 1e-5
    assert error("model", "", again, expected) < 1e-5
    assert len(whole.trainable_weights) == len(model.trainable_weights)


def test_mixed_precision():
    model = make("classes")
    reduced = type(model)(model.config, values=None, dtype="mixed_bfloat16")
    reduced.set_weights(model.get_weights())
    inputs = tokens_of("classes")
    logits = reduced(inputs).logits
    assert logits.dtype == tf.bfloat16 and {w.dtype for w in reduced.weights} == {"float32"}
    assert error("classes", "", tf.cast(logits, tf.float32), model(inputs).logits) < 0.5


def test_changed_variables_are_seen():
    model, inputs = make("classes"), tokens_of("classes")
    results = [model(inputs).logits]
    model.electra["encoder"]["layer"]["1"]["output"]["dense"]["bias"].assign_add(np.arange(36.0))
    results.append(model(inputs).logits)
    model.electra.embeddings.word_embeddings.embedding.assign(model.electra.embeddings.word_embeddings.embedding * 2)
    results.append(model(inputs).logits)
    pure = model(inputs, output_attentions=True).logits
    for a, b in pairwise(results):
        assert abs(a - b).numpy().max() > 1e-3
    assert abs(results[-1] - pure).numpy().max() < 1e-5


@pytest.mark.parametrize("kind", ["word", "position"])
@pytest.mark.parametrize("name", ["classes", "masked_lm"])
def test_rows_that_are_updated_in_place_are_seen(name, kind):
    """A variable whose rows were gathered is updated in place, and copied whenever it is read."""
    model, inputs = make(name), tokens_of(name)
    table = model.electra.embeddings[f"{kind}_embeddings"]["embedding"]._value
    tf.gather(table, [0])
    first, twin = model(inputs).logits, model._cpu._served.twin
    np.testing.assert_array_equal(model(inputs).logits, first)
    assert model._cpu._served.twin is twin
    rows = inputs["input_ids"][:, 1] if kind == "word" else [0, 1, 2]
    table.scatter_sub(tf.IndexedSlices(tf.random.normal((3, 16), seed=1), tf.constant(rows)))
    second = model(inputs).logits
    assert error(name, "", second, first) > 1e-2
    assert error(name, "", second, model(inputs, output_attentions=True).logits) < 1e-5


def test_a_change_is_seen_by_threads_that_call_at_once(monkeypatch):
    model, inputs = make("classes"), tokens_of("classes")
    model(inputs)
    model.classifier["out_proj"]["bias"].assign_add(np.ones(3))
    expected, begun, known, results = model(inputs, output_attentions=True).logits, Event(), Event(), []

    def slow(*args):
        if not begun.is_set():
            begun.set()
            known.wait(60)
        return Twin(*args)

    monkeypatch.setattr(cpu, "Twin", slow)
    first = Thread(target=lambda: results.append(model(inputs).logits))
    first.start()
    begun.wait(60)
    results.append(model(inputs).logits)  # while the other thread copies the parameters
    known.set()
    first.join()
    assert [error("classes", "", found, expected) < 1e-5 for found in results] == [True, True]


def test_a_tape_records_pure_functions():
    model, inputs = make("classes"), tokens_of("classes")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(inputs).logits)
    assert all(gradient is not None for gradient in tape.gradient(total, model.trainable_weights))


def test_dropout_is_drawn_anew_and_by_the_seed():
    fields = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1, "classifier_dropout": 0.3}
    inputs = tokens_of("classes")
    model = make("classes", **fields)
    first, second = (model(inputs, training=True).logits for _ in range(2))
    assert abs(first - second).numpy().max() > 1e-3
    twins = [type(model)(model.config, seed=3) for _ in range(2)]
    a, b = (twin(inputs, training=True).logits for twin in twins)
    np.testing.assert_array_equal(a, b)
    kernels = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        twin = type(model)(copy.copy(model.config))
        twin.resize_token_embeddings(110)
        kernels.append([*twin.get_weights(), twin(inputs, training=True).logits])
    for a, b in zip(*kernels, strict=True):
        np.testing.assert_array_equal(a, b)


WRONG = {
    "misspelt": (lambda m, x: m(**x, atention_mask=1), TypeError, "unexpected argument 'atention_mask'"),
    "misspelt_key": (lambda m, x: m(x | {"idx": 1}), TypeError, "unexpected argument 'idx'"),
    "twice": (lambda m, x: m(x, input_ids=x["input_ids"]), TypeError, "got input_ids twice"),
    "nothing": (lambda m, x: m(), ValueError, "exactly one of input_ids or inputs_embeds"),
    "id_too_large": (lambda m, x: m(x["input_ids"] + 99), ValueError, r"input_ids must be in \[0, 99\), got"),
    "id_over_32_bits": (lambda m, x: m(x["input_ids"].astype(np.int64) + 2**33), ValueError, "input_ids must be in"),
    "ids_of_floats": (lambda m, x: m(x["input_ids"] / 1.0), ValueError, "input_ids must be integers, got float"),
    "one_dimension": (lambda m, x: m(x["input_ids"][0]), ValueError, r"input_ids must have shape \[batch, length\]"),
    "no_tokens": (lambda m, x: m(x["input_ids"][:, :0]), ValueError, "at least one token"),
    "too_long": (lambda m, x: m(np.ones((1, 41), int)), ValueError, "length 41 is over max_position_embeddings 40"),
    "mask": (
        lambda m, x: m(x["input_ids"], np.ones((ROWS, 8))),
        ValueError,
        r"attention_mask must have shape \[3, 9\]",
    ),
    "types": (
        lambda m, x: m(**x | {"token_type_ids": x["input_ids"]}),
        ValueError,
        r"token_type_ids must be in \[0, 3",
    ),
    "ragged": (lambda m, x: m([[1, 2], [3]]), ValueError, "input_ids must have rows of one length: pad them"),
    "ragged_tensor": (
        lambda m, x: m(tf.ragged.constant([[1, 2], [3]])),
        ValueError,
        r"input_ids must be a tensor or lists of numbers, got a RaggedTensor: call its to_tensor\(\)",
    ),
    "text": (lambda m, x: m("a text"), ValueError, "input_ids must be a tensor or lists of numbers, got a str"),
    "head_mask": (
        lambda m, x: m(**x, head_mask=np.ones(4)),
        ValueError,
        r"head_mask must have shape \[2, 3\] or \[3\]",
    ),
    "class": (lambda m, x: m(**x, labels=np.array([0, 1, 3])), ValueError, r"labels must be in \[0, 3\), got 3"),
    "labels": (lambda m, x: m(**x, labels=np.array([0, 1])), ValueError, r"labels must have shape \(3,\), got \(2,\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call(make("classes"), tokens_of("classes"))


def test_wrong_input_of_other_classes():
    with pytest.raises(TypeError, match="'labels': it has no loss of its own"):
        make("pretraining")(**tokens_of("pretraining"), labels=np.zeros((ROWS, LENGTH), int))
    with pytest.raises(ValueError, match=r"end_positions must be in \[0, 9\), got 9"):
        make("answer")(**tokens_of("answer"), start_positions=[0, 1, 8], end_positions=[0, 1, 9])
    with pytest.raises(ValueError, match=r"\[batch, choices, length\]"):
        make("choice")(tokens_of("classes"))
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        make("model")(**tokens_of("model"), encoder_hidden_states=np.zeros((ROWS, 4, 36), "f4"))
    for states, mask, message in (
        ((ROWS, 4, 35), (ROWS, 4), r"encoder_hidden_states must have shape \[3, length, 36\], got \(3, 4, 35\)"),
        ((1, 4, 36), (1, 4), r"encoder_hidden_states must have shape \[3, length, 36\], got \(1, 4, 36\)"),
        ((ROWS, 4, 36), (ROWS, 5), r"encoder_attention_mask must have shape \(3, 4\), got \(3, 5\)"),
    ):
        given = {"encoder_hidden_states": np.zeros(states, "f4"), "encoder_attention_mask": np.ones(mask)}
        with pytest.raises(ValueError, match=message):
            make("cross")(**tokens_of("cross") | given)
    decoder, ids = make("decoder"), inputs_of("decoder")["input_ids"]
    past = decoder(ids).past_key_values
    for given, message in ((past[:1], "must be what a call of this model returned: 2 pairs"), ((1, 2), "2 pairs")):
        with pytest.raises(ValueError, match=message):
            decoder(ids, past_key_values=given)
    with pytest.raises(ValueError, match="past_key_values must be of 2 rows, got 3"):
        decoder(ids[:2], past_key_values=past)
    with pytest.raises(ValueError, match="past_key_values need a config with is_decoder=True"):
        make("model")(ids, past_key_values=past)
    with pytest.raises(ValueError, match="num_labels 2"):
        make("answer", num_labels=3)
    with pytest.raises(TypeError, match=r"electra_fast\.ElectraConfig"):
        type(make("model"))({"vocab_size": 3})
