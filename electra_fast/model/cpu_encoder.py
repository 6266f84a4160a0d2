"""The C++ encoder for inference on a CPU (csrc/cpu): when it can serve a call, and its copy of the weights.

One call computes all layers on packed tokens, with torch's number of threads. Linear layers are copied into the order
in which they are read; all else is read where the parameters are. Before each call the copy is compared with the model
by the versions and addresses of the parameters, and by a few of their values, since `parameter.data` changes them
behind torch's back; a model that has changed is copied again.
"""

from __future__ import annotations

import ctypes
import platform
import warnings
from contextlib import suppress
from functools import cache
from itertools import repeat
from operator import attrgetter, contains, is_, itemgetter
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..ops.reference import is_erf_gelu
from ..processor import INSTRUCTION_SETS, fastest_allowed
from .hooks import HOOKS, has_global_hooks, is_hooked
from .packing import PackedBatch, is_recorded
from .qkv import NAMES

try:
    from .. import _cpu
except ImportError:  # the extension is built for Linux and macOS; elsewhere torch serves
    _cpu = None

Precision = Literal["fp32", "int8"]


@cache
def _share_threads() -> None:
    """Makes the extension use the threads of torch's ops; where torch has no OpenMP it starts its own."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
    with suppress(OSError, AttributeError):
        runtime = ctypes.CDLL(str(library))  # already loaded by torch; OpenMP's symbols are reachable through it
        _cpu.use_openmp(*(ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value for name in names))


_version = attrgetter("_version")


def obstacle(precision: Precision = "fp32") -> str | None:
    """The reason why this processor cannot run the encoder in C++; None where it can."""
    if _cpu is None:
        return "the extension electra_fast._cpu is not built"
    name, multiplies_bytes = _cpu.instructions(fastest_allowed())
    if not name and _limited():
        return f"ELECTRA_FAST_ISA={fastest_allowed()} allows neither AVX-512 nor AVX2 with FMA"
    if not name:
        return "the processor has neither AVX-512 nor AVX2 with FMA"
    if precision == "int8" and not multiplies_bytes:
        return f"products of bytes need AVX-512 with VNNI, the processor has {name}{_limited()}"
    return None


def why_not_for(config: Any) -> str | None:
    """The reason why a model of this config, ours or transformers', is not for the encoder in C++; None if it is."""
    if not is_erf_gelu(config.hidden_act):
        return f"the activation is {config.hidden_act}"
    if getattr(config, "add_cross_attention", False):
        return "the model has cross-attention"
    return None


def instructions() -> str:
    """The instruction set in use; raises RuntimeError where there is an `obstacle`."""
    if reason := obstacle():
        raise RuntimeError(reason)
    return _cpu.instructions(fastest_allowed())[0] + _limited()


