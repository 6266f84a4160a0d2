"""Calls that transformers' ELECTRA computes itself even while we serve it, and the releases of it that are known.

This file does not import transformers: `electra-fast info` reads it.
"""

from __future__ import annotations

import re

from ..versions import installed_version

# The first and the last minor release (5.x) whose ELECTRA has the modules and arguments that the packed forward reads.
KNOWN_RELEASES = ((5, 0), (5, 23))

# Calls that go through transformers' own forward, and why. An answer of `why_not` begins with one of the keys.
LIMITS = {
    "recorded": "torch.compile, torch.export, torch.jit.trace and ONNX export: one graph has to hold for all lengths",
    "derived class": "a class derived from transformers' may compute something else",
    "decoder": "causal attention, caches and cross-attention are not on packed tokens",
    "attentions": "output_attentions: a fused attention has no probabilities to give",
    "keyword": "a keyword whose meaning is not known here",
    "shape": "inputs that are not [batch, length]; masks of 3 or 4 dimensions; what transformers refuses",
    "hook": "a hook or a forward of its own on a part of the model, which expects padded [batch, length, ...] tensors",
    "part": "a part of the model is of another class; linear layers and word embeddings may be (LoRA, quantised)",
    "dtypes": "parameters of several dtypes or on several devices",
    "padding read": "a head or a loss that reads the hidden state at padding positions; for the encoder alone, a mask "
    "over tokens that are not the config's pad_token_id, as over the [MASK]s of ColBERT's queries",
}


def version_obstacle() -> str | None:
    """The reason why the installed transformers cannot be served; None where it can."""
    first, last = (".".join(map(str, release)) for release in KNOWN_RELEASES)
    installed = installed_version("transformers")
    if installed is None:
        return f"transformers is not installed; expected {first} to {last}"
    release = tuple(int(number) for number in re.findall(r"\d+", installed)[:2])
    if not KNOWN_RELEASES[0] <= release <= KNOWN_RELEASES[1]:
        return f"transformers {installed} is not known here; expected {first} to {last}"
    return None
