"""from_pretrained, save_pretrained and push_to_hub of the Flax classes: the same files as of the PyTorch classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from ..functional.files import PushMixin, on_paper
from ..functional.parameters import unflatten
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

# Formats of weights in the order in which they are looked for, by whether PyTorch's come first.
_FORMATS = {False: ("msgpack", "safetensors", "bin", "h5"), True: ("safetensors", "bin", "msgpack", "h5")}


class FlaxHubMixin(PushMixin):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for a Flax class."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        dtype: Any = jnp.float32,
        *model_args: Any,
        config: ElectraConfig | str | os.PathLike | None = None,
        cache_dir: str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        subfolder: str = "",
        from_pt: bool = False,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        _do_init: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Loads a model from a directory or the Hub, from files of any framework; hub/weights.py has the rules.

        One warning lists parameters that the checkpoint lacks or holds beyond the model.

        Args:
            pretrained_model_name_or_path: a directory or a repository.
            dtype: of the arithmetic; parameters have the file's.
            config: a config in place of the checkpoint's config.json, or the place to read one from.
            ignore_mismatched_sizes: give fresh values to parameters whose shapes differ, in place of an error.
            from_pt: take PyTorch's file where there are several, not Flax's.
            _do_init: False returns (model, parameters), without those that the checkpoint lacks.
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
        source, state = read_weights(pretrained_model_name_or_path, options, _FORMATS[from_pt])
        state, _, notes = tied_state(config, modern_names(state), TIED_HEAD)

        model_options = {"seed": seed, "dtype": dtype, "gradient_checkpointing": gradient_checkpointing}
        model = cls(config, *model_args, **model_options, _do_init=False)
        names = {torch_name(path): path for path in model._layout.shapes}
        expected = {name: on_paper(path, model._layout.shapes[path]) for name, path in names.items()}
        fitted = fit(state, expected, f"{cls.base_model_prefix}.")
        fitted.check(source, cls.__name__, ignore_mismatched_sizes)
        warn_of_misfits(source, cls.__name__, [*fitted.describe(cls.__name__), *notes])
        params = unflatten({names[name]: _to_jax(names[name], tensor) for name, tensor in fitted.tensors.items()})
        config._name_or_path = str(pretrained_model_name_or_path)
        if not _do_init:
            return model, params
        model._is_initialized = True
        model.params = model.init_weights(model.key, params=params) if len(fitted.tensors) < len(expected) else params
        return model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        params: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "10GB",
        token: str | bool | None = None,
        safe_serialization: bool = False,
        **kwargs: Any,
    ) -> None:
        """Writes config.json and the weights; the PyTorch classes and transformers load the directory unchanged.

        Args:
            save_directory: directory to write into, created if need be; a file of the same kind is replaced.
            params: parameters to write in place of the model's own.
            push_to_hub: also upload the files, to `repo_id` or else a repository named like the directory.
            max_shard_size: size of the files that a larger checkpoint is split into, "5GB" or a number of bytes.
            safe_serialization: False writes flax_model.msgpack, True model.safetensors with PyTorch's names.
            **kwargs: the arguments of `push_directory`, with `push_to_hub`.

        Raises:
            ValueError: parameters of another model.
        """
        push = {name: kwargs.pop(name) for name in PUSH_OPTIONS if push_to_hub and name in kwargs}
        if kwargs:
            raise TypeError(f"save_pretrained got unexpected keyword arguments: {', '.join(sorted(kwargs))}")
        leaves = self._layout.leaves_of(self.params if params is None else params)
        state = dict(to_torch(path, np.asarray(value)) for path, value in leaves.items())
        config = copy.deepcopy(self.config)
        config.architectures = [type(self).__name__.removeprefix("Flax")]
        config.dtype = next(iter(state.values())).dtype
        directory = Path(save_directory)
        # Weights of PyTorch beside flax_model.msgpack stay; model.safetensors is the file of all frameworks.
        format, replaces = ("safetensors", ("safetensors", "bin", "msgpack"))
        if not safe_serialization:
            format, replaces = ("msgpack", ("msgpack",))
        files = write_checkpoint(directory, state, config.to_json_string(), max_shard_size, format, replaces=replaces)
        if push_to_hub:
            push_directory(directory, push.pop("repo_id", directory.name), token=token, files=files, **push)


def _to_jax(path: tuple[str, ...], tensor: Tensor) -> jax.Array:
    tensor = tensor.t() if path[-1] == TRANSPOSED else tensor
    if tensor.dtype == torch.bfloat16:
        return jnp.array(tensor.contiguous().view(torch.int16).numpy().view(jnp.bfloat16))
    return jnp.array(tensor.numpy())
