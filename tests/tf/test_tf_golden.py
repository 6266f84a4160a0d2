"""The seven classes beside those of transformers 4.57: results, losses, gradients and a step of training."""

import numpy as np
import pytest
from golden.cases import CASES, LEARNING_RATE, TF, cases_of, cotangent, inputs_of, projections

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")

from tf_models import GOLDEN, error, make, tokens_of  # noqa: E402

from electra_fast.functional.parameters import flatten  # noqa: E402


def with_past(model, inputs):
    """The inputs of a second step, where a case has one."""
    n = inputs.pop("past_key_values", None)
    if n is None:
        return inputs
    past = model(inputs["input_ids"][:, :n], attention_mask=inputs["attention_mask"][:, :n]).past_key_values
    later = {key: inputs[key][:, n:] for key in ("input_ids", "token_type_ids")}
    return {**inputs, **later, "past_key_values": past}


def errors(name, output):
    values = {}
    for key in CASES[name].outputs:
        if isinstance(output[key], tuple):
            values |= {f"{key}/{i}": x for i, x in enumerate(output[key])}
        else:
            values[key] = output[key]
    return {key: error(name, key, value) for key, value in values.items()}


MODES = [(mode, name) for mode in ("eager", "graph") for name in cases_of(TF)]
MODES += [("xla", name) for name in ("model", "cross", "decoder")]


@pytest.mark.parametrize(("mode", "name"), MODES, ids=["-".join(pair) for pair in MODES])
def test_results(mode, name):
    model = make(name)
    keeps = "attentions" in CASES[name].outputs
    inputs = with_past(model, tokens_of(name))

    def call(**inputs):
        return model(**inputs, output_hidden_states=keeps, output_attentions=keeps)

    call = call if mode == "eager" else tf.function(call, jit_compile=mode == "xla", autograph=False)
    output = call(**inputs)
    assert type(output) is model.output_type
    assert max(errors(name, output).values()) < 1e-5


@pytest.mark.parametrize("name", [name for name, case in cases_of(TF).items() if "past_key_values" not in case.options])
def test_the_encoder_in_cpp_gives_the_same_as_the_pure_functions(name):
    model, inputs = make(name), tokens_of(name)
    eager = model(inputs, output_hidden_states=True)
    pure = tf.function(lambda **inputs: model(**inputs, output_hidden_states=True), autograph=False)(**inputs)
    served = {"input_ids", "attention_mask", "token_type_ids"} >= inputs.keys() and name not in ("cross", "wide")
    assert (model._cpu._served is not None) == served
    for key in CASES[name].outputs[:1]:
        assert error(name, key, eager[key], pure[key].numpy()) < 1e-5
    for a, b in zip(eager.hidden_states, pure.hidden_states, strict=True):
        if a.shape.rank == 3 and name != "choice":
            assert error(name, "", a, b.numpy()) < 1e-5


@pytest.mark.parametrize("name", cases_of(TF))
def test_gradients_and_a_step(name):
    model = make(name)
    inputs = with_past(model, inputs_of(name))

    def scalar():
        output = model(**inputs, training=True)
        if output.get("loss") is not None:
            assert error(name, "loss", output.loss) < 1e-5
            return tf.reduce_mean(output.loss)
        keys = CASES[name].differentiated
        return sum(tf.reduce_sum(output[key] * cotangent(name, key, output[key].shape)) for key in keys)

    leaves = dict(sorted(("/".join(path), variable) for path, variable in flatten(model.tree())))
    with tf.GradientTape() as tape:
        before = scalar()
    gradients = tape.gradient(before, list(leaves.values()), unconnected_gradients="zero")
    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
    found = np.array([projections(path, x.numpy()) for path, x in zip(leaves, gradients, strict=True)])
    expected = GOLDEN[f"{name}/gradients"]
    assert abs(found - expected).max() < 1e-4 * expected.max()
    first, second = GOLDEN[f"{name}/scalars"]
    assert float(before) == pytest.approx(first, abs=1e-4)
    for variable, gradient in zip(leaves.values(), gradients, strict=True):
        variable.assign_sub(LEARNING_RATE * gradient)
    with_loss = model(**inputs).get("loss") is not None
    after = tf.reduce_mean(model(**inputs).loss) if with_loss else scalar()
    assert float(after) == pytest.approx(second, rel=1e-4)
