"""Small ELECTRAs of transformers, calls of them, and what a call gave: outputs at real tokens, loss, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

HEADS = (
    "ElectraForPreTraining",
    "ElectraForMaskedLM",
    "ElectraForCausalLM",
    "ElectraForSequenceClassification",
    "ElectraForTokenClassification",
    "ElectraForMultipleChoice",
    "ElectraForQuestionAnswering",
)
CLASSES = ("ElectraModel", *HEADS)
VOCAB, MAX_LENGTH, N_LABELS = 97, 24, 5
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


def tiny(name: str, seed: int = 0, **shape) -> nn.Module:
    """Without dropout, in evaluation mode, with weights so large that everything matters."""
    torch.manual_seed(seed)
    n_labels = {"ElectraForTokenClassification": N_LABELS, "ElectraForSequenceClassification": 3}.get(name, 2)
    model = getattr(transformers, name)(transformers.ElectraConfig(**{"num_labels": n_labels, **SHAPE, **shape}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3).add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def padded_batch(n_rows: int = 3, length: int = 9, padding: str = "right", seed: int = 0) -> dict[str, Tensor]:
    """input_ids, 0 at padding, and attention_mask [rows, length]; row 0 is full, unless rows are scattered or empty."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCAB, (n_rows, length), generator=generator)
    mask = torch.ones_like(ids)
    lengths = torch.randint(1, length + 1, (n_rows, 1), generator=generator)
    columns = torch.arange(length)
    if padding == "right":
        mask = (columns < lengths).long()
    elif padding == "left":
        mask = (columns >= length - lengths).long()
    elif padding == "scattered":
        mask = torch.randint(0, 2, ids.shape, generator=generator)
    if padding in ("right", "left"):
        mask[0] = 1
    if padding == "empty row":
        mask[-1] = 0
    return {"input_ids": ids} if padding == "no mask" else {"input_ids": ids * mask, "attention_mask": mask}


def labels_for(name: str, batch: dict[str, Tensor], at_padding: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Labels of the class, for rows that are choices where it needs them; -100 at padding, or labels there too."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch["input_ids"].shape
    n_rows, mask = shape[0], batch.get("attention_mask", torch.ones(shape))
    if name == "ElectraForPreTraining":
        return {"labels": torch.randint(0, 2, shape, generator=generator)}
    if name in ("ElectraForMaskedLM", "ElectraForCausalLM", "ElectraForTokenClassification"):
        n_labels = N_LABELS if name == "ElectraForTokenClassification" else VOCAB
        labels = torch.randint(0, n_labels, shape, generator=generator)
        return {"labels": labels if at_padding else labels.masked_fill(mask == 0, -100)}
    if name == "ElectraForSequenceClassification":
        return {"labels": torch.randint(0, 3, (n_rows,), generator=generator)}
    if name == "ElectraForMultipleChoice":
        return {"labels": torch.randint(0, 2, (n_rows,), generator=generator)}
    if name == "ElectraForQuestionAnswering":
        places = torch.randint(0, shape[-1] + 2, (2, n_rows), generator=generator)  # some outside: those are ignored
        return {"start_positions": places[0], "end_positions": places[1]}
    return {}


def as_choices(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """[B, S] -> [B, 2, S], the second choice with its ids reversed."""
    return {
        name: torch.stack([x, x.flip(-1) if name == "input_ids" else x], dim=1) if x.dim() > 1 else x
        for name, x in batch.items()
    }


def results(model: nn.Module, call: dict) -> dict[str, Tensor]:
    """Everything a call gives, at real tokens, and the gradient of every parameter."""
    model.zero_grad()
    output = model(**call)
    shape = call["input_ids"].shape if "input_ids" in call else call["inputs_embeds"].shape[:-1]
    is_real = call.get("attention_mask", torch.ones(shape)).bool().view(-1, shape[-1])
    found = {}
    for key, value in output.items():
        for i, x in enumerate(value if isinstance(value, tuple) else [value]):
            if key != "attentions" and x.shape[:2] == is_real.shape:
                x = x[is_real]
            found[f"{key} {i}"] = x
    loss = found.get("loss 0", sum(x.sin().sum() for x in found.values()))
    if loss.isfinite() and loss.requires_grad:
        loss.backward()
    zero = torch.zeros(())
    grads = {name: zero if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return {name: x.detach() for name, x in found.items()} | grads


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """Largest difference, relative to the largest value where that is over 1; NaN only where both have it."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        scale = max(1.0, expected.abs().nan_to_num().max().item()) if expected.numel() else 1.0
        torch.testing.assert_close(
            ours[name], expected, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
