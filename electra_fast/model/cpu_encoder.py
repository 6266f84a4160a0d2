"""The C++ encoder for inference on a CPU (csrc/cpu): when it can serve a call, and its copy of the weights.

One call computes all layers on packed tokens, with torch's number of threads. Linear layers are copied into the order
in which they are read, and so are LayerNorms; tables are read where the parameters are, before the GIL is released.
Before each call the copy is compared with the model by the versions and addresses of the parameters, and by a few of
their values, since `parameter.data` changes them behind torch's back; a model that has changed is copied again.

Threads may call a model, change it and find its copy outdated at the same time. So a call keeps the copy that it began
with, a copy is made of tensors that share the parameters' memory and keep it alive, and one thread at a time makes one.
"""

from __future__ import annotations

import os
import threading
from itertools import repeat
from operator import attrgetter, contains, is_, itemgetter
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..ops import cpu
from ..ops.cpu import obstacle
from ..ops.reference import is_erf_gelu
from ..ops.tracing import is_recorded
from ..processor import fastest_allowed
from .hooks import HOOKS, has_global_hooks, is_hooked
from .packing import PackedBatch
from .precision import warn_if_slow
from .qkv import NAMES

Precision = Literal["fp32", "int8"]


_version = attrgetter("_version")

# Held while a copy is made: threads that find the same copy outdated make one, not one each.
_copying = threading.RLock()


def _forget_other_threads() -> None:
    global _copying
    _copying = threading.RLock()  # another thread may have held it when this process was forked


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def why_not_for(config: Any) -> str | None:
    """The reason why a model of this config, ours or transformers', is not for the encoder in C++; None if it is."""
    if not is_erf_gelu(config.hidden_act):
        return f"the activation is {config.hidden_act}"
    if getattr(config, "add_cross_attention", False):
        return "the model has cross-attention"
    return None


