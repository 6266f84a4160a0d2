"""from_pretrained, save_pretrained and push_to_hub of the TFElectra classes, SavedModel, and batches of a data set."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..functional.files import PushMixin, on_paper
from ..functional.parameters import flatten
from ..functional.twin import to_torch
from ..hub.files import push_directory
from ..hub.names import TRANSPOSED, modern_names, torch_name
from ..hub.weights import fit, write_checkpoint
from ..model.config import ElectraConfig
from ..model.pretrained import (
    PUSH_OPTIONS,
    TIED_HEAD,
    read_weights,
    refuse_quantized,
    resolve_config,
    tied_state,
    warn_of_misfits,
)

_PREFIX = "electra."


class TFHubMixin(PushMixin):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for a TFElectra class."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *model_args: Any,
        config: ElectraConfig | str | os.PathLike | None = None,
        cache_dir: str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        subfolder: str = "",
        use_safetensors: bool | None = None,
        from_pt: bool = False,
        output_loading_info: bool = False,
        seed: int | None = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Loads a model from a directory or the Hub, from files of any framework; hub/weights.py has the rules.

        One warning lists parameters that the checkpoint lacks or holds beyond the model.

        Args:
            pretrained_model_name_or_path: a directory or a repository.
            config: a config in place of the checkpoint's config.json, or the place to read one from.
            ignore_mismatched_sizes: give fresh values to parameters whose shapes differ, in place of an error.
            use_safetensors: True for safetensors only, False for any other file; None takes TensorFlow's file where
                there are several.
            from_pt: take PyTorch's file where there are several.
            output_loading_info: return also the missing, unexpected and mismatched keys.
            seed: of fresh values and dropout.
            name: the Keras model's name.
            dtype: a dtype or a policy of Keras, such as "mixed_bfloat16"; None takes the global one.
            **kwargs: fields of the config, which override it.

        Raises:
            FileNotFoundError: no such model, or no weights in it.
            ValueError: a damaged file, weights that do not fit, another model's config.
            TypeError: a keyword that is no field of the config.
        """
        options = {
            "subfolder": subfolder,
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        config = resolve_config(config, pretrained_model_name_or_path, options, kwargs)
        refuse_quantized(config, "the config")
        formats = _formats(use_safetensors, from_pt)
        source, state = read_weights(pretrained_model_name_or_path, options, formats)
        state, _, notes = tied_state(config, modern_names(state), TIED_HEAD)

        model = cls(config, *model_args, seed=seed, name=name, dtype=dtype)
        variables = {torch_name(path): (path, variable) for path, variable in flatten(model.tree())}
        expected = {key: on_paper(path, variable.shape.as_list()) for key, (path, variable) in variables.items()}
        fitted = fit(state, expected, _PREFIX)
        fitted.check(source, cls.__name__, ignore_mismatched_sizes)
        for key, tensor in fitted.tensors.items():
            path, variable = variables[key]
            tensor = tensor.t() if path[-1] == TRANSPOSED else tensor
            variable.assign(tf.cast(tensor.float().numpy(), variable.dtype))
        warn_of_misfits(source, cls.__name__, [*fitted.describe(cls.__name__), *notes])
        config._name_or_path = str(pretrained_model_name_or_path)
        return (model, fitted.loading_info()) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        saved_model: bool = False,
        version: int | str = 1,
        push_to_hub: bool = False,
        signatures: Any = None,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = False,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes config.json and the weights; classes of any framework and transformers load the directory unchanged.

        Args:
            save_directory: directory to write into, created if need be; a file of the same kind is replaced.
            saved_model: also write a SavedModel for TensorFlow Serving to saved_model/`version`.
            version: name of the SavedModel's directory.
            push_to_hub: also upload config and weights, to `repo_id` or else a repository named like the directory.
            signatures: those of the SavedModel, in place of `serving` on int32 (serving_default) and on int64
                (int64_serving).
            max_shard_size: size of the files that a larger checkpoint is split into, "5GB" or a number of bytes.
            safe_serialization: False writes tf_model.h5, True model.safetensors with PyTorch's names.
            **kwargs: the arguments of `push_directory`, with `push_to_hub`.
        """
        push = {name: kwargs.pop(name) for name in PUSH_OPTIONS if push_to_hub and name in kwargs}
        if kwargs:
            raise TypeError(f"save_pretrained got unexpected keyword arguments: {', '.join(sorted(kwargs))}")
        directory = Path(save_directory)
        state = dict(to_torch(path, variable.numpy()) for path, variable in flatten(self.tree()))
        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__.removeprefix("TF")]
        config.dtype = next(iter(state.values())).dtype
        # Weights of PyTorch beside tf_model.h5 stay; model.safetensors is the file of all frameworks.
        format, replaces = "safetensors", ("safetensors", "bin", "h5")
        if not safe_serialization:
            format, replaces = "h5", ("h5",)
            # The base model's names have the prefix here, as those of other classes do.
            state = {key if self.kind != "Model" else _PREFIX + key: tensor for key, tensor in state.items()}
        files = write_checkpoint(
            directory, state, config.to_json_string(), max_shard_size, format, replaces=replaces, model_name=self.name
        )
        if saved_model:
            save_saved_model(self, directory / "saved_model" / str(version), signatures)
        if push_to_hub:
            push_directory(directory, push.pop("repo_id", directory.name), token=token, files=files, **push)

    # Serving

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs of `serving`: integers with any sizes."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: tf.TensorSpec([None] * self.n_dims, tf.int32, name) for name in names}

    @property
    def dummy_inputs(self) -> dict[str, tf.Tensor]:
        ids = np.array([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]]) % self.config.vocab_size
        return {"input_ids": tf.constant(ids if self.n_dims == 2 else ids[None])}

    def serving(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Computes the model for TensorFlow Serving: tuples of tensors are stacked, and a cache is left out."""
        output = self(dict(inputs), training=False, return_dict=True)
        return {
            name: tf.stack(value) if isinstance(value, tuple) else value
            for name, value in output.items()
            if name != "past_key_values"
        }


def save_saved_model(model: Any, directory: Path, signatures: Any = None) -> None:
    """Writes a SavedModel of a model's `serving`, with dynamic batch size and length."""
    serving = tf.function(model.serving)
    if signatures is None:
        specs = model.input_signature
        long = {name: tf.TensorSpec(spec.shape, tf.int64, name) for name, spec in specs.items()}
        signatures = {
            "serving_default": serving.get_concrete_function(specs),
            "int64_serving": serving.get_concrete_function(long),
        }
    module = tf.Module()  # the model itself has more than what is served: its optimizer, its metrics
    module.serving = serving
    module.parameters = [variable for _, variable in flatten(model.tree())]
    module.seeds = model._seeds.state._value
    tf.saved_model.save(module, os.fspath(directory), signatures=signatures)


def _formats(use_safetensors: bool | None, from_pt: bool) -> tuple[str, ...]:
    """Formats of weights in the order in which they are looked for."""
    if use_safetensors:
        return ("safetensors",)
    formats = ("safetensors", "bin", "h5", "msgpack") if from_pt else ("h5", "safetensors", "bin", "msgpack")
    return tuple(name for name in formats if name != "safetensors" or use_safetensors is None)
