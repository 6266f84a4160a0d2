"""Generator and discriminator as one module on padded batches, for transformers' Trainer and accelerate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..model.arguments import check_inputs
from ..model.layers import checkpoint_activations
from ..model.outputs import ModelOutput
from ..model.packing import PackedBatch
from .evaluate import auc
from .networks.objective import ElectraPretrainingModel

_OF_GENERATOR = ("generator_loss", "generator_accuracy")
_OF_DISCRIMINATOR = ("discriminator_loss", "logits", "labels")


@dataclass
class JointPreTrainingOutput(ModelOutput):
    """Output of one forward over B rows of S columns; all but the loss has B rows, so that processes can gather it.

    Fields of a network that does not exist are None, as in `ElectraPretrainingOutput`.

    Attributes:
        loss: scalar, the weighted sum of both networks' losses.
        generator_loss, generator_accuracy, discriminator_loss: [B], the batch's mean, repeated for every row, without
            gradient.
        logits: [B, S], the discriminator's logits: above zero where the token looks replaced, zero at padding.
        labels: [B, S] int64, 1 where the token was replaced, 0 where it was not, -100 at padding and special tokens.
    """

    loss: Tensor | None = None
    generator_loss: Tensor | None = None
    generator_accuracy: Tensor | None = None
    discriminator_loss: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None


class ElectraForJointPreTraining(nn.Module):
    """`ElectraPretrainingModel` on padded batches, as `PretrainingCollator` makes them.

    Padding costs nothing: rows are packed on entry. In training, masks and samples come from the device's torch
    generator, so `set_seed` governs them and a resumed Trainer repeats them. Processes with the same seed draw the same
    numbers; accelerate's `set_seed(seed, device_specific=True)` avoids that. In evaluation masks and samples depend on
    the batch alone, so that losses can be compared.

    A state dict holds a shared tensor once, under its first name, and can be loaded with one name or both: safetensors,
    and so the checkpoints of Trainer and accelerate, refuse shared tensors. FSDP is not supported here; use `pretrain`.

    Args:
        model: the networks and their objective, from `build_model`.

    Example:
        >>> from transformers import Trainer, TrainingArguments
        >>> from electra_fast.pretraining import build_model, preset
        >>> from electra_fast.pretraining.collator import PretrainingCollator
        >>> from electra_fast.pretraining.run import new_tokenizer
        >>> texts = ["the cat sat on the mat", "the dog lay on the rug", "a cat and a dog"] * 8
        >>> tokenizer = new_tokenizer(texts, preset("tiny"))
        >>> model = ElectraForJointPreTraining(build_model(preset("tiny"), tokenizer))
        >>> arguments = TrainingArguments("output", max_steps=2, report_to="none", disable_tqdm=True)
        >>> trainer = Trainer(
        ...     model,
        ...     arguments,
        ...     data_collator=PretrainingCollator(tokenizer),
        ...     train_dataset=texts,
        ...     eval_dataset=texts,
        ...     compute_metrics=model.compute_metrics,
        ... )
        >>> trainer.train()  # doctest: +ELLIPSIS
        {'train_runtime': ...
        >>> trainer.evaluate()  # doctest: +ELLIPSIS
        {'eval_loss': ...
        >>> model.save_pretrained("electra")  # electra/generator and electra/discriminator
    """

    def __init__(self, model: ElectraPretrainingModel):
        super().__init__()
        self.pretraining = model
        self.register_state_dict_post_hook(_drop_aliases)
        self.register_load_state_dict_pre_hook(_restore_aliases)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        word_starts: Tensor | None = None,
        return_loss: bool = True,
    ) -> JointPreTrainingOutput:
        """Masks, generates, corrupts and detects.

        Args:
            input_ids: [B, S] int64, original text with its special tokens.
            attention_mask: [B, S], nonzero at real tokens; by default all tokens are real.
            token_type_ids: [B, S]; zeros by default.
            word_starts: [B, S] bool, the first token of each word, to mask whole words; None masks single tokens.
            return_loss: whether to return the loss; Trainer looks for this name in models that need no labels.

        Raises:
            ValueError: a tensor of another shape, ids beyond the vocabulary, rows that are too long for the model.
        """
        network = getattr(self.pretraining, self.pretraining.networks[-1])
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        check_inputs(network.config, {**given, "inputs_embeds": None, "position_ids": None}, 0, {})
        if word_starts is not None and word_starts.shape != input_ids.shape:
            raise ValueError(f"word_starts must have shape {tuple(input_ids.shape)}, got {tuple(word_starts.shape)}")
        packed = PackedBatch.full(*input_ids.shape, input_ids.device)
        if attention_mask is not None:
            packed = PackedBatch.from_mask(attention_mask)
        ids, types, starts = (
            None if x is None else packed.pack(x.expand_as(input_ids)) for x in (input_ids, token_type_ids, word_starts)
        )
        random = None if self.training else torch.Generator().manual_seed(int(ids.sum()))
        output = self.pretraining(ids, packed, types, random, starts)
        found: dict[str, Tensor] = {"loss": output.loss} if return_loss else {}
        for name in ("generator_loss", "generator_accuracy", "discriminator_loss"):
            if (mean := getattr(output, name)) is not None:
                found[name] = mean.detach().repeat(len(input_ids))
        if output.logits is not None:
            labels = output.is_replaced.long().masked_fill(~output.is_candidate, -100)
            found |= {"logits": packed.unpack(output.logits), "labels": packed.unpack(labels, -100)}
        return JointPreTrainingOutput(**found)

    def compute_metrics(self, prediction: Any) -> dict[str, float]:
        """Computes Trainer's metrics: losses, the generator's accuracy and the discriminator's AUC.

        Losses and accuracy are means over rows, each row with its batch's mean; the AUC leaves out special tokens.

        Args:
            prediction: transformers' EvalPrediction over the output's fields.
        """
        networks = self.pretraining.networks
        names = _OF_GENERATOR * ("generator" in networks) + _OF_DISCRIMINATOR * ("discriminator" in networks)
        values = dict(zip(names, map(torch.as_tensor, prediction.predictions), strict=True))
        metrics = {name: float(value.mean()) for name, value in values.items() if name not in ("logits", "labels")}
        if "labels" in values:
            is_text = values["labels"] >= 0
            metrics["discriminator_auc"] = auc(values["logits"][is_text], values["labels"][is_text])
        return metrics

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `generator/` and `discriminator/` in the Hub's form with `ElectraPretrainingModel.save_pretrained`."""
        self.pretraining.save_pretrained(directory)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Keeps only the layers' inputs for the backward (`checkpoint_activations`); Trainer calls this."""
        checkpoint_activations(self, activation_checkpointing_kwargs, every_n_layers, offload)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Calls `activation_checkpointing_enable`: older versions of Trainer use this name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)


def _aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that share the memory of an earlier one, each with the earlier one's name."""
    first: dict[tuple[int, torch.Size], str] = {}
    # A null pointer means no memory to compare: a tensor without data, or a shard.
    keys = {name: (x.data_ptr(), x.shape) for name, x in state.items() if x.data_ptr()}
    return {name: kept for name, key in keys.items() if (kept := first.setdefault(key, name)) != name}


def _drop_aliases(model: ElectraForJointPreTraining, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    own = {name: x for name, x in state.items() if name.startswith(prefix)}
    for name in _aliases(own):
        del state[name]


def _restore_aliases(model: ElectraForJointPreTraining, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, kept in _aliases(model.pretraining.state_dict(prefix=f"{prefix}pretraining.")).items():
        if kept in state:
            state.setdefault(name, state[kept])
