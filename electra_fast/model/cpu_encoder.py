"""The C++ encoder for inference on a CPU (csrc/cpu): when it can serve a call, and its copy of the weights.

One call computes all layers on packed tokens, with torch's number of threads. Linear layers are copied into the order
in which they are read, and so are LayerNorms; tables are read where the parameters are, before the GIL is released.
Before each call the copy is compared with the model by the versions and addresses of the parameters, and by a few of
their values, since `parameter.data` changes them behind torch's back; a model that has changed is copied again.

A prepacked model has no other copy: the parameters that were copied are `PrepackedParameter`s, and nothing is compared
but that they are still in their places.

Threads may call a model, change it and find its copy outdated at the same time. So a call keeps the copy that it began
with, a copy is made of tensors that share the parameters' memory and keep it alive, and one thread at a time makes one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from itertools import repeat
from operator import attrgetter, contains, is_, itemgetter
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..ops import cpu
from ..ops.cpu import obstacle
from ..ops.tracing import is_recorded
from ..processor import fastest_allowed
from .cpu_parameters import Parameters, projections, why_not_copied, why_not_modules
from .hooks import HOOKS, has_global_hooks
from .packing import PackedBatch
from .precision import warn_if_slow
from .prepacked import PrepackedParameter, unpack
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
        if self.is_prepacked:
            raise RuntimeError(
                f"this model's weights are prepacked, for inference on a CPU; it cannot serve the call: {reason}; "
                f"unpack_weights() undoes it"
            )

    @property
    def is_prepacked(self) -> bool:
        """Whether the copy is all that there is of the weights."""
        return self._copy is not None and self._copy.is_alone

    def prepack(self, model: nn.Module) -> str | None:
        """Makes the copy all that there is of the model's weights; returns the reason if that cannot be."""
        with _copying:
            if reason := obstacle():
                return reason
            if self.is_prepacked:
                copy = self._current_copy(model)
                return copy if isinstance(copy, str) else None
            self._copy = None  # its memory serves the next one
            parameters = Parameters(model)
            if reason := why_not_modules(model.config, parameters) or why_not_copied(model.config, parameters):
                return reason
            try:
                self._copy = _Copy(model.config, parameters, self.precision, is_alone=True)
            except BaseException:
                unpack(model)
                raise
        cpu.extension.trim()
        return None

    def unpack(self, model: nn.Module) -> None:
        """Undoes `prepack`; raises ValueError if the copy is in eight bits, which have no way back."""
        with _copying:
            unpack(model)
            if self.is_prepacked:
                self._copy = None

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
        copy = self._current_copy(model)
        if isinstance(copy, str):
            return copy
        self._served.copy = copy
        return None

    def _current_copy(self, model: nn.Module) -> _Copy | str:
        """The copy of the model's present weights, made where there is none; or the reason why there can be none."""
        copy = self._copy
        if copy is None or not copy.is_current():
            with _copying:
                copy = self._copy  # perhaps another thread's by now
                if copy is None or not copy.is_current():
                    parameters = Parameters(model)
                    reason = why_not_modules(model.config, parameters)
                    if self.is_prepacked:
                        return reason or "its parts are others than those that were prepacked"
                    self._copy = copy = None  # its memory serves the next one
                    if reason := reason or why_not_copied(model.config, parameters):
                        return reason
                    self._copy = copy = _Copy(model.config, parameters, self.precision)
        return copy

    def __call__(
        self,
        packed: PackedBatch,
        input_ids: Tensor | None,
        token_type_ids: Tensor,
        position_ids: Tensor,
        embedded: Tensor | None,
        keep_states: bool,
        read: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Packed ids, types and positions [T], or `embedded` [T, H] -> (last hidden states [T, H], states).

        The states are those of the embeddings and of each layer, [T, H], with `keep_states`; otherwise the list is
        empty. `read` [N] int64 makes the first result the last states of these tokens, [N, H]; the last layer computes
        little else then, unless states are kept. Call this only after `serves` returned True.

        Raises:
            IndexError: an id that is not in its table, a token to read that is not there.
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
        if read is not None:
            read = _checked("read", read.contiguous(), torch.int64, (len(read),))
        out = _room_for(n_tokens if read is None else len(read), copy.width)
        states = _room_for(copy.n_states, n_tokens, copy.width) if keep_states else None
        threads = torch.get_num_threads()
        copy.encoder.run(
            copy.tables,
            starts,
            len(starts) - 1,
            ids,
            embedded,
            n_tokens,
            copy.causal,
            threads,
            out,
            states,
            read,
            -1 if read is None else len(read),
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


class _Copy:
    """The C++ encoder of a model's present weights."""

    def __init__(self, config: Any, parameters: Parameters, precision: Precision, is_alone: bool = False):
        self.n_states, self.width = parameters.n_layers + 1, config.hidden_size
        self._config, self.causal = config, getattr(config, "is_decoder", False)
        self.is_alone = is_alone
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
        tensors = parameters.tensors
        copies = _Copies(self.encoder, parameters, precision == "int8")
        tables = (tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "token_type", "position"))
        self.tables = [(table, len(table)) for table in tables]
        self.encoder.set_embedding(copies.norm("embeddings.LayerNorm"), copies.linears(*projections(parameters)))
        for i in range(parameters.n_layers):
            layer = f"encoder.layer.{i}"
            self.encoder.add_layer(
                copies.linears(*(f"{layer}.attention.self.{name}" for name in NAMES)),
                copies.linears(f"{layer}.attention.output.dense"),
                copies.norm(f"{layer}.attention.output.LayerNorm"),
                copies.linears(f"{layer}.intermediate.dense"),
                copies.linears(f"{layer}.output.dense"),
                copies.norm(f"{layer}.output.LayerNorm"),
            )
            if is_alone:  # layer by layer, so that no more than one is there twice
                copies.replace_parameters()
        if is_alone:
            copies.replace_parameters()
        self._watch(parameters)

    def _watch(self, parameters: Parameters) -> None:
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
        self._plain, self._tensors = tuple(parameters.plain.values()), parameters.tensors
        self._versioned = [parameters.plain[path] for path in parameters.versions]
        self._versions = list(parameters.versions.values())
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
            and all(map(Tensor.is_contiguous, self._plain))
            and not has_global_hooks()
            and getattr(self._config, "is_decoder", False) == self.causal
            and self.encoder.is_current(self._plain)
        )


