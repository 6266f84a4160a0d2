"""Weights on disk: reading, writing, and fitting a file's keys to a model's.

Tensors have the Hub's names, those of PyTorch, whatever the format of a file: `foreign_weights` has the others. Files
in the wild differ from a model's `state_dict()` in a few known ways, which are put right here and in `names`: LayerNorm
parameters called gamma and beta, `position_ids` buffers that old versions saved, tied tensors that are saved once or
twice, and the prefix `electra.`, which only models with a head have.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..disk import is_stream, made, moved, read_json, removed
from .foreign_weights import (
    FLAX_FILE,
    TF_FILE,
    is_flax,
    is_keras,
    read_flax,
    read_keras,
    torch_tensors,
    write_flax,
    write_keras,
)
from .names import flax_parts, keras_name, keras_parts, origins, torch_name

# Name of the directory that a save writes into first, inside its target; only a killed process leaves one behind.
_SAVING_PREFIX = ".saving-"
# By format: (name of a single file, name of the index of its shards).
FORMATS = {
    "safetensors": ("model.safetensors", "model.safetensors.index.json"),
    "bin": ("pytorch_model.bin", "pytorch_model.bin.index.json"),
    "msgpack": (FLAX_FILE, f"{FLAX_FILE}.index.json"),
    "h5": (TF_FILE, f"{TF_FILE}.index.json"),
}
_PIECE_BYTES = 64 << 20
FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""The dtypes that weights may have."""


def file_names(format: str, variant: str | None = None) -> tuple[str, str]:
    """Names of the weights file and of its index; a variant comes before the last suffix (`model.fp16.safetensors`)."""
    if variant is None:
        return FORMATS[format]
    single, index = (f"{stem}.{variant}.{suffix}" for stem, suffix in (n.rsplit(".", 1) for n in FORMATS[format]))
    return single, index


# Reading


def read_state_dict(
    find: Callable[[str], Path | None],
    formats: Collection[str] = ("safetensors", "bin"),
    variant: str | None = None,
    weights_only: bool = True,
) -> tuple[Path, dict[str, Any]] | None:
    """Reads the first checkpoint that is found: a file, or an index and all its shards.

    Args:
        find: gives the path of a file of the checkpoint, or None where there is no such file.
        formats: the formats to look for, in this order.
        weights_only: whether a `.bin` file may hold only tensors and plain values (a pickle that holds more can run
            code).

    Returns:
        The path of the file or index and its tensors, on the CPU, and what it holds beside them; None where `find`
        found nothing.

    Raises:
        ValueError: a damaged file or one of another kind, a missing shard, an index and shards that disagree.
    """
    for format in formats:
        single, index = file_names(format, variant)
        if (path := find(single)) is not None:
            return path, read_tensors(path, weights_only)
        if (path := find(index)) is not None:
            return path, _read_shards(path, find, weights_only)
    return None


def read_tensors(path: Path, weights_only: bool = True) -> dict[str, Any]:
    """Reads one file of any format; raises ValueError, with its name, if it is damaged or another kind.

    A `.bin` file may hold other values beside its tensors, such as the number of a step.
    """
    if path.suffix in _FOREIGN:
        return _FOREIGN[path.suffix](path)
    if path.suffix == ".safetensors":
        try:
            tensors = _read_safetensors(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
        if is_flax(tensors):
            return torch_tensors(path, ((name, name.split("."), tensor) for name, tensor in tensors.items()))
        if is_keras(tensors):
            return torch_tensors(path, ((name, keras_parts(name), tensor) for name, tensor in tensors.items()))
        return tensors
    try:
        content = torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as error:  # a damaged pickle can fail in any way
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} must be a whole file of torch.save with tensors only, got: {reason}") from error
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} must hold a dictionary of tensors, got a {type(content).__name__} of other things")
    if unnamed := [key for key in content if not isinstance(key, str)]:
        raise ValueError(f"{path} must hold tensors by their names, got the key {unnamed[0]!r}")
    return dict(content)


