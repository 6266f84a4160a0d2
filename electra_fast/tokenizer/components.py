"""The components of a `tokenizers` backend: BERT's own, others that do exactly the same, or a refusal by name.

A normalizer may be BertNormalizer, Lowercase, or a Sequence of these, nested or not, whose steps are BERT's in BERT's
order. A pre-tokenizer may be BertPreTokenizer, or a Sequence of WhitespaceSplit and Punctuation, its two halves. A
post-processor may be a TemplateProcessing or BertProcessing, or a Sequence of one of them alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

State = dict[str, Any]
FramePiece = tuple[int, int | None, int]  # sequence 0 or 1, or -1 for a special token; its id; type id
Frames = tuple[list[FramePiece], list[FramePiece]]  # of a single text, and of a pair

# The steps of BertNormalizer, in the order in which it takes them.
_STEPS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
_SPLITS = {
    "BertPreTokenizer": {"space", "punctuation"},
    "WhitespaceSplit": {"space"},
    "Punctuation": {"punctuation"},
}
_POST_PROCESSORS = ("TemplateProcessing", "BertProcessing", "none")
# The key of a Sequence's parts, by the name of the component.
_PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}


def simplify(backend: Tokenizer) -> None:
    """Puts BertNormalizer and BertPreTokenizer in the place of what does exactly the same.

    Raises:
        ValueError: a component that BERT's cannot stand for; the message names it.
    """
    if not isinstance(backend.model, WordPiece):
        raise _refusal("model", "WordPiece", type(backend.model).__name__)
    normalizer = _bert_normalizer(_state(backend, "normalizer"))
    if not isinstance(backend.normalizer, BertNormalizer):
        backend.normalizer = normalizer
    _check_splits(_state(backend, "pre_tokenizer"))
    if not isinstance(backend.pre_tokenizer, BertPreTokenizer):
        backend.pre_tokenizer = BertPreTokenizer()
    post_processor(backend)


def post_processor(backend: Tokenizer) -> State:
    """The state of a backend's post-processor, out of its Sequence if there is one; {"type": "none"} for none."""
    state = _state(backend, "post_processor")
    parts = _flat("post_processor", state)
    if len(parts) != 1 or parts[0]["type"] not in _POST_PROCESSORS:
        raise _refusal("post_processor", " or ".join(_POST_PROCESSORS), state["type"], _strangers(parts))
    return parts[0]


def frames(backend: Tokenizer) -> Frames:
    """The frames of a single text and of a pair; raises ValueError for a template with tokens that it does not hold."""
    processor = post_processor(backend)
    if processor["type"] == "none":
        return [(0, 0, 0)], [(0, 0, 0), (1, 0, 1)]
    if processor["type"] == "BertProcessing":
        return bert_frames(processor["cls"][1], processor["sep"][1])

    def pieces(template: list[dict[str, Any]]) -> Iterator[FramePiece]:
        for piece in template:
            ((kind, content),) = piece.items()
            if kind == "Sequence":
                yield "AB".index(content["id"]), 0, content["type_id"]
            elif (name := content["id"]) not in processor["special_tokens"]:
                raise ValueError(f"the post_processor must hold its tokens among special_tokens, got no {name!r:.80}")
            else:
                for index in processor["special_tokens"][name]["ids"]:
                    yield -1, index, content["type_id"]

    return list(pieces(processor["single"])), list(pieces(processor["pair"]))


def bert_frames(cls_id: int | None, sep_id: int | None) -> Frames:
    """BERT's frames of a single text and of a pair: [CLS] A [SEP] and [CLS] A [SEP] B [SEP]."""
    single = [(-1, cls_id, 0), (0, 0, 0), (-1, sep_id, 0)]
    return single, [*single, (1, 0, 1), (-1, sep_id, 1)]


def _bert_normalizer(state: State) -> BertNormalizer:
    parts = _flat("normalizer", state)
    if strangers := _strangers(parts, ("BertNormalizer", "Lowercase")):
        raise _refusal("normalizer", "BertNormalizer", state["type"], strangers)
    if len(parts) == 1 and parts[0]["type"] == "BertNormalizer":
        return BertNormalizer(**{step: parts[0][step] for step in _STEPS})
    steps = [step for part in parts for step in _steps(part)]
    order = [_STEPS.index(step) for step in steps]
    if not parts or order != sorted(set(order)):
        held = f"it takes the steps {', '.join(steps)}, BertNormalizer {', '.join(_STEPS)}" if parts else "it is empty"
        raise _refusal("normalizer", "BertNormalizer", state["type"], held)
    return BertNormalizer(**{step: step in steps for step in _STEPS})


def _steps(part: State) -> list[str]:
    if part["type"] == "Lowercase":
        return ["lowercase"]
    strips = part["lowercase"] if part["strip_accents"] is None else part["strip_accents"]
    return [step for step in _STEPS if (strips if step == "strip_accents" else part[step])]


def _check_splits(state: State) -> None:
    # Splitting at spaces and at punctuation gives the same words in either order, once or twice.
    parts = _flat("pre_tokenizer", state)
    strangers = _strangers(parts, tuple(_SPLITS))
    odd = [part["behavior"] for part in parts if part["type"] == "Punctuation" and part["behavior"] != "Isolated"]
    if strangers or odd:
        held = strangers or f"its Punctuation has the behavior {odd[0]}"
        raise _refusal("pre_tokenizer", "BertPreTokenizer", state["type"], held)
    missing = {"space", "punctuation"}.difference(*(_SPLITS[part["type"]] for part in parts))
    if missing:
        held = f"it does not split at {' and '.join(sorted(missing))}"
        raise _refusal("pre_tokenizer", "BertPreTokenizer", state["type"], held)


def _state(backend: Tokenizer, name: str) -> State:
    component = getattr(backend, name)
    return {"type": "none"} if component is None else json.loads(component.__getstate__())


def _flat(name: str, state: State) -> list[State]:
    if state["type"] != "Sequence":
        return [state]
    return [part for child in state[_PARTS[name]] for part in _flat(name, child)]


def _strangers(parts: list[State], known: tuple[str, ...] = ()) -> str:
    """What a message says of the parts that are not known; nothing if there are none."""
    names = [part["type"] for part in parts if part["type"] not in known]
    return f"it holds {', '.join(names)}" if names else ""


def _refusal(name: str, expected: str, kind: str, held: str = "") -> ValueError:
    why = f": {held}" if (held and kind == "Sequence") or kind in _SPLITS else ""
    return ValueError(f"the tokenizer's {name} must be {expected}, got {kind}, which is not supported{why}")
