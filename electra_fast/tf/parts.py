"""The parts of a model: Keras layers that hold variables, and compute nothing themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..hub.names import keras_name, keras_parts, torch_name


class Part(keras.layers.Layer):
    """A part of a network: its variables, and the parts within it, by their names in `functional.parameters`.

    They are attributes where Keras has none of that name (`model.electra.embeddings`), and are reached by brackets in
    any case: `model.electra["encoder"]["layer"]["0"]`. A part can be frozen by `trainable = False`.

    Args:
        values: first values, arrays in dictionaries within dictionaries.
        dtype: a dtype or a policy of Keras; None takes the global one.
    """

    def __init__(self, values: Mapping[str, Any], name: str, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self._first_values = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
        self._own: dict[str, keras.Variable] = {}
        self._within = {key: Part(value, key, dtype) for key, value in values.items() if isinstance(value, Mapping)}
        for key, part in self._within.items():
            self._in_checkpoints(key, part)

    def build(self, input_shape: Any = None) -> None:
        for key, value in self._first_values.items():
            self._add(key, value)
        self._first_values = {}  # the variables have them now
        for part in self._within.values():
            part.build()

    def _add(self, key: str, value: np.ndarray) -> None:
        self._own[key] = self.add_weight(
            name=keras_parts(keras_name(torch_name((self.name, key))))[-1],
            shape=value.shape,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
        )
        self._in_checkpoints(key, self._own[key])

    def _in_checkpoints(self, key: str, member: Part | keras.Variable) -> None:
        """Has tf.train.Checkpoint see what Keras sees: it looks at attributes, not into dictionaries."""
        self._track_trackable(member, key, overwrite=True)

    def replace(self, key: str, value: np.ndarray) -> None:
        """Puts a new variable, which may have another shape, in the place of one."""
        self._untrack_variable(self._own.pop(key))
        self._tracker.unlock()  # Keras allows no new variables after `build`
        with self._open_name_scope():
            self._add(key, value)
        self._tracker.lock()

    def tree(self) -> dict[str, Any]:
        """The variables of TensorFlow, in dictionaries within dictionaries."""
        # Keras's own `value` may be a copy in the dtype of computation.
        own = {key: variable._value for key, variable in self._own.items()}
        return own | {key: part.tree() for key, part in self._within.items()}

    def __getitem__(self, key: str) -> Part | keras.Variable:
        return self._within[key] if key in self._within else self._own[key]

    def __getattr__(self, name: str) -> Any:
        for members in ("_within", "_own"):
            if name in (found := self.__dict__.get(members, {})):
                return found[name]
        raise AttributeError(f"{type(self).__name__} {self.__dict__.get('name', '')} has no attribute {name!r}")
