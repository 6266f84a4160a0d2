"""compile, fit, evaluate and predict: labels in every place, the model's loss and others, XLA, weights, data sets."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.cases import inputs_of

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: `make test-tf` has an environment with it")

import keras  # noqa: E402
from tf_models import GOLDEN, error, make, tokens_of  # noqa: E402

from electra_fast import (  # noqa: E402
    ElectraForSequenceClassification,
    ElectraTokenizer,
    TFElectraForSequenceClassification,
)
from electra_fast.model.pretrained import CheckpointWarning  # noqa: E402

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CROSS_ENTROPY = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


def sgd():
    return keras.optimizers.SGD(0.01)


@pytest.mark.parametrize("place", ["x", "y", "data_set"])
@pytest.mark.parametrize("options", [{}, CROSS_ENTROPY, {"jit_compile": True}], ids=["own_loss", "other_loss", "xla"])
def test_a_step_is_that_of_transformers(place, options):
    """Losses before and after a step with dropout 0, and a metric."""
    model, tokens, labels = make("classes"), tokens_of("classes"), inputs_of("classes")["labels"]
    given = {
        "x": lambda: {"x": tokens | {"labels": labels}},
        "y": lambda: {"x": tokens, "y": labels},
        "data_set": lambda: {"x": tf.data.Dataset.from_tensors((tokens, labels))},
    }[place]()
    model.compile(sgd(), metrics=["accuracy"], **options)
    history = model.fit(**given, epochs=2, batch_size=3, verbose=0).history
    assert history["loss"] == pytest.approx(GOLDEN["classes/scalars"].tolist(), rel=1e-4)
    found = model.evaluate(**given, verbose=0, return_dict=True)
    expected = model(tokens, labels=labels)
    assert found["loss"] == pytest.approx(float(tf.reduce_mean(expected.loss)), rel=1e-4)
    assert found["accuracy"] == pytest.approx((expected.logits.numpy().argmax(-1) == labels).mean())


@pytest.mark.parametrize("form", ["x", "dict", "tuple", "by_output"])
def test_spans(form):
    model, inputs = make("answer"), inputs_of("answer")
    positions = {name: inputs.pop(name) for name in ("start_positions", "end_positions")}
    x, y = {
        "x": (inputs | positions, None),
        "dict": (inputs, positions),
        "tuple": (inputs, tuple(positions.values())),
        "by_output": (inputs, {name.replace("positions", "logits"): value for name, value in positions.items()}),
    }[form]
    model.compile(sgd())
    assert model.train_on_batch(x, y) == pytest.approx(GOLDEN["answer/scalars"][0], rel=1e-4)


def test_weights_of_samples():
    model, tokens, labels = make("classes"), tokens_of("classes"), inputs_of("classes")["labels"]
    model.compile(sgd())
    weights = np.array([1.0, 0.0, 2.0])
    found = model.test_on_batch(tokens, labels, sample_weight=weights)
    assert found == pytest.approx(float((GOLDEN["classes/loss"] * weights).mean()), rel=1e-4)
    model, inputs = make("masked_lm"), inputs_of("masked_lm")
    model.compile(sgd())
    with pytest.raises(ValueError, match="one loss for a batch"):
        model.test_on_batch(inputs, inputs["labels"], sample_weight=weights)


def test_labels_of_tokens():
    """-100 is no label, and for classes of tokens no negative number is, as in transformers 4."""
    for name, n in (("masked_lm", 99), ("tokens", 5)):
        model, inputs = make(name), inputs_of(name)
        labels = inputs.pop("labels")
        expected = model(inputs, labels=labels).loss
        np.testing.assert_array_equal(model(inputs, labels=labels[..., None]).loss, expected)
        other = np.where(labels < 0, -1, labels)
        if name == "tokens":
            np.testing.assert_array_equal(model(inputs, labels=other).loss, expected)
        else:
            with pytest.raises(ValueError, match=rf"labels must be in \[0, {n}\), got -1"):
                model(inputs, labels=other)


def test_no_loss():
    with pytest.raises(ValueError, match="TFElectraForPreTraining has no loss of its own"):
        make("pretraining").compile("adam")
    model = make("pretraining")
    model.compile(sgd(), loss=keras.losses.BinaryCrossentropy(from_logits=True))
    assert np.isfinite(model.train_on_batch(tokens_of("pretraining"), np.ones((3, 9))))
    model = make("tokens")
    model.compile(sgd())
    with pytest.raises(ValueError, match="needs labels for its loss, in x or in y"):
        model.train_on_batch(tokens_of("tokens"))
    model.compile(sgd(), **CROSS_ENTROPY)
    with pytest.raises(ValueError, match="needs labels for its loss, in x or in y"):
        model.train_on_batch(tokens_of("tokens"))
    with pytest.raises(ValueError, match="class_weight needs the labels in y"):
        model.fit(inputs_of("tokens"), class_weight={0: 2.0})


@pytest.mark.parametrize("jit_compile", [False, True], ids=["eager", "xla"])
def test_predict(jit_compile):
    model, tokens = make("classes"), tokens_of("classes")
    model.compile(jit_compile=jit_compile)
    output = model.predict(tokens, batch_size=2, verbose=0)
    assert type(output) is model.output_type and isinstance(output.logits, np.ndarray)
    assert error("classes", "logits", output.logits) < 1e-5
    assert (model._cpu._served is None) == jit_compile
    assert error("classes", "logits", model.predict_on_batch(tokens | inputs_of("classes")).logits) < 1e-5


def test_frozen_parts_do_not_train():
    model, inputs = make("classes"), inputs_of("classes")
    model.electra.trainable = False
    before = [weight.numpy() for weight in model.electra.weights]
    model.compile(sgd())
    model.fit(inputs, verbose=0)
    assert [weight.path.split("/")[1] for weight in model.trainable_weights] == ["classifier"] * 4
    assert all(map(np.array_equal, before, [weight.numpy() for weight in model.electra.weights]))


def rows(n):
    """Rows of several lengths, with columns that no model takes."""
    draw = np.random.RandomState(0)
    for i in range(n):
        ids = draw.randint(1, 99, draw.randint(2, 8)).tolist()
        yield {"sentence": "text", "input_ids": ids, "attention_mask": [1] * len(ids), "label": i % 3, "idx": i}


def test_batches_of_a_data_set():
    model, data = make("classes"), list(rows(7))
    batches = list(model.prepare_tf_dataset(data, batch_size=3, shuffle=False))
    assert [sorted(x) for x, _ in batches] == [["attention_mask", "input_ids"]] * 3
    assert [y.shape for _, y in batches] == [(3,), (3,), (1,)]
    x, _ = batches[1]
    assert x["input_ids"].shape[1] == max(len(row["input_ids"]) for row in data[3:6])
    for ids, mask, row in zip(x["input_ids"].numpy(), x["attention_mask"].numpy(), data[3:6], strict=True):
        assert ids[mask == 1].tolist() == row["input_ids"] and not ids[mask == 0].any()
    shuffled = model.prepare_tf_dataset(data, batch_size=3)
    assert len(shuffled) == 2
    model.compile(sgd())
    assert np.isfinite(model.fit(shuffled, verbose=0).history["loss"][0])
    tokens = [row | {"labels": row["input_ids"]} for row in rows(4)]
    (_, labels), *_ = make("masked_lm").prepare_tf_dataset(tokens, batch_size=4)
    assert (labels.numpy() == -100).any()
    with pytest.raises(ValueError, match="must have rows"):
        model.prepare_tf_dataset([])


@pytest.mark.skipif(not (DATA / "sst2").is_dir(), reason="the data is not on this machine")
def test_sst2_ends_where_the_pytorch_class_does():
    """From real weights, on the same batches, without dropout."""
    path, rate, momentum, size = DATA / "bert-tiny", 0.02, 0.9, 16
    lines = (DATA / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:513]
    texts, labels = zip(*(line.split("\t")[:2] for line in lines), strict=True)
    labels = list(map(int, labels))
    tokenizer = ElectraTokenizer.from_pretrained(path)
    encoded = tokenizer(list(texts), truncation=True, max_length=64)
    columns = [{name: encoded[name][i] for name in encoded} | {"label": label} for i, label in enumerate(labels)]
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # the head is new
        twin = ElectraForSequenceClassification.from_pretrained(path, **fields)
        model = TFElectraForSequenceClassification.from_pretrained(path, **fields)
    for name in ("dense", "out_proj"):
        part, linear = model.classifier[name], getattr(twin.classifier, name)
        part["kernel"].assign(linear.weight.detach().numpy().T)
        part["bias"].assign(linear.bias.detach().numpy())
    model.compile(keras.optimizers.SGD(rate, momentum))
    data = model.prepare_tf_dataset(columns, batch_size=size, shuffle=False, tokenizer=tokenizer)
    history = model.fit(data, epochs=2, verbose=0).history

    optimizer, losses = torch.optim.SGD(twin.parameters(), rate, momentum), []
    twin.train()
    for x, y in [*data.as_numpy_iterator()] * 2:
        loss = twin(**{name: torch.tensor(value) for name, value in x.items()}, labels=torch.tensor(y)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    n = len(losses) // 2
    assert history["loss"] == pytest.approx([np.mean(losses[:n]), np.mean(losses[n:])], rel=1e-4)
    x, y = next(iter(model.prepare_tf_dataset(columns, batch_size=512, shuffle=False, tokenizer=tokenizer)))
    with torch.inference_mode():
        theirs = twin.eval()(**{name: torch.from_numpy(value.numpy()) for name, value in x.items()}).logits.argmax(-1)
    assert abs((model(x).logits.numpy().argmax(-1) == y.numpy()).mean() - (theirs.numpy() == y.numpy()).mean()) < 0.02
