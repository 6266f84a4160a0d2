"""Names of tensors: today's from old ones, and those of PyTorch from those of Flax and Keras, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

_OLD_NAMES = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
_OLD_BUFFERS = re.compile(r"(^|\.)(embeddings\.token_type_ids|position_ids)$")
# Names of parameters in other frameworks. What they call a kernel is the transpose of PyTorch's weight.
_LEAVES = {
    # Keras
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    # Flax
    "embedding": "weight",
    "scale": "weight",
    # both
    "kernel": "weight",
}
TRANSPOSED = "kernel"
KERAS_END = ":0"
"""The end of a variable's name in Keras."""


def torch_name(parts: Sequence[str]) -> str:
    """PyTorch's name of a parameter of Flax or Keras, given by the parts of its name there."""
    *above, leaf = parts
    return ".".join((*above, _LEAVES.get(leaf, leaf)))


def flax_parts(name: str) -> tuple[str, ...]:
    """The parts of the name in Flax of a parameter of PyTorch: `torch_name` turned round."""
    *above, leaf = name.split(".")
    if leaf == "weight":
        leaf = TRANSPOSED
        if above and above[-1] == "LayerNorm":
            leaf = "scale"
        elif above and above[-1].endswith("_embeddings"):
            leaf = "embedding"
    return (*above, leaf)


def keras_name(name: str) -> str:
    """The name in Keras, without the model's, of a parameter of PyTorch: `torch_name` of `keras_parts` turned round."""
    *above, leaf = flax_parts(name)
    within = above[-1] if above else ""
    leaf = {"scale": "gamma", "embedding": "weight" if within == "word_embeddings" else "embeddings"}.get(leaf, leaf)
    if (within, leaf) == ("LayerNorm", "bias"):
        leaf = "beta"
    return re.sub(r"/(\d+)/", r"_._\1/", "/".join((*above, leaf))) + KERAS_END


def keras_parts(name: str) -> list[str]:
    """The parts of a name in Keras; those of a list are numbers."""
    return name.removesuffix(KERAS_END).replace("_._", "/").split("/")


def modern_names(state: Mapping[str, Tensor], key_mapping: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Renames tensors by `key_mapping` (patterns and their replacements), then to today's names; drops old buffers.

    Raises:
        ValueError: two tensors would have the same name.
    """
    rules = (*(key_mapping or {}).items(), *_OLD_NAMES)

    def modern(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    names = {name: modern(name) for name in state}
    origin = origins((key, name) for name, key in names.items() if not _OLD_BUFFERS.search(key))
    return {key: state[name] for key, name in origin.items()}


def origins(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names of tensors in a file by the names that they get; raises ValueError where two would have the same."""
    origin: dict[str, str] = {}
    for key, name in pairs:
        if key in origin:
            raise ValueError(f"the checkpoint holds {key} twice: as {origin[key]} and as {name}")
        origin[key] = name
    return origin
