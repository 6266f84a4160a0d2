"""The cases of the golden files: classes, configs, inputs and weights, by rules that need numpy alone.

make_golden.py computes the results with transformers 4.57's classes, and the tests compute them with ours. Neither
weights nor inputs are stored: both sides draw them here, from numpy's RandomState, whose numbers no version changes.

Weights have the names and the layout of Flax: `encoder/layer/0/attention/self/query/kernel` is [in, out].
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
CONFIG = {
    "vocab_size": 99,
    "embedding_size": 16,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "max_position_embeddings": 40,
    "type_vocab_size": 3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "summary_last_dropout": 0.0,
}
ROWS, CHOICES, LENGTH = 3, 2, 9
FLAX, TF = "flax", "tf"
LEARNING_RATE = 0.01


def rng(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def weight(path: str, shape: Iterable[int]) -> np.ndarray:
    """The values of a parameter, float32; the same with and without `electra/` at the beginning of its path."""
    path, shape = path.removeprefix("electra/"), tuple(shape)
    values = rng(path).standard_normal(shape)
    leaf = path.rpartition("/")[2]
    if leaf == "kernel":
        values = values / np.sqrt(shape[0])
    elif leaf == "scale":
        values = 1 + 0.2 * values
    else:
        values = 0.3 * values
    return values.astype(np.float32)


def projections(path: str, gradient: np.ndarray) -> list[float]:
    """Two numbers that tell a gradient from others: its norm, and its product with a random direction."""
    gradient = np.asarray(gradient, np.float64)
    direction = rng(f"probe/{path.removeprefix('electra/')}").standard_normal(gradient.shape) / np.sqrt(gradient.size)
    return [float(np.sqrt((gradient**2).sum())), float((gradient * direction).sum())]


def cotangent(case: str, output: str, shape: Iterable[int]) -> np.ndarray:
    """The factors of an output in the scalar that gradients are of where there is no loss; zero at padding."""
    factors = rng(f"cotangent/{case}/{output}").standard_normal(tuple(shape)).astype(np.float32)
    real = real_positions(case, factors.shape)
    return factors if real is None else np.where(real, factors, 0)


def real_positions(case: str, shape: Iterable[int]) -> np.ndarray | None:
    """The mask of real tokens, with as many dimensions as an output of this shape; None where it has no positions."""
    mask, shape = inputs_of(case)["attention_mask"].astype(bool), tuple(shape)
    return mask.reshape(mask.shape + (1,) * (len(shape) - 2)) if shape[:2] == (ROWS, LENGTH) else None


@dataclass(frozen=True)
class Case:
    """A model and its inputs.

    Attributes:
        head: the class's name after `FlaxElectra` or `TFElectra`.
        fields: fields of the config beside CONFIG.
        options: names of inputs beside input_ids, attention_mask and token_type_ids.
        frameworks: the frameworks that have it.
        outputs: the outputs that are compared.
    """

    head: str
    fields: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    frameworks: tuple[str, ...] = (FLAX, TF)
    outputs: tuple[str, ...] = ("logits",)

    @property
    def config(self) -> dict[str, Any]:
        return CONFIG | self.fields

    @property
    def differentiated(self) -> tuple[str, ...]:
        """The outputs whose gradients are compared where there is no loss: those of one tensor."""
        return tuple(key for key in self.outputs if key not in ("hidden_states", "attentions", "cross_attentions"))


_DECODER = {"is_decoder": True}
_CROSS = {"is_decoder": True, "add_cross_attention": True}
_STATES = ("last_hidden_state",)
CASES = {
    "model": Case("Model", outputs=(*_STATES, "hidden_states", "attentions")),
    "wide": Case("Model", {"embedding_size": 36, "hidden_act": "gelu_new"}, ("position_ids",), outputs=_STATES),
    "heads": Case("Model", {"hidden_act": "relu"}, ("head_mask",), (FLAX,), _STATES),
    "embeds": Case("Model", {"hidden_act": "silu"}, ("inputs_embeds",), (TF,), _STATES),
    "decoder": Case("Model", _DECODER, ("past_key_values",), (TF,), _STATES),
    "cross": Case("Model", _CROSS, ("encoder_hidden_states", "encoder_attention_mask"), (TF,), _STATES),
    "pretraining": Case("ForPreTraining"),
    "masked_lm": Case("ForMaskedLM", options=("labels",)),
    "causal_lm": Case("ForCausalLM", _DECODER, frameworks=(FLAX,)),
    "causal_cross": Case(
        "ForCausalLM",
        _CROSS,
        ("encoder_hidden_states", "encoder_attention_mask"),
        (FLAX,),
        ("logits", "cross_attentions"),
    ),
    "classes": Case("ForSequenceClassification", {"num_labels": 3}, ("labels",)),
    "value": Case("ForSequenceClassification", {"num_labels": 1}, ("labels",)),
    "choice": Case("ForMultipleChoice", options=("labels",)),
    "tokens": Case("ForTokenClassification", {"num_labels": 5}, ("labels",)),
    "answer": Case(
        "ForQuestionAnswering", options=("start_positions", "end_positions"), outputs=("start_logits", "end_logits")
    ),
}


def cases_of(framework: str) -> dict[str, Case]:
    return {name: case for name, case in CASES.items() if framework in case.frameworks}


def inputs_of(name: str) -> dict[str, np.ndarray]:
    """All inputs of a case by their names: int32 ids and masks, and what its `options` name.

    The rows' masks: all real, padding on the right, padding on the left. `past_key_values` is the number of tokens of a
    first call, whose cache a second call with the others takes.
    """
    case, draw = CASES[name], rng(f"inputs/{name}")
    shape = (ROWS, CHOICES, LENGTH) if case.head == "ForMultipleChoice" else (ROWS, LENGTH)
    mask = np.ones((ROWS, LENGTH), np.int32)
    mask[1, 5:] = 0
    mask[2, :3] = 0
    if len(shape) == 3:
        mask = np.repeat(mask[:, None], CHOICES, 1)
    n_labels = case.fields.get("num_labels", 2)
    inputs = {
        "input_ids": draw.randint(1, CONFIG["vocab_size"], shape),
        "attention_mask": mask,
        "token_type_ids": draw.randint(0, CONFIG["type_vocab_size"], shape),
    }
    labels = {
        "ForMaskedLM": lambda: np.where(draw.rand(*shape) < 0.4, draw.randint(0, CONFIG["vocab_size"], shape), -100),
        "ForSequenceClassification": lambda: draw.randn(ROWS) if n_labels == 1 else draw.randint(0, n_labels, ROWS),
        "ForMultipleChoice": lambda: draw.randint(0, CHOICES, ROWS),
        "ForTokenClassification": lambda: np.where(mask == 1, draw.randint(0, n_labels, shape), -100),
    }
    makers = {
        "position_ids": lambda: draw.randint(0, CONFIG["max_position_embeddings"], shape),
        "head_mask": lambda: draw.randint(0, 2, (CONFIG["num_hidden_layers"], CONFIG["num_attention_heads"])),
        "inputs_embeds": lambda: draw.randn(*shape, case.config["embedding_size"]),
        "encoder_hidden_states": lambda: draw.randn(ROWS, 5, CONFIG["hidden_size"]),
        "encoder_attention_mask": lambda: np.array([[1] * 5, [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]),
        "past_key_values": lambda: np.array(4),
        "labels": lambda: labels[case.head](),
        "start_positions": lambda: draw.randint(0, LENGTH, ROWS),
        "end_positions": lambda: draw.randint(0, LENGTH, ROWS),
    }
    inputs |= {option: makers[option]() for option in case.options}
    if "inputs_embeds" in inputs:
        del inputs["input_ids"]
    return {
        key: np.asarray(x, np.float32 if np.asarray(x).dtype.kind == "f" else np.int32) for key, x in inputs.items()
    }
