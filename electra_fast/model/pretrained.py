"""from_pretrained, save_pretrained and push_to_hub of the models."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import huggingface_hub
import torch
from torch import Tensor

from ..hub.files import find_file, push_directory
from ..hub.names import modern_names
from ..hub.weights import (
    FLOATING,
    FORMATS,
    differing_ties,
    file_names,
    fit,
    is_weight,
    merge_ties,
    read_state_dict,
    write_checkpoint,
)
from .config import ElectraConfig
from .without_values import WithoutValues

PUSH_OPTIONS = ("repo_id", "private", "revision", "commit_message", "create_pr")
# Keywords of transformers that choose between ways of doing a thing, where we have one way only.
_NO_EFFECT_ON_LOADING = (
    "attn_implementation",
    "disable_mmap",
    "experts_implementation",
    "low_cpu_mem_usage",
    "trust_remote_code",
    "use_kernels",
)
TIED_HEAD = {"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"}
"""The tie of the heads that predict tokens: {name: the name it shares its tensor with}."""
_NO_EFFECT_ON_SAVING = ("save_function", "save_original_format", "save_peft_format")


class CheckpointWarning(UserWarning):
    """Warning that a checkpoint and the model loaded from it hold different tensors."""


def load_complete(model_class: type[HubMixin], path: str | os.PathLike, what: str, **options: Any) -> Any:
    """Loads a whole model by `from_pretrained`; further tensors of the checkpoint are left out without a warning.

    Args:
        what: name of the kind of checkpoint that is expected, for the error.
        options: further arguments of `from_pretrained`.

    Raises:
        ValueError: a checkpoint that lacks a part of the model; besides what `from_pretrained` raises.
    """
    with warnings.catch_warnings():
        # Missing tensors raise below; further ones are meant to be left out.
        warnings.simplefilter("ignore", CheckpointWarning)
        model, loaded = model_class.from_pretrained(path, output_loading_info=True, **options)
    if loaded["missing_keys"]:
        raise ValueError(f"{path} must be {what}, but lacks {', '.join(sorted(loaded['missing_keys']))}")
    return model


def refuse_quantized(config: ElectraConfig, what: str) -> None:
    """Raises ValueError for a config whose weights are to be read by the rules of a library for quantization."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ValueError(
            f"{what} must have no quantization_config, got {method!r:.80}: weights that are quantized in the file are "
            f"not supported; dtype='int8' quantizes plain ones"
        )


class HubMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub`, for a torch module with a `config` and `tie_weights`."""

    base_model_prefix = "electra"
    _tied_weights_keys: Mapping[str, str] = {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        config: ElectraConfig | str | os.PathLike | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        cache_dir: str | os.PathLike | None = None,
        ignore_mismatched_sizes: bool = False,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        subfolder: str = "",
        use_safetensors: bool | None = None,
        weights_only: bool = True,
        variant: str | None = None,
        dtype: str | torch.dtype | None = "auto",
        device_map: str | int | torch.device | dict[str, Any] | None = None,
        output_loading_info: bool = False,
        key_mapping: Mapping[str, str] | None = None,
        impl: str = "auto",
        **kwargs: Any,
    ):
        """Loads a model, in eval mode, from a directory or the Hub.

        One warning lists tensors that the checkpoint lacks or holds beyond the model; hub/weights.py has the rules.

        Args:
            pretrained_model_name_or_path: a directory or a repository; None if `config` and `state_dict` are given.
            config: a config in place of the checkpoint's config.json, or the place to read one from.
            state_dict: weights in place of the checkpoint's.
            ignore_mismatched_sizes: give fresh values to parameters whose shapes differ, in place of an error.
            use_safetensors: True for safetensors only, False for `.bin` only, None for the first that exists of
                safetensors, `.bin`, flax_model.msgpack and tf_model.h5.
            variant: part of the file's name; "fp16" reads `model.fp16.safetensors`.
            dtype: "auto" takes the config's or else the weights' own; None is float32; "int8" is a model in float32
                after `quantize("int8")`. `torch_dtype` is the same argument.
            device_map: the device of the whole model; "auto" is CUDA where there is one.
            output_loading_info: return also the missing, unexpected and mismatched keys.
            key_mapping: patterns of names in the checkpoint, and their replacements.
            impl: which code serves the ops: "auto", "triton" or "torch".
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
        dtype = kwargs.pop("torch_dtype", dtype)
        device = resolve_device(device_map)
        _warn_without_effect(kwargs, _NO_EFFECT_ON_LOADING)
        formats = {None: tuple(FORMATS), True: ("safetensors",), False: ("bin",)}[use_safetensors]
        config = resolve_config(config, pretrained_model_name_or_path, options, kwargs)
        refuse_quantized(config, "the config")

        source = "state_dict"
        if state_dict is None:
            source, state_dict = read_weights(pretrained_model_name_or_path, options, formats, variant, weights_only)
        state, ties, notes = tied_state(config, modern_names(state_dict, key_mapping), cls._tied_weights_keys)
        in_bytes = dtype in ("int8", torch.int8)
        dtype = torch.float32 if in_bytes else _resolve_dtype(dtype, config, state)

        # First make names and shapes alone: drawing initial values takes longer than loading others over them.
        with torch.device("meta"), WithoutValues():
            model = cls(config, *model_args, impl=impl).to(dtype)
        expected = {key: tensor for key, tensor in model.state_dict().items() if key not in ties}
        fitted = fit(state, expected, f"{cls.base_model_prefix}.")
        fitted.check(source, cls.__name__, ignore_mismatched_sizes)
        if len(fitted.tensors) == len(expected) and not list(model.buffers()):
            # Tensors of these files have memory of their own, which the model keeps.
            is_ours = isinstance(source, Path) and ".safetensors" in source.name
            model.load_state_dict(
                {k: x.to(device, dtype, copy=not is_ours).contiguous() for k, x in fitted.tensors.items()},
                strict=False,
                assign=True,
            )
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the first model has given them
                model = cls(config, *model_args, impl=impl).to(device, dtype)
            model.load_state_dict(fitted.tensors, strict=False)
        model.tie_weights()
        warn_of_misfits(source, cls.__name__, [*fitted.describe(cls.__name__), *notes])

        model.config.dtype = dtype
        model.config._name_or_path = "" if pretrained_model_name_or_path is None else str(pretrained_model_name_or_path)
        model.eval()
        if in_bytes:
            model.quantize("int8")
        if not output_loading_info:
            return model
        return model, fitted.loading_info()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "50GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        token: str | bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes config.json and the weights under the Hub's names; transformers loads the directory unchanged.

        Args:
            save_directory: directory to write into, created if need be; a checkpoint of the same variant is replaced.
            is_main_process: False writes nothing, for all but one process of a distributed run.
            state_dict: weights to write in place of the model's own.
            push_to_hub: also upload the files, to `repo_id` or else a repository named like the directory.
            max_shard_size: size of the files that a larger checkpoint is split into, "5GB" or a number of bytes.
            safe_serialization: False writes `pytorch_model.bin`.
            **kwargs: the arguments of `push_directory`, with `push_to_hub`.
        """
        directory = Path(save_directory)
        push = {name: kwargs.pop(name) for name in PUSH_OPTIONS if push_to_hub and name in kwargs}
        _warn_without_effect(kwargs, _NO_EFFECT_ON_SAVING)
        if kwargs:
            raise TypeError(f"save_pretrained got unexpected keyword arguments: {', '.join(sorted(kwargs))}")
        if not is_main_process:
            return
        state = dict(self.state_dict() if state_dict is None else state_dict)
        config = copy.deepcopy(self.config)
        if config.tie_word_embeddings:
            for tied, origin in self._tied_weights_keys.items():
                if origin in state:
                    state.pop(tied, None)
        config.architectures = [type(self).__name__]
        config.dtype = next((t.dtype for t in state.values() if t.is_floating_point()), None)
        format = "safetensors" if safe_serialization else "bin"
        files = write_checkpoint(directory, state, config.to_json_string(), max_shard_size, format, variant)
        if push_to_hub:
            push_directory(directory, push.pop("repo_id", directory.name), token=token, files=files, **push)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload ELECTRA",
        create_pr: bool = False,
        **kwargs: Any,
    ) -> huggingface_hub.CommitInfo:
        """Uploads the model to a repository of the Hub; further keywords are those of `save_pretrained`."""
        with TemporaryDirectory() as directory:
            self.save_pretrained(directory, **kwargs)
            return push_directory(
                directory,
                repo_id,
                token=token,
                private=private,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
                files=os.listdir(directory),
            )


def _warn_without_effect(kwargs: dict[str, Any], names: tuple[str, ...]) -> None:
    given = [name for name in names if kwargs.pop(name, None)]
    if given:
        warnings.warn(f"no effect here: {', '.join(given)}", stacklevel=3)


def resolve_config(
    config: ElectraConfig | str | os.PathLike | None,
    name_or_path: str | os.PathLike | None,
    options: dict[str, Any],
    overrides: dict[str, Any],
) -> ElectraConfig:
    """The config that `from_pretrained` was given or finds, with fields overridden.

    Raises:
        FileNotFoundError: no config.json.
        TypeError: an override that is no field of the config.
    """
    if config is None and name_or_path is None:
        raise ValueError(
            "pretrained_model_name_or_path must be a directory or a model on the Hub, got None and no config"
        )
    if config is None:
        config = ElectraConfig.from_pretrained(name_or_path, **options)
    elif isinstance(config, (str, os.PathLike)):
        config = ElectraConfig.from_pretrained(config, **options)
    elif not isinstance(config, ElectraConfig):  # transformers' own
        config = ElectraConfig.from_dict(config.to_dict())
    fields = copy.deepcopy(vars(config))
    if unknown := sorted(set(overrides) - {*fields, "num_labels"}):
        raise TypeError(f"from_pretrained got keyword arguments that are no fields of the config: {', '.join(unknown)}")
    return type(config)(**{**fields, **overrides})


def read_weights(
    name_or_path: str | os.PathLike,
    options: dict[str, Any],
    formats: Collection[str],
    variant: str | None = None,
    weights_only: bool = True,
) -> tuple[Path, dict[str, Tensor]]:
    """Reads the first checkpoint of these formats that a directory or repository holds: its file and its tensors.

    Raises:
        FileNotFoundError: no weights in these formats.
        ValueError: a damaged file.
    """
    find = partial(find_file, name_or_path, required=False, **options)
    found = read_state_dict(find, formats, variant, weights_only)
    if found is None:
        names = ", ".join(name for format in formats for name in file_names(format, variant))
        if os.path.isdir(name_or_path):
            raise FileNotFoundError(f"{Path(name_or_path, options['subfolder'])} must hold weights, one of {names}")
        raise FileNotFoundError(
            f"{name_or_path} must hold weights, one of {names}; none is cached or can be downloaded"
        )
    return found


def tied_state(
    config: ElectraConfig, state: Mapping[str, Tensor], ties: Mapping[str, str]
) -> tuple[dict[str, Tensor], Mapping[str, str], list[str]]:
    """A checkpoint with one of each pair of tied tensors, the ties that hold, and what to tell the user.

    Where tensors differ that `config` ties, it ties them no more.
    """
    notes = []
    if config.tie_word_embeddings and (differing := differing_ties(state, ties)):
        config.tie_word_embeddings = False
        notes = [f"not tied to the word table, since it differs: {', '.join(differing)}"]
    ties = ties if config.tie_word_embeddings else {}
    return merge_ties(state, ties), ties, notes


def warn_of_misfits(source: str | os.PathLike, class_name: str, notes: list[str]) -> None:
    """Warns the caller of `from_pretrained` once of all tensors that were not loaded."""
    if notes:
        message = "\n  ".join([f"{source} does not fit {class_name} exactly:", *notes])
        warnings.warn(message, CheckpointWarning, stacklevel=3)


def _resolve_dtype(dtype: str | torch.dtype | None, config: ElectraConfig, state: Mapping[str, Tensor]) -> torch.dtype:
    if dtype == "auto":
        own = next((x.dtype for x in state.values() if is_weight(x)), None)
        dtype = config.dtype if config.dtype is not None else own
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype.removeprefix("torch."), dtype)
    if dtype is None:
        dtype = torch.float32
    if dtype not in FLOATING:
        raise ValueError(
            f"dtype must be 'auto', 'int8' or a floating type of at least 16 bits such as 'bfloat16', got {dtype!r}"
        )
    return dtype


def resolve_device(device_map: str | int | torch.device | dict[str, Any] | None) -> torch.device:
    """The device that a whole model goes to; "auto" is CUDA where there is one, None torch's default device."""
    device = device_map
    if isinstance(device, dict):
        if set(device) != {""}:
            raise ValueError(f"device_map must place the whole model, as {{'': device}}, got {device_map!r}")
        device = device[""]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device is None:
        return torch.get_default_device()
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device_map must name a device, 'auto' or {{'': device}}, got {device_map!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device_map is {device_map!r}, but torch sees no CUDA device on this machine")
    return device
