"""The heads of the eight classes as pure functions, and `forward`: a whole class of these and the encoder.

A class is named by what follows `Electra` in its name. Names of parameters and mathematics are those of the PyTorch
classes; losses are the frameworks' own business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .activations import activate
from .core import Array, Encoded, Network, Params


def _hidden(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    return {"last_hidden_state": hidden}


def _replaced_tokens(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """One logit a token, [B, S], above zero where the token looks replaced."""
    head = params["discriminator_predictions"]
    return {"logits": net.dense(head["dense_prediction"], net.activate(net.dense(head["dense"], hidden)))[..., 0]}


def _vocabulary(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """Logits [B, S, V]. GELU whatever `hidden_act` says; a head without a kernel is tied to the word table."""
    head = params["generator_predictions"]
    x = net.norm(head["LayerNorm"], activate(net.ops, "gelu", net.dense(head["dense"], hidden)))
    head = params["generator_lm_head"]
    if "kernel" in head:
        return {"logits": net.dense(head, x)}
    words = net.cast(params["electra"]["embeddings"]["word_embeddings"]["embedding"])
    return {"logits": net.ops.einsum("bse,ve->bsv", x, words) + net.cast(head["bias"])}


def _sequence_labels(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """Logits [B, num_labels] of the first token."""
    rate, (first, second) = classifier_dropout(net.config), net.split(key, 2)
    x = net.dense(params["classifier"]["dense"], net.dropout(hidden[:, 0], rate, first))
    x = net.dropout(activate(net.ops, "gelu", x), rate, second)
    return {"logits": net.dense(params["classifier"]["out_proj"], x)}


def _token_labels(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """Logits [B, S, num_labels]."""
    return {"logits": net.dense(params["classifier"], net.dropout(hidden, classifier_dropout(net.config), key))}


def _spans(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """Logits of an answer's start and end, [B, S] each."""
    logits = net.dense(params["qa_outputs"], hidden)
    return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}


def _choices(net: Network, params: Params, hidden: Array, key: Array | None) -> dict[str, Array]:
    """A logit for each row, [B * C, 1], of its summary."""
    first, last = net.split(key, 2)
    x = _summarized(net, hidden)
    x = net.dropout(x, getattr(net.config, "summary_first_dropout", 0.0), first)
    if "sequence_summary" in params:
        x = net.dense(params["sequence_summary"]["summary"], x)
    x = activate(net.ops, net.config.summary_activation or None, x)
    return {"logits": net.dense(params["classifier"], net.dropout(x, net.config.summary_last_dropout, last))}


def _summarized(net: Network, hidden: Array) -> Array:
    """One vector per row by `config.summary_type`: [B, S, H] -> [B, H]."""
    kind = net.config.summary_type
    if kind == "mean":
        return net.ops.mean(hidden, 1)
    return hidden[:, 0] if kind == "first" else hidden[:, -1]


def classifier_dropout(config: Any) -> float:
    rate = config.classifier_dropout
    return config.hidden_dropout_prob if rate is None else rate


HEADS: dict[str, Callable[[Network, Params, Array, Array | None], dict[str, Array]]] = {
    "Model": _hidden,
    "ForPreTraining": _replaced_tokens,
    "ForMaskedLM": _vocabulary,
    "ForCausalLM": _vocabulary,
    "ForSequenceClassification": _sequence_labels,
    "ForTokenClassification": _token_labels,
    "ForMultipleChoice": _choices,
    "ForQuestionAnswering": _spans,
}
"""The heads, by class: parameters of the class, hidden states and a key for dropout give named results."""


def forward(
    net: Network,
    kind: str,
    params: Params,
    input_ids: Array | None = None,
    attention_mask: Array | None = None,
    token_type_ids: Array | None = None,
    position_ids: Array | None = None,
    *,
    inputs_embeds: Array | None = None,
    key: Array | None = None,
    **options: Any,
) -> tuple[dict[str, Array], Encoded]:
    """Computes a whole class: the named results of its head, and those of the encoder.

    Args:
        kind: a key of `HEADS`.
        params: the class's parameters.
        input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds: those of `Network.encode`; for
            "ForMultipleChoice" with choices as the second dimension, [B, C, ...].
        options: further arguments of `Network.encode`.
    """
    tokens = [input_ids, attention_mask, token_type_ids, position_ids]
    n_choices = None
    if kind == "ForMultipleChoice":
        given = input_ids if inputs_embeds is None else inputs_embeds
        n_choices = net.ops.shape(given)[1]
        *tokens, inputs_embeds = (_by_row(net, x) for x in (*tokens, inputs_embeds))
    encoder_key, head_key = net.split(key, 2)
    base = params if kind == "Model" else params["electra"]
    encoded = net.encode(base, *tokens, inputs_embeds=inputs_embeds, key=encoder_key, **options)
    results = HEADS[kind](net, params, encoded.hidden, head_key)
    if n_choices is not None:
        results = {"logits": net.ops.reshape(results["logits"], (-1, n_choices))}
    return results, encoded


def _by_row(net: Network, x: Array | None) -> Array | None:
    """An argument [B, C, ...] with a row for each choice, [B * C, ...]."""
    return None if x is None else net.ops.reshape(x, (-1, *net.ops.shape(x)[2:]))
