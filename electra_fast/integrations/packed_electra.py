"""transformers' ElectraModel on packed tokens: its own modules and parameters, our ops.

A module that somebody replaced (LoRA, a quantised linear layer) is called; the parameters of a plain one go into the
fused ops. `why_not_packed` tells which calls this file cannot compute; `hidden_states` must be called only after it
returned None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.electra import modeling_electra as theirs
from transformers.utils import output_capturing

from .. import ops
from ..model.cpu_encoder import CpuEncoder
from ..model.halves import attention_half, attention_rate, feed_forward_half
from ..model.packing import PackedBatch
from ..model.qkv import project
from ..ops.tracing import is_recorded

# Keywords that mean nothing to an encoder, or that this file reads.
_KNOWN_KEYWORDS = {
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "num_items_in_batch",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
    "use_cache",
}


def why_not_packed(model: theirs.ElectraModel, inputs: Mapping[str, Any]) -> str | None:
    """The reason why a call cannot run on packed tokens, or None; it begins with a key of `limits.LIMITS`.

    `inputs` are the arguments of the call by name. Whether a head reads padding is checked elsewhere.
    """
    # This check comes first, so that a graph that is being recorded holds nothing of the others.
    if torch.compiler.is_compiling() or is_recorded():
        return "recorded"
    return _why_not_config(model, inputs) or _why_not_inputs(model, inputs) or _why_not_modules(model)


def _why_not_config(model: theirs.ElectraModel, inputs: Mapping[str, Any]) -> str | None:
    config = model.config
    if type(model) is not theirs.ElectraModel:
        return f"derived class: {type(model).__name__}"
    if config.is_decoder or config.add_cross_attention or getattr(config, "is_causal", None) is not None:
        return "decoder: the config's is_decoder, add_cross_attention or is_causal"
    if any(inputs.get(name) is not None for name in ("encoder_hidden_states", "past_key_values")):
        return "decoder: encoder_hidden_states or past_key_values"
    if inputs.get("output_attentions", config.output_attentions):
        return "attentions"
    unknown = {name for name, value in inputs.items() if value is not None} - _KNOWN_KEYWORDS - _TENSORS.keys()
    return f"keyword: {', '.join(sorted(unknown))}" if unknown else None


def wanted_states(model: theirs.ElectraModel, inputs: Mapping[str, Any]) -> set[int]:
    """The numbers of the hidden states that a call asks for; 0 is that of the embeddings."""
    wanted = inputs.get("output_hidden_states", model.config.output_hidden_states)
    # Releases that cannot select states by number take a list for True.
    resolve = getattr(output_capturing, "resolve_hidden_states_indices", None)
    if isinstance(wanted, bool | None) or resolve is None:
        return set(range(len(model.encoder.layer) + 1)) if wanted else set()
    return resolve(model, [wanted] if isinstance(wanted, int) else list(wanted))


# The tensors of a call, and how many dimensions each has after [batch, length].
_TENSORS = {"input_ids": 0, "inputs_embeds": 1, "attention_mask": 0, "token_type_ids": 0, "position_ids": 0}


def _why_not_inputs(model: theirs.ElectraModel, inputs: Mapping[str, Any]) -> str | None:
    tensors = {name: inputs[name] for name in _TENSORS if inputs.get(name) is not None}
    if ("input_ids" in tensors) == ("inputs_embeds" in tensors):
        return "shape: exactly one of input_ids and inputs_embeds is needed"
    given = tensors.get("input_ids", tensors.get("inputs_embeds"))
    if given.device.type == "meta":
        return "shape: meta tensors have no lengths"
    batch_size, length = given.shape[:2] if given.dim() > 1 else (0, 0)
    for name, tensor in tensors.items():
        n_rows = {batch_size} if name in ("input_ids", "inputs_embeds", "attention_mask") else {1, batch_size}
        is_fitting = tensor.dim() == 2 + _TENSORS[name] and tensor.shape[1] == length and tensor.shape[0] in n_rows
        if not is_fitting or length == 0:
            return f"shape: {name} is {list(tensor.shape)}"
    if "position_ids" not in tensors and length > model.config.max_position_embeddings:
        return f"shape: length {length} is over max_position_embeddings {model.config.max_position_embeddings}"
    return None


# Classes of the children that we compute without calling them, for each part. Other children may be of any class.
_ENDS = {"LayerNorm": nn.LayerNorm, "dropout": nn.Dropout}
_PARTS: dict[type, dict[str, type]] = {
    theirs.ElectraModel: {"embeddings": theirs.ElectraEmbeddings, "encoder": theirs.ElectraEncoder},
    theirs.ElectraEmbeddings: {"position_embeddings": nn.Embedding, "token_type_embeddings": nn.Embedding, **_ENDS},
    theirs.ElectraEncoder: {"layer": nn.ModuleList},
    theirs.ElectraLayer: {
        "attention": theirs.ElectraAttention,
        "intermediate": theirs.ElectraIntermediate,
        "output": theirs.ElectraOutput,
    },
    theirs.ElectraAttention: {"self": theirs.ElectraSelfAttention, "output": theirs.ElectraSelfOutput},
    theirs.ElectraSelfAttention: {"dropout": nn.Dropout},
    theirs.ElectraIntermediate: {},
    theirs.ElectraSelfOutput: _ENDS,
    theirs.ElectraOutput: _ENDS,
}


def _why_not_modules(model: theirs.ElectraModel) -> str | None:
    # This runs before every call, so it reads the dictionaries behind the attributes: several times faster.
    parts, weights = [model], []
    for part in parts:  # grows while we walk it: breadth first
        children = part._modules
        parts.extend(child for child in children.values() if child is not None)
        if part is not model and _is_hooked(part):
            return f"hook: on {_name(model, part)}"
        for name, expected in _PARTS.get(type(part), {}).items():
            child = children.get(name)
            if type(child) is not expected:
                return f"part: {name} of {_name(model, part) or 'the model'} is a {_qualified_name(child)}"
        if type(part) in _PARTS:
            weights += [x._parameters["weight"] for x in children.values() if type(x) in _WITH_WEIGHTS]
    for layer in model.encoder.layer:
        if type(layer) is not theirs.ElectraLayer:
            return f"part: {_name(model, layer)} is a {_qualified_name(layer)}"
    kinds = {(weight.dtype, weight.device) for weight in weights}
    if len(kinds) > 1:
        return f"dtypes: {', '.join(sorted(f'{dtype} on {device}' for dtype, device in kinds))}"
    return None


_WITH_WEIGHTS = (nn.Linear, nn.LayerNorm, nn.Embedding)


def _name(model: nn.Module, part: nn.Module) -> str:
    return next(name for name, other in model.named_modules() if other is part)


def _qualified_name(part: nn.Module | None) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _is_hooked(part: nn.Module) -> bool:
    own = part.__dict__
    if own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"] or "forward" in own:
        return True
    hooks = own["_forward_hooks"]
    # Hooks of transformers and peft collect outputs if attentions are asked for, or make embeddings require gradients.
    return bool(hooks) and not all(hook.__module__.startswith(("transformers.", "peft.")) for hook in hooks.values())


def _is_plain_linear(module: nn.Module | None) -> bool:
    return type(module) is nn.Linear and module.bias is not None


def _is_plain_table(module: nn.Module) -> bool:
    if type(module) is not nn.Embedding or module._forward_hooks:
        return False
    return module.max_norm is None and not module.scale_grad_by_freq and not module.sparse


# The encoder that serves inference on a CPU, by model.
_ON_CPU: WeakKeyDictionary[theirs.ElectraModel, CpuEncoder] = WeakKeyDictionary()


def hidden_states(
    model: theirs.ElectraModel,
    packed: PackedBatch,
    input_ids: Tensor | None,
    token_type_ids: Tensor,
    position_ids: Tensor,
    inputs_embeds: Tensor | None,
    keep_states: bool,
) -> Iterator[Tensor]:
    """Packed ids [T] (or `inputs_embeds` [T, E]) -> the states [T, H]: of the embeddings, then of every layer.

    Without `keep_states` the last state may be the only one.
    """
    bound = ops.select("auto", model.encoder.layer[0].attention.self.attention_head_size)
    if ops.resolve("auto") == "triton":  # asked for by name: raises for an activation that the kernels do not know
        ops.choose("linear_gelu", "triton", activation=model.config.hidden_act)
    on_cpu = _ON_CPU.setdefault(model, CpuEncoder())
    if ops.resolve("auto") == "auto" and on_cpu.serves(model, position_ids):
        embedded = None
        if inputs_embeds is not None:
            embedded = _embed(model, bound, None, None, token_type_ids, position_ids, inputs_embeds)
        last, states = on_cpu(packed, input_ids, token_type_ids, position_ids, embedded, keep_states)
        yield from states or [last]
        return
    seeds = _draw_seeds(model, bound, position_ids.device)
    hidden = _embed(model, bound, seeds[0], input_ids, token_type_ids, position_ids, inputs_embeds)
    yield hidden
    for layer, *layer_seeds in zip(model.encoder.layer, *(seeds[i::3] for i in (1, 2, 3)), strict=True):
        run = partial(_run_layer, layer, bound, packed, tuple(layer_seeds))
        if layer.gradient_checkpointing and layer.training:
            hidden = layer._gradient_checkpointing_func(run, hidden)
        else:
            hidden = run(hidden)
        yield hidden


def _draw_seeds(model: theirs.ElectraModel, bound: ops.Ops, device: torch.device) -> list[Tensor | None]:
    """Seeds for the embeddings' dropout and three per layer; each is None where the ops draw from torch's generator."""
    n_seeds = 1 + 3 * len(model.encoder.layer)
    # The dropouts alone may be in training mode: Monte Carlo dropout.
    draws = (theirs.ElectraSelfAttention, nn.Dropout)
    is_drawing = any(part.training for part in model.modules() if isinstance(part, draws))
    seeds = bound.draw_seeds(n_seeds, device) if is_drawing else None
    return [None] * n_seeds if seeds is None else list(seeds.split(1))


def _embed(
    model: theirs.ElectraModel,
    bound: ops.Ops,
    seed: Tensor | None,
    input_ids: Tensor | None,
    token_type_ids: Tensor,
    position_ids: Tensor,
    inputs_embeds: Tensor | None,
) -> Tensor:
    table, words = model.embeddings, model.embeddings.word_embeddings
    if inputs_embeds is None and not _is_plain_table(words):
        input_ids, inputs_embeds = None, words(input_ids)
    project = getattr(model, "embeddings_project", None)
    is_fused = _is_plain_linear(project)
    positions = table.position_embeddings.weight
    embedded = bound.embed_norm_project(
        input_ids,
        token_type_ids,
        position_ids,
        words.weight if inputs_embeds is None else positions,  # with embeds only its width is read
        positions,
        table.token_type_embeddings.weight,
        table.LayerNorm.weight,
        table.LayerNorm.bias,
        table.LayerNorm.eps,
        project.weight if is_fused else None,
        project.bias if is_fused else None,
        inputs_embeds,
        words.padding_idx if inputs_embeds is None else None,
        _dropout_p(table.dropout),
        seed,
    )
    return embedded if project is None or is_fused else project(embedded)


def _run_layer(
    layer: theirs.ElectraLayer, bound: ops.Ops, packed: PackedBatch, seeds: tuple[Tensor | None, ...], hidden: Tensor
) -> Tensor:
    hidden = _attend(layer.attention, bound, packed, hidden, *seeds[:2])
    # A chunk is `chunk_size_feed_forward` columns of the padded batch.
    chunk_size = layer.chunk_size_feed_forward * len(packed.cu_seqlens)
    if not chunk_size:
        return _feed_forward(layer, bound, hidden, seeds[2])
    # A seed's dropout depends on the row, so chunks draw their own.
    return torch.cat([_feed_forward(layer, bound, chunk, None) for chunk in hidden.split(chunk_size)])


def _attend(
    attention: theirs.ElectraAttention,
    bound: ops.Ops,
    packed: PackedBatch,
    hidden: Tensor,
    seed: Tensor | None,
    output_seed: Tensor | None,
) -> Tensor:
    options = packed.cu_seqlens, packed.max_seqlen
    whole = attention_half(bound, attention, hidden, *options, seed=seed, output_seed=output_seed)
    if whole is not None:
        return whole
    inner = attention.self
    qkv = project((inner.query, inner.key, inner.value), hidden)
    qkv = qkv.unflatten(-1, (3, inner.num_attention_heads, inner.attention_head_size))
    attended = bound.attention(qkv, *options, attention_rate(inner), False, seed).flatten(-2)
    return _end(attention.output, bound, attended, hidden, output_seed)


def _feed_forward(layer: theirs.ElectraLayer, bound: ops.Ops, hidden: Tensor, seed: Tensor | None) -> Tensor:
    feed_forward = layer.intermediate
    is_gelu = type(feed_forward.intermediate_act_fn) is GELUActivation
    whole = feed_forward_half(bound, feed_forward.dense, layer.output, hidden, seed) if is_gelu else None
    if whole is not None:
        return whole
    if is_gelu and _is_plain_linear(feed_forward.dense):
        inner = bound.linear_gelu(hidden, feed_forward.dense.weight, feed_forward.dense.bias)
    else:
        inner = feed_forward.intermediate_act_fn(feed_forward.dense(hidden))
    return _end(layer.output, bound, inner, hidden, seed)


def _end(end: nn.Module, bound: ops.Ops, x: Tensor, residual: Tensor, seed: Tensor | None) -> Tensor:
    """Computes the end of each half of a layer: LayerNorm(residual + dropout(dense(x)))."""
    norm = end.LayerNorm
    return bound.dropout_add_norm(
        end.dense(x), residual, norm.weight, norm.bias, norm.eps, _dropout_p(end.dropout), seed
    )


def _dropout_p(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0
