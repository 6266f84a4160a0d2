"""The parameters of the eight classes: their shapes and first values. `hub.names` has their names in PyTorch's files.

Parameters are dictionaries within dictionaries, with the parts of a module's name as keys, as in Flax:

    electra.encoder.layer.0.output.dense.weight [H, F]     {"electra": {"encoder": {"layer": {"0": {"output": {"dense":
                                                           {"kernel": [F, H]}}}}}}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
Shapes = dict[str, Any]
"""Shapes, tuples of ints, in dictionaries within dictionaries."""


# Shapes


def shapes(config: Any, kind: str) -> Shapes:
    """The shapes of a class's parameters; `kind` is a key of `HEADS`."""
    base = _encoder(config)
    return base if kind == "Model" else {"electra": base, **_head(config, kind)}


def _dense(n_in: int, n_out: int) -> Shapes:
    return {"kernel": (n_in, n_out), "bias": (n_out,)}


def _norm(size: int) -> Shapes:
    return {"scale": (size,), "bias": (size,)}


def _encoder(config: Any) -> Shapes:
    width, narrow = config.hidden_size, config.embedding_size
    rows = {"word": config.vocab_size, "position": config.max_position_embeddings, "token_type": config.type_vocab_size}
    embeddings = {f"{kind}_embeddings": {"embedding": (n, narrow)} for kind, n in rows.items()}
    projection = {} if narrow == width else {"embeddings_project": _dense(narrow, width)}
    layers = {str(i): _layer(config) for i in range(config.num_hidden_layers)}
    return {"embeddings": {**embeddings, "LayerNorm": _norm(narrow)}, **projection, "encoder": {"layer": layers}}


def _layer(config: Any) -> Shapes:
    width, inner = config.hidden_size, config.intermediate_size

    def residual(n_in: int) -> Shapes:
        return {"dense": _dense(n_in, width), "LayerNorm": _norm(width)}

    def attention() -> Shapes:
        return {"self": {name: _dense(width, width) for name in ("query", "key", "value")}, "output": residual(width)}

    return {
        "attention": attention(),
        **({"crossattention": attention()} if config.add_cross_attention else {}),
        "intermediate": {"dense": _dense(width, inner)},
        "output": residual(inner),
    }


def _head(config: Any, kind: str) -> Shapes:
    width, narrow, n_labels = config.hidden_size, config.embedding_size, config.num_labels
    if kind == "ForPreTraining":
        return {"discriminator_predictions": {"dense": _dense(width, width), "dense_prediction": _dense(width, 1)}}
    if kind in ("ForMaskedLM", "ForCausalLM"):
        logits = _dense(narrow, config.vocab_size)
        if config.tie_word_embeddings:  # the kernel is the word table
            del logits["kernel"]
        predictions = {"LayerNorm": _norm(narrow), "dense": _dense(width, narrow)}
        return {"generator_predictions": predictions, "generator_lm_head": logits}
    if kind == "ForSequenceClassification":
        return {"classifier": {"dense": _dense(width, width), "out_proj": _dense(width, n_labels)}}
    if kind == "ForTokenClassification":
        return {"classifier": _dense(width, n_labels)}
    if kind == "ForQuestionAnswering":
        return {"qa_outputs": _dense(width, n_labels)}
    assert kind == "ForMultipleChoice", kind
    if not config.summary_use_proj:
        return {"classifier": _dense(width, 1)}
    size = n_labels if getattr(config, "summary_proj_to_labels", False) and n_labels > 0 else width
    return {"sequence_summary": {"summary": _dense(width, size)}, "classifier": _dense(width, 1)}


# Trees


def flatten(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The leaves of dictionaries within dictionaries, each with its path."""
    for key, value in tree.items():
        path = (*above, str(key))
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Dictionaries within dictionaries from leaves by their paths."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return tree


# First values


def initial_values(
    shapes: Shapes, normal: Callable[[tuple[int, ...]], Any], full: Callable[[tuple[int, ...], float], Any]
) -> dict[str, Any]:
    """Fresh parameters: matrices and tables are `normal(shape)`; biases are 0, and LayerNorms 1 and 0."""
    return unflatten(
        {
            path: normal(shape) if is_random(path) else full(shape, float(path[-1] == "scale"))
            for path, shape in flatten(shapes)
        }
    )


def is_random(path: Path) -> bool:
    """Tells whether the first values of a parameter are drawn."""
    return path[-1] in ("kernel", "embedding")
