"""Twins: one of transformers' models and ours, with the same weights, and random inputs for both."""

import random
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import electra_fast

transformers = pytest.importorskip("transformers")

CLASSES = (
    "ElectraModel",
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraForCausalLM",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForMultipleChoice",
    "ElectraForQuestionAnswering",
)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
VOCAB, MAX_LENGTH = 97, 32
SHAPE = dict(
    vocab_size=VOCAB,
    embedding_size=16,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=37,
    max_position_embeddings=MAX_LENGTH,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    summary_last_dropout=0.0,
)


def twins(name: str, dtype=torch.float64, attention="sdpa", seed=0, **shape) -> tuple[nn.Module, nn.Module]:
    """(transformers' model, ours), without dropout, with weights large enough that everything matters."""
    torch.manual_seed(seed)
    shape = {**SHAPE, **shape}
    theirs = getattr(transformers, name)(transformers.ElectraConfig(**shape, attn_implementation=attention)).to(dtype)
    ours = getattr(electra_fast, name)(electra_fast.ElectraConfig(**shape)).to(dtype)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter) * 0.02)
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter's gradient by its name; zeros for those that the loss did not reach."""
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def assert_close(name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Largest difference, relative to the largest value where that is over 1; NaN only where both have it."""
    assert ours.shape == theirs.shape, name
    scale = max(1.0, theirs.abs().nan_to_num().max().item()) if theirs.numel() else 1.0
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=tolerance * scale, equal_nan=True, check_dtype=False, msg=lambda m: f"{name}: {m}"
    )


@dataclass
class Case:
    """A random configuration with inputs for it; everything follows from the seed."""

    name: str
    seed: int
    dtype: torch.dtype
    shape: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    attention: str = "sdpa"
    padding: str = "none"
    is_real: Tensor | None = None
    """[rows, length]: where there is no padding; a row a choice for multiple choice."""

    def __post_init__(self):
        dice = random.Random(self.seed)
        torch.manual_seed(self.seed)
        heads = dice.choice([1, 3, 4])
        hidden = heads * dice.choice([8, 36, 64])
        self.shape = dict(
            hidden_size=hidden,
            num_attention_heads=heads,
            embedding_size=dice.choice([hidden, 16, 48]),
            type_vocab_size=dice.choice([2, 16]),
            hidden_act=dice.choice(["gelu", "relu", "gelu_new", "silu"]),
            is_decoder=self.name == "ElectraForCausalLM" and dice.random() < 0.8,
        )
        rows, length = dice.choice([1, 3]), dice.choice([1, 7])
        lead = (rows, 2) if self.name == "ElectraForMultipleChoice" else (rows,)
        ids = torch.randint(0, VOCAB, (*lead, length))
        mask = torch.ones_like(ids)
        self.padding = dice.choice(["none", "full", "right", "left"])
        if length > 1 and self.padding == "right":
            mask[0, ..., 5:] = 0
        if length > 1 and self.padding == "left":
            mask[-1, ..., :3] = 0
        self.is_real = mask.bool().view(-1, length)
        if dice.random() < 0.3:
            embeds = torch.randn(*ids.shape, self.shape["embedding_size"], dtype=self.dtype)
            self.inputs["inputs_embeds"] = embeds
        else:
            self.inputs["input_ids"] = ids
        if self.padding != "none":
            self.inputs["attention_mask"] = mask
        if dice.random() < 0.5:
            self.inputs["token_type_ids"] = torch.randint(0, self.shape["type_vocab_size"], ids.shape)
        if dice.random() < 0.4:
            self.inputs["position_ids"] = torch.randint(0, MAX_LENGTH, ids.shape)
        if dice.random() < 0.5:
            self.inputs["output_hidden_states"] = True
        if dice.random() < 0.4:
            self.inputs["output_attentions"] = True
            self.attention = "eager"
        if dice.random() < 0.8:
            self.inputs |= self._labels(dice, ids, mask.bool())

    def _labels(self, dice: random.Random, ids: Tensor, is_real: Tensor) -> dict[str, Tensor]:
        rows, length = ids.shape[0], ids.shape[-1]
        per_token = {"ElectraForMaskedLM": VOCAB, "ElectraForCausalLM": VOCAB, "ElectraForTokenClassification": 5}
        if self.name == "ElectraForPreTraining":
            return {"labels": torch.randint(0, 2, ids.shape)}
        if self.name in per_token:
            labels = torch.randint(0, per_token[self.name], ids.shape).masked_fill(~is_real, -100)
            # What a padding position on the left predicts, transformers' eager and sdpa disagree on.
            labels[..., 1:] = labels[..., 1:].masked_fill(~is_real[..., :-1], -100)
            self.shape["num_labels"] = 5
            return {"labels": labels}
        if self.name == "ElectraForSequenceClassification":
            problem = dice.choice(["regression", "single_label_classification", "multi_label_classification"])
            self.shape["num_labels"] = 1 if problem == "regression" else 4
            return {
                "regression": {"labels": torch.randn(rows, dtype=self.dtype)},
                "single_label_classification": {"labels": torch.randint(0, 4, (rows,))},
                "multi_label_classification": {"labels": torch.randint(0, 2, (rows, 4)).to(self.dtype)},
            }[problem]
        if self.name == "ElectraForMultipleChoice":
            self.shape["summary_type"] = dice.choice(["first", "last", "mean", "cls_index"])
            return {"labels": torch.randint(0, 2, (rows,))}
        if self.name == "ElectraForQuestionAnswering":
            positions = torch.randint(0, length + 2, (2, rows))  # some outside: those are ignored
            positions[:, 0] = 0
            return {"start_positions": positions[0], "end_positions": positions[1]}
        return {}

    def __str__(self) -> str:
        return f"{self.name}-{self.seed}"


def exact_loss(case: Case, output) -> Tensor:
    """The loss of an fp64 model in fp64, from its logits: transformers computes these two in fp32 in any model."""
    labels = case.inputs["labels"]
    if case.name == "ElectraForPreTraining":
        is_counted = case.is_real if "attention_mask" in case.inputs else torch.ones_like(case.is_real)
        return F.binary_cross_entropy_with_logits(output.logits[is_counted], labels[is_counted].double())
    return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