class CpuEncoder:
    """Embeddings and encoder of an ElectraModel for inference on a CPU; a copy of the model makes its own.

    The `model` of each method is ours or transformers': it has `config`, `embeddings`, `encoder.layer` and perhaps
    `embeddings_project`.

    Args:
        precision: "fp32"; or "int8" for products of eight-bit weights, scaled per output column, and eight-bit
            activations, scaled per token, with results in fp32.

    Raises:
        ValueError: a precision that this processor has no instructions for.
    """

    def __init__(self, precision: Precision = "fp32"):
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
        if precision != "fp32" and (reason := obstacle()):
            raise ValueError(f"{precision} cannot run here: {reason}")
        self.precision = precision
        self._copy: _Copy | None = None
        self._served = threading.local()  # `copy`: the copy for this thread's next call

    def __reduce__(self) -> tuple:
        return CpuEncoder, (self.precision,)

    def serves(self, model: nn.Module, tensor: Tensor) -> bool:
        """Tells whether `why_not` finds nothing; otherwise raises RuntimeError if nothing else has this precision."""
        reason = self.why_not(model, tensor)
        if reason is not None:
            self.refuse(reason)
            if tensor.is_cpu and not torch.compiler.is_compiling():
                cpu.warn_if_missing()
                warn_if_slow(model.dtype)
        return reason is None

    def refuse(self, reason: str) -> None:
        """Raises RuntimeError unless a call that is not served here can be served elsewhere."""
        if self.precision != "fp32":
            raise RuntimeError(
                f"this model is {self.precision}, for inference on a CPU; it cannot serve the call: {reason}"
            )

    def why_not(self, model: nn.Module, tensor: Tensor) -> str | None:
        """The reason why a call on packed tokens cannot be served, or None; `tensor` is one of its inputs."""
        if torch.is_grad_enabled():
            return "gradients are enabled: use torch.inference_mode() or torch.no_grad()"
        if torch.compiler.is_compiling() or is_recorded() or type(tensor) is not Tensor:
            return "a graph is being recorded"
        if not tensor.is_cpu:
            return f"the input is on {tensor.device}"
        if torch.is_autocast_enabled("cpu"):
            return "autocast is on"
        if reason := obstacle():
            return reason
        copy = self._copy
        if copy is None or not copy.is_current():
            with _copying:
                copy = self._copy  # perhaps another thread's by now
                if copy is None or not copy.is_current():
                    self._copy = copy = None  # its memory serves the next one
                    parameters = _Parameters(model)
                    if reason := _why_not_copied(model.config, parameters):
                        return reason
                    self._copy = copy = _Copy(model.config, parameters, self.precision)
        self._served.copy = copy
        return None

    def __call__(
        self,
        packed: PackedBatch,
        input_ids: Tensor | None,
        token_type_ids: Tensor,
        position_ids: Tensor,
        embedded: Tensor | None,
        keep_states: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """Packed ids, types and positions [T], or `embedded` [T, H] -> (last hidden states [T, H], states).

        The states are those of the embeddings and of each layer, [T, H], with `keep_states`; otherwise the list is
        empty. Call this only after `serves` returned True.

        Raises:
            IndexError: an id that is not in its table.
            ValueError: tensors that do not fit each other, or `cu_seqlens` that do not mark sequences.
            MemoryError: there is no room for the states.
        """
        copy = self._served.__dict__.pop("copy")
        n_tokens = len(position_ids)
        starts = _checked("cu_seqlens", packed.cu_seqlens.contiguous(), torch.int32, (packed.cu_seqlens.numel(),))
        if embedded is None:
            given = {"input_ids": input_ids, "token_type_ids": token_type_ids, "position_ids": position_ids}
            ids = tuple(_checked(name, x.long().contiguous(), torch.int64, (n_tokens,)) for name, x in given.items())
        else:
            ids = ()
            embedded = _checked("embedded", embedded.contiguous(), torch.float32, (n_tokens, copy.width))
        out = _room_for(n_tokens, copy.width)
        states = _room_for(copy.n_states, n_tokens, copy.width) if keep_states else None
        threads = torch.get_num_threads()
        copy.encoder.run(
            copy.tables, starts, len(starts) - 1, ids, embedded, n_tokens, copy.causal, threads, out, states
        )
        return out, [] if states is None else list(states)


def _checked(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if reason := cpu.unfit(tensor, dtype, shape):
        raise ValueError(f"{name} {reason}")
    return tensor


def _room_for(*shape: int) -> Tensor:
    try:
        return torch.empty(shape)
    except RuntimeError as error:  # what torch raises where there is no memory
        raise MemoryError(f"no memory for hidden states {list(shape)}: {error}") from None


class _Parameters:
    """The parts and parameters of a model, as they are at one time."""

    def __init__(self, model: nn.Module):
        self.edges = _edges(model)
        # Where each parameter is: its owner, the name there, and itself.
        self.places = {
            f"{path}.{name}": (part, name, parameter)
            for path, (_, _, part) in self.edges.items()
            for name, parameter in list(part._parameters.items())
            if parameter is not None
        }
        # Parameters made in inference mode have no version.
        self.versioned = [parameter for _, _, parameter in self.places.values() if not parameter.is_inference()]
        self.versions = list(map(_version, self.versioned))
        # Tensors of our own: they keep dtype, shape and memory whatever becomes of the parameters.
        self.tensors = {path: parameter.data for path, (_, _, parameter) in self.places.items()}
        self.n_layers = sum(path.startswith("encoder.layer.") and path.count(".") == 2 for path in self.edges)


class _Copy:
    """The C++ encoder of a model's present weights."""

    def __init__(self, config: Any, parameters: _Parameters, precision: Precision):
        self.n_states, self.width = parameters.n_layers + 1, config.hidden_size
        self._config, self.causal = config, getattr(config, "is_decoder", False)
        modules = {path: child for path, (_, _, child) in parameters.edges.items()}
        # A config may be changed after the modules were made. Its sizes are held against the weights before.
        attention = modules.get("encoder.layer.0.attention.self", config)
        cpu.share_threads()
        self.encoder = cpu.extension.Encoder(
            self.width,
            attention.num_attention_heads,
            config.intermediate_size,
            config.embedding_size,
            modules["embeddings.LayerNorm"].eps,
            precision == "int8",
            fastest_allowed(),
        )
        self._watch(parameters)
        tensors = self._tensors

        def linears(*paths: str) -> list[tuple[Tensor, Tensor, int]]:
            pairs = ((tensors[f"{path}.weight"], tensors[f"{path}.bias"]) for path in paths)
            return [(weight, bias, len(weight)) for weight, bias in pairs]

        def norm(path: str) -> tuple[Tensor, Tensor]:
            return tensors[f"{path}.weight"], tensors[f"{path}.bias"]

        tables = (tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "token_type", "position"))
        self.tables = [(table, len(table)) for table in tables]
        self.encoder.set_embedding(norm("embeddings.LayerNorm"), linears(*_projections(parameters)))
        for i in range(parameters.n_layers):
            layer = f"encoder.layer.{i}"
            self.encoder.add_layer(
                linears(*(f"{layer}.attention.self.{name}" for name in NAMES)),
                linears(f"{layer}.attention.output.dense"),
                norm(f"{layer}.attention.output.LayerNorm"),
                linears(f"{layer}.intermediate.dense"),
                linears(f"{layer}.output.dense"),
                norm(f"{layer}.output.LayerNorm"),
            )

    def _watch(self, parameters: _Parameters) -> None:
        """Remembers everything that the copy depends on, in columns for `is_current`."""
        self._children_of, self._names, self._children = zip(
            *((parent._modules, name, child) for parent, name, child in parameters.edges.values()), strict=True
        )
        self._attributes = [child.__dict__ for child in self._children]
        self._hooks = [attributes[name] for attributes in self._attributes for name in HOOKS]
        self._parameters_of, self._parameter_names, self._parameters = zip(
            *((part._parameters, name, parameter) for part, name, parameter in parameters.places.values()),
            strict=True,
        )
        self._versioned, self._versions = parameters.versioned, parameters.versions
        self._tensors = parameters.tensors
        self.encoder.watch(tuple(self._tensors.values()))

    def is_current(self) -> bool:
        # This runs before every call, so the loops are map's: several times faster than Python's own.
        return (
            all(map(is_, map(dict.get, self._children_of, self._names), self._children))
            and all(map(is_, map(dict.get, self._parameters_of, self._parameter_names), self._parameters))
            and not any(self._hooks)
            and not any(map(itemgetter("training"), self._attributes))
            and not any(map(contains, self._attributes, repeat("forward")))
            and list(map(_version, self._versioned)) == self._versions
            and all(map(Tensor.is_contiguous, self._parameters))
            and not has_global_hooks()
            and getattr(self._config, "is_decoder", False) == self.causal
            and self.encoder.is_current(self._parameters)
        )


def _projections(parameters: _Parameters) -> list[str]:
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


def _why_not_copied(config: Any, parameters: _Parameters) -> str | None:
    if reason := why_not_for(config):
        return reason
    if has_global_hooks():
        return "all modules have hooks"
    for _, _, part in parameters.edges.values():
        if part.training or is_hooked(part):
            return f"a {type(part).__name__} is in training mode, has hooks or a forward of its own"
        if type(part).__module__ not in _KNOWN_MODULES:
            return f"a part is a {type(part).__module__}.{type(part).__name__}"
    for path, shape in _shapes(config, parameters).items():
        if path not in parameters.places:
            return f"{path} is missing"
        if type(parameters.places[path][2]) is not nn.Parameter:
            return f"{path} is a {type(parameters.places[path][2]).__name__}"
        if reason := cpu.unfit(parameters.tensors[path], torch.float32, shape):
            return f"{path} {reason}"
    return None


def _shapes(config: Any, parameters: _Parameters) -> dict[str, tuple[int, ...]]:
    """The shapes that the copied parameters must have, by path. Tables have any number of rows."""
    width, inner, narrow = config.hidden_size, config.intermediate_size, config.embedding_size
    shapes: dict[str, tuple[int, ...]] = {}
    for kind in ("word", "token_type", "position"):
        path = f"embeddings.{kind}_embeddings.weight"
        shapes[path] = (*parameters.tensors[path].shape[:1], narrow) if path in parameters.tensors else ()
    linears = {path: (width, narrow) for path in _projections(parameters)}
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