class _Copies:
    """The parameters as the C++ encoder takes them, in its order, and what reads its copies of them."""

    def __init__(self, encoder: Any, parameters: Parameters, in_bytes: bool):
        self._encoder, self._parameters, self._in_bytes = encoder, parameters, in_bytes
        self._n_linears = self._n_norms = 0
        self._made: dict[int, PrepackedParameter] = {}
        # (what reads a copy, bytes of a value in it) by the parameter's path, until it is replaced.
        self._readers: dict[str, tuple[Callable[[Tensor], None], int]] = {}

    def linears(self, *paths: str) -> list[tuple[Tensor, Tensor, int]]:
        """(weight, bias, rows) of linear layers that become one."""
        parts, first = [], 0
        for path in paths:
            weight, bias = self._tensors(path)
            read = partial(self._encoder.unpack_linear, self._n_linears, first, len(weight))
            is_rounded = self._in_bytes and path.startswith("encoder.")
            self._readers[f"{path}.weight"] = read, 1 if is_rounded else weight.itemsize
            self._readers[f"{path}.bias"] = partial(read, None), bias.itemsize
            parts.append((weight, bias, len(weight)))
            first += len(weight)
        self._n_linears += bool(paths)
        return parts

    def norm(self, path: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a LayerNorm."""
        weight, bias = self._tensors(path)
        read = partial(self._encoder.unpack_norm, self._n_norms)
        self._readers[f"{path}.weight"] = read, weight.itemsize
        self._readers[f"{path}.bias"] = partial(read, None), bias.itemsize
        self._n_norms += 1
        return weight, bias

    def replace_parameters(self) -> None:
        """Makes the copies that were made so far all that there is of their parameters."""
        self._encoder.forget_weights()
        for path, (read, itemsize) in self._readers.items():
            parameter = self._parameters.plain[path]
            # One parameter may be in two places.
            made = self._made.setdefault(id(parameter), PrepackedParameter(parameter, read, itemsize))
            self._parameters.replace(path, made)
        self._readers.clear()

    def _tensors(self, path: str) -> tuple[Tensor, Tensor]:
        return self._parameters.tensors[f"{path}.weight"], self._parameters.tensors[f"{path}.bias"]
