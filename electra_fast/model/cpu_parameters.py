"""What the C++ encoder reads of a model: its parts and parameters, and whether they are such as it knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..ops import cpu
from ..ops.reference import is_erf_gelu
from .hooks import has_global_hooks, is_hooked
from .prepacked import PrepackedParameter
from .qkv import NAMES


def why_not_for(config: Any) -> str | None:
    """The reason why a model of this config, ours or transformers', is not for the encoder in C++; None if it is."""
    if not is_erf_gelu(config.hidden_act):
        return f"the activation is {config.hidden_act}"
    if getattr(config, "add_cross_attention", False):
        return "the model has cross-attention"
    return None


class Parameters:
    """The parts and parameters of a model, as they are at one time.

    Attributes:
        edges: (parent, name, child) of every module below the model, by its path.
        places: (owner, name there, parameter) of every parameter, by its path.
        plain: the parameters that are not prepacked.
        tensors: tensors of our own with the memory of these, whatever becomes of the parameters.
        versions: their versions; those that were made in inference mode have none.
    """

    def __init__(self, model: nn.Module):
        self.edges = _edges(model)
        self.places = {
            f"{path}.{name}": (part, name, parameter)
            for path, (_, _, part) in self.edges.items()
            for name, parameter in list(part._parameters.items())
            if parameter is not None
        }
        self.plain = {
            path: parameter
            for path, (_, _, parameter) in self.places.items()
            if type(parameter) is not PrepackedParameter
        }
        self.versions = {path: x._version for path, x in self.plain.items() if not x.is_inference()}
        self.tensors = {path: parameter.data for path, parameter in self.plain.items()}
        self.n_layers = sum(path.startswith("encoder.layer.") and path.count(".") == 2 for path in self.edges)

    def replace(self, path: str, prepacked: PrepackedParameter) -> None:
        """Puts a prepacked parameter in the place of a plain one, here and in the model."""
        part, name, _ = self.places[path]
        part._parameters[name] = prepacked
        self.places[path] = part, name, prepacked
        for known in (self.plain, self.tensors, self.versions):
            known.pop(path, None)


def projections(parameters: Parameters) -> list[str]:
    return [name for name in ("embeddings_project",) if name in parameters.edges]


def _edges(model: nn.Module) -> dict[str, tuple[nn.Module, str, nn.Module]]:
    """(parent, name, child) of every module below, by its path."""
    parts: list[tuple[str, nn.Module]] = [("", model)]
    edges = {}
    for path, part in parts:  # grows while we walk it: breadth first
        below = {path + name: (part, name, child) for name, child in list(part._modules.items()) if child is not None}
        parts.extend((f"{path}.", child) for path, (_, _, child) in below.items())
        edges |= below
    return edges


def why_not_modules(config: Any, parameters: Parameters) -> str | None:
    if reason := why_not_for(config):
        return reason
    if has_global_hooks():
        return "all modules have hooks"
    for _, _, part in parameters.edges.values():
        if part.training or is_hooked(part):
            return f"a {type(part).__name__} is in training mode, has hooks or a forward of its own"
        if type(part).__module__ not in _KNOWN_MODULES:
            return f"a part is a {type(part).__module__}.{type(part).__name__}"
    return None


def why_not_copied(config: Any, parameters: Parameters) -> str | None:
    for path, shape in _shapes(config, parameters).items():
        if path not in parameters.places:
            return f"{path} is missing"
        if type(parameters.places[path][2]) is not nn.Parameter:
            return f"{path} is a {type(parameters.places[path][2]).__name__}"
        if reason := cpu.unfit(parameters.tensors[path], torch.float32, shape):
            return f"{path} {reason}"
    return None


def _shapes(config: Any, parameters: Parameters) -> dict[str, tuple[int, ...]]:
    """The shapes that the copied parameters must have, by path. Tables have any number of rows."""
    width, inner, narrow = config.hidden_size, config.intermediate_size, config.embedding_size
    shapes: dict[str, tuple[int, ...]] = {}
    for kind in ("word", "token_type", "position"):
        path = f"embeddings.{kind}_embeddings.weight"
        shapes[path] = (*parameters.tensors[path].shape[:1], narrow) if path in parameters.tensors else ()
    linears = {path: (width, narrow) for path in projections(parameters)}
    norms = {"embeddings.LayerNorm": narrow}
    for i in range(parameters.n_layers):
        layer = f"encoder.layer.{i}"
        linears |= {f"{layer}.attention.self.{name}": (width, width) for name in NAMES}
        linears[f"{layer}.attention.output.dense"] = width, width
        linears[f"{layer}.intermediate.dense"] = inner, width
        linears[f"{layer}.output.dense"] = width, inner
        norms |= {f"{layer}.attention.output.LayerNorm": width, f"{layer}.output.LayerNorm": width}
    for path, shape in linears.items():
        shapes |= {f"{path}.weight": shape, f"{path}.bias": shape[:1]}
    for path, size in norms.items():
        shapes |= {f"{path}.weight": (size,), f"{path}.bias": (size,)}
    return shapes


# Modules of the classes with formulas that we know. transformers' classes have parts of the same names as ours.
_KNOWN_MODULES = (
    f"{__package__}.layers",
    "transformers.models.electra.modeling_electra",
    "transformers.activations",
    *(kind.__module__ for kind in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)),
)
