"""compile, fit, evaluate and predict: Keras's own, with the model's loss where no other is given.

Labels are in `x` under the names of `call`'s arguments, or in `y`: an array where there is one of them, else a mapping
by these names, or a tuple in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from .data import batches, padded

# What a label is of, by its name.
_OUTPUTS = {"labels": "logits", "start_positions": "start_logits", "end_positions": "end_logits"}
_LABELS = {output: label for label, output in _OUTPUTS.items()} | {"label": "labels", "label_ids": "labels"}
_OWN_LOSS = (None, "auto_with_warning", "passthrough")  # the names are transformers 4's


class TrainingMixin:
    """`compile`, `fit` and their like for a Keras model with `argument_names` and `label_names`."""

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, **kwargs: Any) -> None:
        """Configures training; the arguments are those of `keras.Model.compile`.

        No loss is the model's own. "auto" for `jit_compile` is False: XLA compiles anew for each length of a batch.

        Raises:
            ValueError: no loss, for a class that has none of its own.
        """
        self._has_own_loss = isinstance(loss, str | None) and loss in _OWN_LOSS
        if self._has_own_loss and not self.label_names():
            raise ValueError(f"{type(self).__name__} has no loss of its own: compile(loss=...) needs one")
        if kwargs.get("jit_compile", "auto") == "auto":
            kwargs["jit_compile"] = False
        super().compile(optimizer, None if self._has_own_loss else loss, **kwargs)

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles a model that is loaded with what `compile` was given."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    # Batches come as any mapping that a tokenizer returns; Keras knows dictionaries alone.

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        if y is None and isinstance(x, Mapping) and kwargs.get("class_weight"):
            raise ValueError("class_weight needs the labels in y, got no y")
        return super().fit(_plain(x), y, *args, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().evaluate(_plain(x), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Computes the class's output of numpy arrays, without a loss, batch by batch."""
        return super().predict(_plain(x), *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().train_on_batch(_plain(x), *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().test_on_batch(_plain(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(_plain(x))

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Mapping[str, Any]] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> tf.data.Dataset:
        """Makes batches for `fit`, `evaluate` and `predict` of tokenized rows; `data.batches` says what they hold.

        Args:
            dataset: a sequence of mappings with columns by the names of `call`'s arguments, or "label", such as a
                `datasets.Dataset`; other columns are left out.
            tokenizer: has the padding's token and side; without one the token is the config's, and the side the right.
            collate_fn: makes a batch of a list of rows, with `collate_fn_args`; by default rows are padded.
            drop_remainder: leave out a last batch of fewer rows; None does as `shuffle` says.
        """
        pad = self.config if tokenizer is None else tokenizer
        collate = padded if collate_fn is None else collate_fn
        options = {"pad_token_id": pad.pad_token_id or 0, "side": getattr(pad, "padding_side", "right")}
        labels = self.label_names()
        return batches(
            dataset,
            [name for name in self.argument_names() if name not in labels],
            labels,
            batch_size,
            shuffle,
            shuffle if drop_remainder is None else drop_remainder,
            prefetch,
            partial(collate, **(options if collate_fn is None else collate_fn_args or {})),
        )

    # Steps

    def train_step(self, data: Any) -> Any:
        return super().train_step(self._with_labels(data))

    def test_step(self, data: Any) -> Any:
        return super().test_step(self._with_labels(data))

    def predict_step(self, data: Any) -> Any:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        inputs, _ = self._split(x)
        return self(inputs, training=False, return_dict=True)

    def make_predict_function(self, force: bool = False) -> Any:
        """Keras's, but eager where the C++ encoder serves: it is not part of any graph."""
        if self.steps_per_execution > 1 or self.jit_compile or self._cpu_obstacle(()):
            return super().make_predict_function(force)
        if self.predict_function is None or force:
            self.predict_function = lambda data: self.predict_step(data[0])
        return self.predict_function

    def _split(self, x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs by their names, and the labels among them."""
        if isinstance(x, list | tuple):
            x = dict(zip(self.argument_names(), x, strict=False))
        x = (
            {_LABELS.get(name, name): value for name, value in x.items()}
            if isinstance(x, Mapping)
            else {"input_ids": x}
        )
        names = self.label_names()
        return {k: v for k, v in x.items() if k not in names}, {k: v for k, v in x.items() if k in names}

    def _with_labels(self, data: Any) -> tuple[dict[str, Any], Any, Any]:
        """A batch (x, y, weights) with labels where they are needed: in x for the model's loss, in y in any case."""
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        inputs, labels = self._split(x)
        names = self.label_names()
        if isinstance(y, Mapping):
            labels = {_LABELS.get(name, name): value for name, value in y.items()} | labels
        elif isinstance(y, list | tuple):
            labels = dict(zip(names, y, strict=False)) | labels
        elif y is not None:
            labels = {name: y for name in names[:1]} | labels
        missing = [name for name in names if name not in labels] if self._has_own_loss else []
        if missing or (y is None and not labels):
            what = (missing or names or ["y"])[0]
            raise ValueError(f"{type(self).__name__} needs {what} for its loss, in x or in y; got neither")
        if self._has_own_loss:
            inputs |= labels
        if y is None or self._has_own_loss:
            by_output = {_OUTPUTS[name]: value for name, value in labels.items()}
            y = by_output if len(by_output) > 1 else next(iter(by_output.values()), None)
        return inputs, y, weights

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor | None:
        """The mean of the model's own loss, weighted where weights are given; or the loss that was compiled."""
        if not self._has_own_loss:
            return super().compute_loss(x, y, _matching(y, y_pred), sample_weight, training)
        loss = y_pred.loss
        if sample_weight is not None:
            if loss.shape[0] == 1 and sample_weight.shape[0] != 1:
                raise ValueError(
                    f"{type(self).__name__} has one loss for a batch: sample_weight needs compile(loss=...)"
                )
            loss = loss * tf.cast(sample_weight, loss.dtype)
        return tf.add_n([tf.reduce_mean(loss), *self.losses])

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, y, _matching(y, y_pred), sample_weight)


def _plain(x: Any) -> Any:
    """A mapping as a dictionary; what is not a mapping, such as a data set, as it is."""
    return dict(x) if isinstance(x, Mapping) else x


def _matching(y: Any, output: Any) -> Any:
    """The part of a model's output that labels are of."""
    if isinstance(y, Mapping):
        return {name: output[name] for name in y}
    results = [value for name, value in output.items() if name != "loss"]
    return type(y)(results[: len(y)]) if isinstance(y, list | tuple) else results[0]
