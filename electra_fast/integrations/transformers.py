"""transformers' ELECTRA on our code, without changing an import: `enable()` for all models, `patch(model)` for one.

Only `forward` is replaced; classes, modules, parameters, state dicts and configs stay as they are. A call is packed
once on entry, runs on packed tokens and is unpacked once: hidden states at padding positions are zeros, where
transformers has values that mean nothing. Calls that packed tokens cannot express go through transformers' own forward,
unchanged: `why_not` gives the reason for one call, `electra-fast info` lists all of them.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from .limits import version_obstacle

if (_obstacle := version_obstacle()) is not None:
    raise ImportError(f"electra_fast.integrations.transformers: {_obstacle}")

from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.electra import modeling_electra as theirs

from ..model.arguments import Reads, choose_packing, packed_already
from ..model.packing import PackedBatch
from ..ops.tracing import is_recorded
from . import attention
from .packed_electra import hidden_states, wanted_states, why_not_packed

__all__ = ["disable", "enable", "patch", "register_attention", "unpatch", "why_not"]

Inputs = Mapping[str, Any]


# A head tells the encoder inside it what it reads, and the encoder tells the head whether it ran on packed tokens.


@dataclass
class _Call:
    reads: Reads | None = None  # None if the encoder is called by itself: nobody says what is read
    is_packed: bool = False


_call: ContextVar[_Call | None] = ContextVar("electra_fast_call", default=None)


@contextmanager
def _called_with(reads: Reads) -> Iterator[_Call]:
    token = _call.set(_Call(reads))
    try:
        yield _call.get()
    finally:
        _call.reset(token)


def _all_for_labels_at_padding(model: nn.Module, inputs: Inputs) -> Reads:
    """Reads "all" if a label at padding is not -100: transformers' loss counts it."""
    labels, mask = inputs.get("labels"), inputs.get("attention_mask")
    if labels is None or mask is None:
        return "tokens"
    is_fitting = mask.shape == labels.shape
    return "tokens" if is_fitting and not bool(((labels != -100) & (mask == 0).to(labels.device)).any()) else "all"


def _all_for_positions(model: nn.Module, inputs: Inputs) -> Reads:
    """Reads "all" if there are positions: transformers' softmax for their loss runs over padding too."""
    return "tokens" if inputs.get("start_positions") is None or inputs.get("end_positions") is None else "all"


def _all_for_masked_words(model: nn.Module, inputs: Inputs) -> Reads:
    """Reads "all" if the mask leaves out tokens that are no padding: why else would the caller give them?

    ColBERT reads the states of such tokens: its queries end with [MASK]s that no other token attends to.
    """
    ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if ids is None or mask is None:
        return "tokens"
    return "all" if bool(((ids != model.config.pad_token_id) & (mask == 0).to(ids.device)).any()) else "tokens"


# The last hidden states that each class reads, by the arguments of a call.
_READS: dict[type, Callable[[nn.Module, Inputs], Reads]] = {
    theirs.ElectraForPreTraining: lambda model, inputs: "tokens",
    theirs.ElectraForMaskedLM: _all_for_labels_at_padding,
    theirs.ElectraForTokenClassification: _all_for_labels_at_padding,
    theirs.ElectraForSequenceClassification: lambda model, inputs: "first",
    theirs.ElectraForMultipleChoice: lambda model, inputs: "first" if model.config.summary_type == "first" else "all",
    theirs.ElectraForQuestionAnswering: _all_for_positions,
    theirs.ElectraForCausalLM: lambda model, inputs: "tokens" if inputs.get("labels") is None else "all",
}


# The forwards that take the place of transformers'


