"""Who makes training steps: networks of electra_fast and of transformers in the same plain loop of torch.

A step is forward, backward and torch's fused AdamW, with dropout. Parameters are in fp32; in bf16 the forward runs
under autocast. The class of the network is the one that its checkpoint names.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...model.config import ElectraConfig
from .. import OURS
from .peers import COMPILED, EAGER, SDPA, Entry, Setup

DROPOUT = 0.1
_LEARNING_RATE, _WEIGHT_DECAY = 1e-4, 0.01
_REPLACED_SHARE = 7  # one token in so many has the label of a replaced one


class TrainingSteps:
    """A network and its optimizer; what `Provider` asks for, and `gradients` for the comparison."""

    def __init__(self, network: nn.Module, setup: Setup, dtype: str):
        torch.set_num_threads(setup.threads)
        self.device = torch.device(setup.device)
        self.network = network.to(self.device).train()
        self._autocast = partial(torch.autocast, setup.device, torch.bfloat16, enabled=dtype == "bf16")
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True
        )

    def inputs(self, ids: np.ndarray, mask: np.ndarray) -> tuple[Tensor, ...]:
        """Ids, mask and labels, which follow from the ids."""
        is_for_tokens = type(self.network).__name__ == "ElectraForPreTraining"
        labels = (ids % _REPLACED_SHARE == 0).astype(np.int64) if is_for_tokens else ids[:, 0] % 2
        return tuple(torch.from_numpy(x).to(self.device) for x in (ids, mask, labels))

    def run(self, ids: Tensor, mask: Tensor, labels: Tensor) -> None:
        """One step, done when it returns."""
        self._backward(ids, mask, labels)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def gradients(self, ids: Tensor, mask: Tensor, labels: Tensor) -> np.ndarray:
        """The gradients of all parameters [N], in the order of their names on the Hub."""
        self._backward(ids, mask, labels)
        by_name = sorted(self.network.named_parameters())
        return np.concatenate([parameter.grad.flatten().cpu().numpy() for _, parameter in by_name])

    def _backward(self, ids: Tensor, mask: Tensor, labels: Tensor) -> None:
        with self._autocast():
            loss = self.network(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()


def of_electra_fast(setup: Setup, dtype: str, dropout: float = DROPOUT) -> TrainingSteps:
    from ...model import modeling

    return TrainingSteps(_load(modeling, setup, dropout), setup, dtype)


def of_transformers(
    setup: Setup, dtype: str, dropout: float = DROPOUT, attention: str = "sdpa", is_compiled: bool = False
) -> TrainingSteps:
    """transformers' network, compiled for the shapes of its batches where that is asked for."""
    import transformers

    steps = TrainingSteps(_load(transformers, setup, dropout, attn_implementation=attention), setup, dtype)
    if is_compiled:
        steps.network.compile(dynamic=False)
    return steps


of_eager = partial(of_transformers, attention="eager")


def _load(library: object, setup: Setup, dropout: float, **options: str) -> nn.Module:
    (name,) = ElectraConfig.from_pretrained(setup.folder).architectures
    fields = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    options = {"dtype": torch.float32, **options, **dict.fromkeys(fields, dropout)}
    return getattr(library, name).from_pretrained(setup.folder, **options)


_ALL: dict[str, Any] = {"dtypes": ("fp32", "bf16"), "devices": ("cpu", "cuda")}
# These are imported before memory is counted.
_NETWORKS = {OURS: ("electra_fast.model.modeling",), "peers": ("transformers.models.electra.modeling_electra",)}
TRAIN_TABLE = (
    Entry(OURS, None, of_electra_fast, modules=_NETWORKS[OURS], **_ALL),
    Entry(EAGER, "transformers", of_eager, modules=_NETWORKS["peers"], **_ALL),
    Entry(SDPA, "transformers", of_transformers, modules=_NETWORKS["peers"], **_ALL),
    Entry(COMPILED, "compiled", partial(of_transformers, is_compiled=True), modules=_NETWORKS["peers"], **_ALL),
)