_FOREIGN = {Path(FLAX_FILE).suffix: read_flax, Path(TF_FILE).suffix: read_keras}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads the tensors into memory of their own.

    The file is mapped anew for each piece of them, since pages that were read stay with a mapping: the weights would be
    in memory twice.
    """
    tensors: dict[str, Tensor] = {}
    names, seen = None, None
    while names is None or names:
        with safe_open(path, framework="pt") as file:
            about = os.stat(path)
            now = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
            names, seen = names or sorted(file.keys(), reverse=True), seen or now
            if now != seen:
                raise OSError("the file was changed while it was read")
            n_bytes = 0
            while names and n_bytes < _PIECE_BYTES:
                name = names.pop()
                tensors[name] = file.get_tensor(name).clone()
                n_bytes += tensors[name].nbytes
    return tensors


def _read_shards(index: Path, find: Callable[[str], Path | None], weights_only: bool) -> dict[str, Any]:
    try:
        weight_map = {_torch_key(index, key): shard for key, shard in read_json(index)["weight_map"].items()}
        shards = sorted(set(weight_map.values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} must be JSON with a 'weight_map' of names to files, got: {error!r}") from error
    if outside:
        raise ValueError(f"{index} must name files of its own directory, got {outside[0]!r}")
    state: dict[str, Any] = {}
    for shard in shards:
        path = find(shard)
        if path is None:
            raise ValueError(f"{index} names the shard {shard}, which is missing")
        tensors = read_tensors(path, weights_only)
        if twice := sorted(state.keys() & tensors.keys()):
            raise ValueError(f"{index} must name files with tensors of their own, got {twice[0]} in two of them")
        state |= tensors
    if absent := sorted(set(weight_map) - set(state)):
        raise ValueError(f"{index} promises {absent[0]}, but {weight_map[absent[0]]} does not hold it")
    return state


def _torch_key(index: Path, key: str) -> str:
    """A name in an index by PyTorch's rules."""
    if is_keras((key,)):
        return torch_name(keras_parts(key)[1:])  # without the model's name
    return torch_name(key.split("/")) if index.name.startswith(Path(FLAX_FILE).stem) else key


# Fitting


@dataclass
class Fit:
    """The result of fitting a checkpoint's tensors to a model's; keys are the model's where it has them."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    """Tuples of key, shape in the checkpoint and shape in the model."""

    def check(self, source: str | Path, class_name: str, ignore_mismatched_sizes: bool) -> None:
        """Raises ValueError if the checkpoint has no tensor of the model, or shapes differ that must not."""
        if not self.tensors and not self.mismatched:
            held = ", ".join(self.unexpected[:3]) or "no tensors"
            raise ValueError(f"{source} must hold tensors of {class_name}, got {held}: another model's file")
        if self.mismatched and not ignore_mismatched_sizes:
            shapes = "; ".join(f"{key} must be {list(own)}, got {list(found)}" for key, found, own in self.mismatched)
            hint = "ignore_mismatched_sizes=True initialises these anew"
            raise ValueError(f"{source} does not have the shapes of this {class_name}: {shapes}. {hint}")

    def loading_info(self) -> dict[str, Any]:
        """The keys that did not fit, as `from_pretrained` gives them with `output_loading_info`."""
        return {
            "missing_keys": set(self.missing),
            "unexpected_keys": set(self.unexpected),
            "mismatched_keys": set(self.mismatched),
            "error_msgs": [],
        }

    def describe(self, class_name: str) -> list[str]:
        """Lines for the user about tensors that were not loaded; none if every tensor found its place."""
        lines = []
        for held, wanted, does, cannot in (
            ("discriminator", "generator", "tells replaced tokens", "fill masks"),
            ("generator", "discriminator", "fills masks", "tell replaced tokens"),
        ):
            if _has_head(self.unexpected, held) and _has_head(self.missing, wanted):
                lines.append(f"this is a {held}: it {does} and cannot {cannot}; load the {wanted} for that")
        if self.missing:
            lines.append(f"newly initialised, train before use: {', '.join(self.missing)}")
        if self.mismatched:
            shapes = (f"{key} ({list(found)} there, {list(own)} here)" for key, found, own in self.mismatched)
            lines.append(f"newly initialised since the shapes differ, train before use: {', '.join(shapes)}")
        if self.unexpected:
            lines.append(f"no part of {class_name}, left out: {', '.join(self.unexpected)}")
        return lines


def differing_ties(state: Mapping[str, Tensor], ties: Mapping[str, str]) -> list[str]:
    """Names whose tensors should be equal by `ties` ({name: the name it shares its tensor with}), but differ."""
    pairs = (
        (tied, origin) for tied, origin in ties.items() if is_weight(state.get(tied)) and is_weight(state.get(origin))
    )
    return [tied for tied, origin in pairs if not torch.equal(state[tied].to(state[origin].dtype), state[origin])]


def is_weight(value: Any) -> bool:
    """Whether a value of a checkpoint is a tensor that can be a weight; `fit` refuses others under a weight's name."""
    return isinstance(value, Tensor) and value.dtype in FLOATING


def merge_ties(state: Mapping[str, Tensor], ties: Mapping[str, str]) -> dict[str, Tensor]:
    """Keeps one of each pair of tied tensors, whichever is there, under the name that they share."""
    state = dict(state)
    for tied, origin in ties.items():
        if tied in state:
            value = state.pop(tied)
            state.setdefault(origin, value)
    return state


def fit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], prefix: str) -> Fit:
    """Matches the tensors of a checkpoint with those of a model's `state_dict()`.

    Args:
        state: the checkpoint's tensors, by their modern names, and what it holds beside them.
        expected: the model's tensors; only names and shapes are used.
        prefix: `electra.`, added to or removed from a name where that makes it one of the model's.

    Raises:
        ValueError: what is no tensor of floating type under the name of one, two tensors for one of the model's.
    """
    result = Fit()
    keys = {
        name: next((k for k in (name, prefix + name, name.removeprefix(prefix)) if k in expected), None)
        for name in state
    }
    origins((key, name) for name, key in keys.items() if key is not None)
    for name, tensor in state.items():
        key = keys[name]
        if key is None:
            result.unexpected.append(name)
        elif obstacle := _why_no_weight(tensor):
            raise ValueError(f"the checkpoint must hold a tensor called {name}, {obstacle}")
        elif tensor.shape != expected[key].shape:
            result.mismatched.append((key, tuple(tensor.shape), tuple(expected[key].shape)))
        else:
            result.tensors[key] = tensor
    found = {*result.tensors, *(key for key, _, _ in result.mismatched)}
    result.missing = [key for key in expected if key not in found]
    return result