def _encoder_forward(own: Callable) -> Callable:
    arguments = inspect.signature(own)

    @wraps(own)
    def forward(self: theirs.ElectraModel, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return own(self, *args, **kwargs)
        inputs = _by_name(arguments, self, args, kwargs)
        call = _call.get() or _Call()
        packed = _packing(self, inputs, call.reads) if why_not_packed(self, inputs) is None else None
        if packed is None:
            return own(self, *args, **kwargs)
        call.is_packed = True
        return _packed_output(self, packed, inputs)

    return forward


def _head_forward(own: Callable, reads: Callable[[nn.Module, Inputs], Reads]) -> Callable:
    arguments = inspect.signature(own)

    @wraps(own)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or is_recorded():
            return own(self, *args, **kwargs)
        inputs = _by_name(arguments, self, args, kwargs)
        # We cannot know what a class derived from this one reads.
        with _called_with(reads(self, inputs) if type(self) in _READS else "all") as call:
            output = own(self, *args, **kwargs)
        if call.is_packed and isinstance(self, theirs.ElectraForQuestionAnswering):
            output = _without_answers_in_padding(output, inputs.get("attention_mask"))
        return output

    return forward


def _by_name(arguments: inspect.Signature, model: nn.Module, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The arguments of a call by name, keywords beyond the named ones included; TypeError as the call would raise."""
    inputs = dict(arguments.bind(model, *args, **kwargs).arguments)
    del inputs["self"]
    return inputs.pop("kwargs", {}) | inputs


def _packing(model: theirs.ElectraModel, inputs: Inputs, reads: Reads | None) -> PackedBatch | None:
    """The packed form of a batch; None where a head reads padding, or who called the encoder by itself may."""
    ids, embeds, mask = (inputs.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    given = ids if embeds is None else embeds
    shape, device, packed = tuple(given.shape[:2]), given.device, None
    mask = None if mask is None else mask.to(device)
    # Rows of several sequences count as such only if the model's own attention sees them so: sdpa and eager see one.
    if str(model.config._attn_implementation).startswith(("flash", attention.NAME)):
        packed = packed_already(shape, mask, inputs.get("position_ids"), dict(inputs))
    return packed or choose_packing(shape, device, mask, reads or _all_for_masked_words(model, inputs))


def _packed_output(model: theirs.ElectraModel, packed: PackedBatch, inputs: Inputs) -> Any:
    ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
    shape, device = (packed.batch_size, packed.seq_length), (ids if embeds is None else embeds).device
    position_ids, token_type_ids = inputs.get("position_ids"), inputs.get("token_type_ids")
    if position_ids is None:
        position_ids = torch.arange(shape[1], device=device)[None]
    if token_type_ids is None:
        token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    ids, types, positions, embeds = (
        None if x is None else packed.pack(x)
        for x in (ids, token_type_ids.expand(shape), position_ids.expand(shape), embeds)
    )
    wanted, restored = wanted_states(model, inputs), []
    for number, states in enumerate(hidden_states(model, packed, ids, types, positions, embeds, bool(wanted))):
        restored.append(packed.unpack(states) if number in wanted else None)
    last = packed.unpack(states) if restored[-1] is None else restored[-1]
    output = BaseModelOutputWithPastAndCrossAttentions(
        last_hidden_state=last, hidden_states=tuple(restored) if wanted else None
    )
    return output.to_tuple() if inputs.get("return_dict", model.config.return_dict) is False else output


def _without_answers_in_padding(output: Any, mask: Tensor | None) -> Any:
    """Sets start and end logits at padding to the lowest number; they would be those of a zero vector."""
    if mask is None:
        return output
    if isinstance(output, tuple):  # the loss of positions needs padding, so the logits are first
        return (*(_lowest(logits, mask) for logits in output[:2]), *output[2:])
    output.start_logits, output.end_logits = (_lowest(x, mask) for x in (output.start_logits, output.end_logits))
    return output


def _lowest(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(mask.to(logits.device) == 0, torch.finfo(logits.dtype).min)


_OWN: dict[type, Callable] = {kind: kind.forward for kind in (*_READS, theirs.ElectraModel)}
_OURS: dict[type, Callable] = {
    kind: _head_forward(own, _READS[kind]) if kind in _READS else _encoder_forward(own) for kind, own in _OWN.items()
}


# Switching on and off

_lock = threading.RLock()


class PatchedForward:
    """The `forward` of one module: an object and not a bound method, so that models can be pickled."""

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _OURS[type(self.module)](self.module, *args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        signature = inspect.signature(_OURS[type(self.module)])
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def enable() -> None:
    """Serves all ELECTRA models of transformers, existing and future ones; calling it again changes nothing.

    `attn_implementation="electra_fast"` is known from here on. Calls that run meanwhile end as they began.

    Raises:
        ImportError: another library has replaced a forward of these classes. Importing this module raises it for a
            release of transformers that is not known here.
    """
    with _lock:
        for kind in _OWN:
            if kind.forward not in (_OWN[kind], _OURS[kind]):
                where = getattr(kind.forward, "__module__", "somewhere")
                raise ImportError(f"{kind.__name__}.forward was replaced by {where}; electra_fast cannot serve it")
        # Heads come before the encoder they call: our encoder in a head of theirs would not know what the head reads.
        for kind, forward in _OURS.items():
            kind.forward = forward
        attention.register()


def disable() -> None:
    """Gives the classes their own forwards back; calling it again changes nothing. Patched models stay patched."""
    with _lock:
        for kind, forward in reversed(_OURS.items()):
            if kind.forward is forward:
                kind.forward = _OWN[kind]


def patch(model: nn.Module) -> nn.Module:
    """Serves one model, or every ELECTRA inside one (a PEFT model, a SentenceTransformer); returns it.

    Copies and pickles of a patched model are patched; unpickling them needs electra_fast. DataParallel cannot use a
    patched model: its replicas share the forward of the first.

    Raises:
        ValueError: there is no ELECTRA of transformers inside, or it has a forward of its own already.
    """
    with _lock:
        served = [part for part in model.modules() if type(part) in _OURS]
        if not served:
            raise ValueError(f"expected a model with one of transformers' ELECTRA classes in it, got {type(model)}")
        for part in served:
            if not isinstance(part.__dict__.get("forward"), PatchedForward | None):
                raise ValueError(f"this {type(part).__name__} has a forward of its own already: {part.forward}")
        for part in served:
            part.__dict__.setdefault("forward", PatchedForward(part))
    return model


def unpatch(model: nn.Module) -> nn.Module:
    """Undoes `patch` and returns the model, as it was before. A model that is not patched is left alone."""
    with _lock:
        for part in model.modules():
            if isinstance(part.__dict__.get("forward"), PatchedForward):
                del part.__dict__["forward"]
    return model


def register_attention() -> None:
    """Makes `attn_implementation="electra_fast"` known: our attention, and nothing else, in any BERT-like model."""
    attention.register()


def why_not(model: nn.Module, **inputs: Any) -> str | None:
    """The reason why a call `model(**inputs)` would go through transformers' own forward; None if it would be served.

    The reason begins with a key of `electra_fast.integrations.limits.LIMITS`. Raises ValueError if `model` is none of
    transformers' ELECTRA classes.
    """
    if type(model) not in _OURS and not isinstance(model, tuple(_OURS)):
        raise ValueError(f"expected one of transformers' ELECTRA models, got {type(model)}")
    reads, encoder = None, model
    if not isinstance(model, theirs.ElectraModel):
        reads, encoder = _READS[type(model)](model, inputs) if type(model) in _READS else "all", model.electra
        own = {"labels", "start_positions", "end_positions", "logits_to_keep"}
        inputs = {name: value for name, value in inputs.items() if name not in own}
    if isinstance(model, theirs.ElectraForMultipleChoice):
        inputs = {name: x.flatten(0, 1) if isinstance(x, Tensor) else x for name, x in inputs.items()}
    reason = why_not_packed(encoder, inputs)
    if reason is None and _packing(encoder, inputs, reads) is None:
        return (
            f"padding read: {type(model).__name__} reads {reads}"
            if reads
            else "padding read: masked tokens are no padding"
        )
    return reason
