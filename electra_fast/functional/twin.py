"""A PyTorch model with the values of functional parameters, for inference on a CPU by the C++ encoder.

Frameworks that compile graphs of fixed shapes compute padding, too. The twin drops it inside the call, as the PyTorch
classes do: numpy arrays come in and go out, so that it can be called from within a graph of any framework.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..hub.names import TRANSPOSED, torch_name
from ..model import backbone, cpu_parameters, modeling
from ..model.config import ElectraConfig
from ..model.without_values import WithoutValues
from ..ops import cpu
from .parameters import Path


def why_not(config: ElectraConfig) -> str | None:
    """The reason why the C++ encoder does not serve a model of this config here; None if it does."""
    return cpu.obstacle() or cpu_parameters.why_not_for(config)


def to_torch(path: Path, values: np.ndarray) -> tuple[str, Tensor]:
    """A parameter's name in PyTorch and its values there, a copy."""
    values = values.T if path[-1] == TRANSPOSED else values
    if values.dtype.name == "bfloat16":  # numpy has no number of this kind, so torch does not know it
        return torch_name(path), torch.from_numpy(np.array(values.view(np.uint16), order="C")).view(torch.bfloat16)
    return torch_name(path), torch.from_numpy(np.array(values, order="C"))


class Twin:
    """A model of PyTorch in eval mode with copies of parameters.

    Args:
        config: the model's shape; copied.
        kind: what follows `Electra` in the class's name.
        parameters: fp32 arrays of `parameters.shapes`, by their paths; without the word table, where no call needs it.
    """

    def __init__(self, config: ElectraConfig, kind: str, parameters: Mapping[Path, np.ndarray]):
        self.kind = kind
        state = dict(to_torch(path, values) for path, values in parameters.items())
        cls = getattr(backbone if kind == "Model" else modeling, f"Electra{kind}")
        with WithoutValues(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a decoder that is none: its framework's class has warned
            self.model = cls(copy.deepcopy(config))
        missing, unexpected = self.model.load_state_dict(state, assign=True, strict=False)
        words = {key for key in missing if key.endswith("word_embeddings.weight")}
        assert not unexpected and {*missing} <= words | {*cls._tied_weights_keys}, (missing, unexpected)
        self.model.tie_weights()
        self.model.requires_grad_(False).eval()
        self._options = {"use_cache": False} if config.is_decoder else {}

    def __call__(
        self, *tokens: np.ndarray | None, inputs_embeds: np.ndarray | None = None, keep_states: bool = False
    ) -> tuple[dict[str, Any], Any]:
        """Computes `heads.forward`'s results and the hidden states, or None, of tokens [..., S].

        Args:
            tokens: input_ids, attention_mask (nonzero at real tokens), token_type_ids and position_ids; None for a
                default.
            inputs_embeds: [..., S, E] fp32 in the place of input_ids.

        Raises:
            ValueError: ids that are not in their tables.
        """
        ids, mask, *others = tokens
        mask = None if mask is None else np.asarray(mask) != 0
        given = [None if x is None else torch.from_numpy(np.array(x, np.int64)) for x in (ids, mask, *others)]
        embeds = None if inputs_embeds is None else torch.from_numpy(np.array(inputs_embeds))
        with torch.inference_mode():
            outputs = self.model(
                *given, inputs_embeds=embeds, output_hidden_states=keep_states, return_dict=True, **self._options
            )
        states = outputs.pop("hidden_states", None)
        return (
            {name: value.numpy() for name, value in outputs.items()},
            None if states is None else tuple(state.numpy() for state in states),
        )
