"""Inference on a CPU by the C++ encoder, for eager calls.

A graph that is traced is of TensorFlow's operations alone, so that it can be saved; padding is dropped only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record  # there is no public way to ask whether a GradientTape records

from ..functional import tf_ops
from ..functional.parameters import flatten
from ..functional.twin import Twin, why_not

TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
WORDS = ("embeddings", "word_embeddings", "embedding")


class CpuPath:
    """The C++ encoder for a model, with the values of its variables at the last call.

    The values are held as they were read. TensorFlow never changes memory that somebody holds: it gives the variable
    new memory instead. So a variable that lies where it lay has not changed. One that is updated by rows is copied
    whenever it is read; then values are compared. The word table is neither held nor read: TensorFlow looks words up,
    unless the head predicts words.
    """

    def __init__(self) -> None:
        self._read: Any = None
        self._served: _Served | None = None

    def twin_of(self, config: Any, kind: str, tree: Mapping[str, Any]) -> Twin:
        """The model of PyTorch with these variables."""
        leaves = {path: x for path, x in flatten(tree) if path[-3:] != WORDS or kind == "ForMaskedLM"}
        if self._read is None:
            # One call of a function reads all variables in half the time of as many operations.
            variables = list(leaves.values())
            read = tf.function(lambda: [variable.read_value() for variable in variables], autograph=False)
            self._read = read.get_concrete_function()
        values = self._read()
        served = self._served
        if served is None or not served.has(values):
            twin = Twin(config, kind, dict(zip(leaves, map(np.asarray, values), strict=True)))
            self._served = served = _Served(twin, values, list(map(_address, values)))
        return served.twin

    def forget(self) -> None:
        """Drops what is held, for a model that gets other variables."""
        self.__init__()


class _Served(NamedTuple):
    """A twin, and its values as they were read: always together, since several threads may call a model."""

    twin: Twin
    held: list[tf.Tensor]
    addresses: list[int]

    def has(self, values: list[tf.Tensor]) -> bool:
        """Tells whether the twin has these values."""
        for i, value in enumerate(values):
            address = _address(value)
            if self.addresses[i] != address:
                if not np.array_equal(self.held[i], value):
                    return False
                self.held[i], self.addresses[i] = value, address
        return True


def _address(tensor: tf.Tensor) -> int:
    return np.asarray(tensor).__array_interface__["data"][0]


def obstacle(config: Any, tensors: Iterable[tf.Tensor], variable: tf.Variable) -> str | None:
    """The reason why a call is not for the C++ encoder; None if it is.

    Args:
        tensors: the inputs.
        variable: one of the model's.
    """
    if not tf.executing_eagerly():
        return "a graph is being traced"
    if record.could_possibly_record():
        return "a GradientTape records"
    if variable.dtype != tf.float32:
        return f"the model is in {variable.dtype.name}"
    if any("CPU" not in x.device for x in (*tensors, variable)):
        return "the model or its input is not on a CPU"
    return why_not(config)


def compute(
    twin: Twin, words: tf.Variable, arguments: Mapping[str, tf.Tensor], keep_states: bool
) -> tuple[dict[str, Any], Any]:
    """Computes `heads.forward`'s results and the hidden states, or None, of `TOKENS`.

    Args:
        words: the word table.
    """
    tokens = {name: None if value is None else value.numpy() for name, value in arguments.items()}
    embeds = None
    if twin.kind != "ForMaskedLM":
        embeds = tf_ops.take(words, arguments["input_ids"]).numpy()
        del tokens["input_ids"]
    results, states = twin(*map(tokens.get, TOKENS), inputs_embeds=embeds, keep_states=keep_states)
    results = {name: tf.convert_to_tensor(value) for name, value in results.items()}
    return results, None if states is None else tuple(map(tf.convert_to_tensor, states))