def _why_no_weight(value: Any) -> str | None:
    """The reason why a value of a checkpoint cannot be loaded as a weight; None if it can."""
    if not isinstance(value, Tensor):
        return f"got {type(value).__name__}"
    if value.dtype not in FLOATING:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATING)
        got = str(value.dtype).removeprefix("torch.")
        return f"one of {known}, got {got}: weights that are quantized in the file are not supported"
    if value.layout != torch.strided or value.is_meta:
        return f"one with all its values, got {value.layout} on {value.device}"
    if value.nbytes > value.untyped_storage().nbytes():  # a pickle may repeat one value along a size of any length
        return f"one with all its values, got {value.untyped_storage().nbytes():,} bytes for {value.nbytes:,}"
    return None


def _has_head(keys: Collection[str], network: str) -> bool:
    return any(key.startswith(f"{network}_predictions.") for key in keys)


# Writing


def write_checkpoint(
    directory: Path,
    state: Mapping[str, Tensor],
    config_json: str,
    max_shard_size: int | str = "50GB",
    format: str = "safetensors",
    variant: str | None = None,
    replaces: Collection[str] = ("safetensors", "bin"),
    model_name: str = "",
) -> list[str]:
    """Writes config.json and the weights into a directory, in place of the checkpoint of this variant that it holds.

    Its weights in the formats `replaces` are removed. Those in others stay: they are of other frameworks. All names in
    "h5" have the Keras model's in them, `model_name`.

    Everything is first written aside, then renamed into place, so that a file is never half-written. An old index is
    removed before its shards and the new one comes last, so that shards of two saves are never read as one checkpoint.

    Returns:
        The names of the files written.
    """
    single, index_name = file_names(format, variant)
    stem, suffix = single.rsplit(".", 1)
    split = split_state_dict_into_shards_factory(
        state,
        get_storage_size=lambda tensor: tensor.nbytes,
        filename_pattern=f"{stem}{{suffix}}.{suffix}",
        max_shard_size=max_shard_size,
    )
    names = [*split.filename_to_tensors, "config.json"]
    made(directory)
    with TemporaryDirectory(prefix=_SAVING_PREFIX, dir=directory) as aside:
        for name, keys in split.filename_to_tensors.items():
            _write_tensors(Path(aside, name), {key: state[key] for key in keys}, model_name, split.is_sharded)
        Path(aside, "config.json").write_text(config_json, encoding="utf-8")
        mode = Path(aside, "config.json").stat().st_mode
        if split.is_sharded:
            weight_map = split.tensor_to_filename
            if format == "msgpack":
                weight_map = {"/".join(flax_parts(name)): shard for name, shard in weight_map.items()}
            if format == "h5":
                weight_map = {f"{model_name}/{keras_name(name)}": shard for name, shard in weight_map.items()}
            index = {"metadata": split.metadata, "weight_map": weight_map}
            Path(aside, index_name).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            names.append(index_name)
            removed(directory / index_name)
        for name in names:
            # safetensors writes files that only their owner can read; the config has the mode of the user's umask.
            os.chmod(Path(aside, name), mode)
            with open(Path(aside, name), "rb") as file:
                os.fsync(file.fileno())
            moved(Path(aside, name), directory / name)
    _remove_stale(directory, variant, replaces, keep=names)
    return names


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], model_name: str, is_shard: bool) -> None:
    # A view would be saved with the whole tensor behind it, or refused: so we clone.
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    if path.suffix == Path(FLAX_FILE).suffix:
        write_flax(path, tensors)
        return
    if path.suffix == Path(TF_FILE).suffix:
        write_keras(path, tensors, model_name, is_shard)
        return
    if path.suffix != ".safetensors":
        torch.save(tensors, path)
        return
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"{path.name} could not be written into {path.parent.parent}: {error}") from error


def _remove_stale(directory: Path, variant: str | None, formats: Collection[str], keep: Collection[str]) -> None:
    """Removes files of older checkpoints of this variant, so that no reader prefers them or mixes them in."""
    for format in formats:
        names = file_names(format, variant)
        stem, suffix = names[0].rsplit(".", 1)
        shard = re.compile(rf"{re.escape(stem)}-\d{{5}}-of-\d{{5}}\.{suffix}")
        for path in directory.iterdir():
            is_stale = (path.name in names or shard.fullmatch(path.name)) and path.name not in keep
            if is_stale and not is_stream(path):
                path.unlink()
