"""The network that is exported: three tensors to a dictionary of tensors, as a graph with dynamic axes."""

from __future__ import annotations

import copy
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..model.base import ElectraPreTrainedModel
from ..model.config import ElectraConfig
from ..model.pretrained import load_complete

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LOWEST = torch.finfo(torch.float32).min
# The outputs of each class, and the value of each at padding positions. nan stands for any number: one more pass over
# the logits of a vocabulary would take a tenth of the time. None stands for outputs without positions.
OUTPUTS: dict[str, dict[str, float | None]] = {
    "ElectraModel": {"last_hidden_state": 0.0},
    "ElectraForPreTraining": {"logits": 0.0},
    "ElectraForMaskedLM": {"logits": math.nan},
    "ElectraForCausalLM": {"logits": math.nan},
    "ElectraForSequenceClassification": {"logits": None},
    "ElectraForTokenClassification": {"logits": 0.0},
    "ElectraForMultipleChoice": {"logits": None},
    "ElectraForQuestionAnswering": {"start_logits": LOWEST, "end_logits": LOWEST},
    "ElectraPaperForSequenceClassification": {"logits": None},
}


class Exportable(nn.Module):
    """A network that maps three inputs to a dictionary of tensors: fp32, on the CPU, in plain torch, in eval mode.

    Raises:
        ValueError: a class that cannot be exported, or a decoder with a cache.
    """

    def __init__(self, model: ElectraPreTrainedModel):
        super().__init__()
        name = type(model).__name__
        if name not in OUTPUTS:
            raise ValueError(f"the network to export must be one of {', '.join(OUTPUTS)}, got {name}")
        config = copy.deepcopy(model.config)
        if config.is_decoder and config.use_cache:
            raise ValueError(
                f"{name} with a key-value cache cannot be exported: set use_cache to False in its config, "
                "for logits of whole sequences"
            )
        # Feed-forward in chunks gives the same results, but the number of chunks would be frozen into the graph.
        config.update({"output_attentions": False, "chunk_size_feed_forward": 0})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they were given when the model itself was made
            self.network = type(model)(config, impl="torch")
        self.network.load_state_dict(model.state_dict())
        self.outputs = OUTPUTS[name]
        self.requires_grad_(False).eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        """Computes int64 [B, S] ([B, C, S] for multiple choice) -> fp32 tensors by name, at padding as in `OUTPUTS`."""
        output = self.network(input_ids, attention_mask, token_type_ids, return_dict=True)
        is_padding, values = attention_mask == 0, {}
        for name, fill in self.outputs.items():
            values[name] = value = output[name]
            if fill is not None and not math.isnan(fill):
                values[name] = value.masked_fill(is_padding[..., None] if value.dim() == 3 else is_padding, fill)
        return values

    @property
    def axes(self) -> tuple[str, ...]:
        is_choice = type(self.network).__name__ == "ElectraForMultipleChoice"
        return ("batch", "choices", "length") if is_choice else ("batch", "length")

    def program(self) -> torch.export.ExportedProgram:
        """The graph, with all axes of the inputs dynamic."""
        limit = self.network.config.max_position_embeddings
        limits = {"batch": None, "choices": None, "length": limit}
        axes = {i: torch.export.Dim(name, min=1, max=limits[name]) for i, name in enumerate(self.axes)}
        with quiet():
            return torch.export.export(self, self.inputs(3, min(7, limit)), dynamic_shapes=(axes,) * len(INPUTS))

    def inputs(self, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random inputs; one of three rows has no padding, one has it on the right and one on the left."""
        config, random = self.network.config, torch.Generator().manual_seed(batch * 1000 + length)
        shape = (batch, 2, length) if "choices" in self.axes else (batch, length)
        ids = torch.randint(config.vocab_size, shape, generator=random)
        types = torch.randint(config.type_vocab_size, shape, generator=random)
        mask = torch.ones(shape, dtype=torch.int64)
        mask[1::3, ..., length - length // 3 :] = 0
        mask[2::3, ..., : length // 3] = 0
        return ids, mask, types


def load_network(name_or_path: str | os.PathLike, network: str = "auto") -> ElectraPreTrainedModel:
    """The network of a directory or the Hub, in fp32 on the CPU; "auto" takes the class that config.json names.

    Raises:
        FileNotFoundError: no such model, or one of its files is missing.
        ValueError: a class that cannot be exported, weights that lack a part of the network, damaged files.
    """
    config = ElectraConfig.from_pretrained(name_or_path)
    if network == "auto":
        network = (config.architectures or ["nothing of its architecture"])[0]
    if network not in OUTPUTS:
        raise ValueError(f"{name_or_path}: the network to export must be one of {', '.join(OUTPUTS)}, got {network}")
    if "Paper" in network:
        from ..finetuning.kinds import paper_heads as home
    else:
        from ..model import modeling as home
    options = {"config": config, "dtype": torch.float32, "device_map": "cpu", "impl": "torch"}
    return load_complete(getattr(home, network), name_or_path, f"an {network}", **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters' remarks on themselves: deprecations in torch, torchvision that is not installed, weights
    that share memory, as those of query, key and value do."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
