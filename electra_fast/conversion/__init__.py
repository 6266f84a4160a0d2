"""Conversion of checkpoints: from and to Google's TensorFlow 1 and KerasHub, and from BERT, Keras and Flax."""

from .convert import convert_to_hub, convert_to_keras_hub, convert_to_tf1
from .tf1_bundle import Tf1Bundle, write_bundle

__all__ = ["Tf1Bundle", "convert_to_hub", "convert_to_keras_hub", "convert_to_tf1", "write_bundle"]