def _limited() -> str:
    allowed = fastest_allowed()
    return "" if allowed == INSTRUCTION_SETS[0] else f", limited by ELECTRA_FAST_ISA={allowed}"


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
        if precision != "fp32" and (reason := obstacle(precision)):
            raise ValueError(f"{precision} cannot run here: {reason}")
        self.precision = precision
        self._copy: _Copy | None = None

    def __reduce__(self) -> tuple:
        return CpuEncoder, (self.precision,)

    def serves(self, model: nn.Module, tensor: Tensor) -> bool:
        """Tells whether `why_not` finds nothing; otherwise raises RuntimeError if nothing else has this precision."""
        reason = self.why_not(model, tensor)
        if reason is not None:
            self.refuse(reason)
            if tensor.is_cpu and not torch.compiler.is_compiling():
                _warn_if_slow(model.dtype)
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
        if reason := obstacle(self.precision):
            return reason
        if self._copy is None or not self._copy.is_current():
            self._copy = None
            if reason := _why_not_copied(model):
                return reason
            self._copy = _Copy(model, self.precision)
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
        """
        copy, starts = self._copy, packed.cu_seqlens
        n_tokens = len(position_ids)
        given = [None, None, None] if embedded is not None else [input_ids, token_type_ids, position_ids]
        tensors = [None if x is None else x.long().contiguous() for x in given]
        tensors.append(None if embedded is None else embedded.contiguous())
        out = torch.empty(n_tokens, copy.width)
        states = torch.empty(copy.n_states, n_tokens, copy.width) if keep_states else None
        copy.encoder.run(
            starts.data_ptr(),
            len(starts) - 1,
            *(0 if x is None else x.data_ptr() for x in tensors),
            copy.causal,
            torch.get_num_threads(),
            out.data_ptr(),
            0 if states is None else states.data_ptr(),
        )
        return out, [] if states is None else list(states)


@cache
def _warn_if_slow(dtype: torch.dtype) -> None:
    """Warns once if this processor has no instructions for a 16-bit dtype."""
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    is_fast = {torch.bfloat16: has_bf16, torch.float16: torch.cpu._is_amx_fp16_supported()}
    if not is_fast.get(dtype, True) and platform.machine() == "x86_64":
        warnings.warn(
            f"this processor does not multiply {dtype}: a model in float32 is several times as fast", stacklevel=2
        )


class _Copy:
    """The C++ encoder of a model's present weights."""

    def __init__(self, model: nn.Module, precision: Precision):
        config = model.config
        # Sizes are those of the modules: a config may be changed after they were made.
        tables, first = model.embeddings, model.encoder.layer[0]
        self.n_states, self.width = len(model.encoder.layer) + 1, first.output.dense.out_features
        self._config, self.causal = config, getattr(config, "is_decoder", False)
        self._watch(model)
        _share_threads()
        self.encoder = _cpu.Encoder(
            self.width,
            first.attention.self.num_attention_heads,
            first.intermediate.dense.out_features,
            tables.word_embeddings.embedding_dim,
            tables.LayerNorm.eps,
            precision == "int8",
            fastest_allowed(),
        )
        self.encoder.set_embedding(
            *(
                (table.weight.data_ptr(), table.num_embeddings)
                for table in (tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings)
            ),
            _pair(tables.LayerNorm),
            _linear(model.embeddings_project) if hasattr(model, "embeddings_project") else [],
        )
        for layer in model.encoder.layer:
            attended, outer = layer.attention.output, layer.output
            self.encoder.add_layer(
                [part for name in NAMES for part in _linear(getattr(layer.attention.self, name))],
                _linear(attended.dense),
                _pair(attended.LayerNorm),
                _linear(layer.intermediate.dense),
                _linear(outer.dense),
                _pair(outer.LayerNorm),
            )

    def _watch(self, model: nn.Module) -> None:
        """Remembers everything that the copy depends on, in columns for `is_current`."""
        edges = _edges(model)
        self._children_of, self._names, self._children = zip(
            *((parent._modules, name, child) for parent, name, child in edges), strict=True
        )
        self._attributes = [child.__dict__ for child in self._children]
        self._hooks = [attributes[name] for attributes in self._attributes for name in HOOKS]
        self._parameters_of, self._parameter_names, self._parameters = zip(
            *(
                (child._parameters, name, parameter)
                for child in self._children
                for name, parameter in child._parameters.items()
            ),
            strict=True,
        )
        # Parameters made in inference mode have no version.
        self._versioned = [parameter for parameter in self._parameters if not parameter.is_inference()]
        self._versions = list(map(_version, self._versioned))
        self._addresses = list(map(Tensor.data_ptr, self._parameters))

    def is_current(self) -> bool:
        # This runs before every call, so the loops are map's: several times faster than Python's own.
        return (
            all(map(is_, map(dict.get, self._children_of, self._names), self._children))
            and all(map(is_, map(dict.get, self._parameters_of, self._parameter_names), self._parameters))
            and not any(self._hooks)
            and not any(map(itemgetter("training"), self._attributes))
            and not any(map(contains, self._attributes, repeat("forward")))
            and list(map(_version, self._versioned)) == self._versions
            and list(map(Tensor.data_ptr, self._parameters)) == self._addresses
            and not has_global_hooks()
            and getattr(self._config, "is_decoder", False) == self.causal
            and self.encoder.is_current()
        )


def _linear(linear: nn.Linear) -> list[tuple[int, int, int]]:
    return [(linear.weight.data_ptr(), linear.bias.data_ptr(), linear.out_features)]


def _pair(norm: nn.LayerNorm) -> tuple[int, int]:
    return norm.weight.data_ptr(), norm.bias.data_ptr()


def _edges(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, name, child) of every module below."""
    parts: list[nn.Module] = [model]
    edges = []
    for part in parts:  # grows while we walk it: breadth first
        below = [(part, name, child) for name, child in part._modules.items() if child is not None]
        parts.extend(child for _, _, child in below)
        edges += below
    return edges


def _why_not_copied(model: nn.Module) -> str | None:
    if reason := why_not_for(model.config):
        return reason
    if has_global_hooks():
        return "all modules have hooks"
    if len({tuple(parameter.shape for parameter in layer.parameters()) for layer in model.encoder.layer}) != 1:
        return "the model has no layers, or layers of different shapes"
    for _, _, part in _edges(model):
        if part.training or is_hooked(part):
            return f"a {type(part).__name__} is in training mode, has hooks or a forward of its own"
        if type(part).__module__ not in _KNOWN_MODULES:
            return f"a part is a {type(part).__module__}.{type(part).__name__}"
        for parameter in part._parameters.values():
            if type(parameter) is not nn.Parameter or parameter.dtype != torch.float32 or not parameter.is_cpu:
                return f"a {type(part).__name__} has no parameters in fp32 on the CPU"
            if not parameter.is_contiguous():
                return f"parameters of a {type(part).__name__} are not contiguous"
    return None


# Modules of the classes with formulas that we know. transformers' classes have parts of the same names as ours.
_KNOWN_MODULES = (
    f"{__package__}.layers",
    "transformers.models.electra.modeling_electra",
    "transformers.activations",
    *(kind.__module__ for kind in (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)),
)
