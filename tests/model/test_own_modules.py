"""Modules of a model that somebody replaced, derived from or listens to: called, as in transformers' classes."""

import pytest
import torch
from parity import CLASSES, twins
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

IDS = torch.arange(1, 13).reshape(2, 6)
MASK = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
LABELS = {
    "ElectraForSequenceClassification": torch.tensor([0, 1]),
    "ElectraForTokenClassification": IDS % 2,
    "ElectraForPreTraining": IDS % 2,
    "ElectraForMaskedLM": IDS,
}


class Low(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 0.5 + 1


class Words(nn.Embedding):
    def forward(self, ids):
        return super().forward(ids) * 1.5


def derived(module, kind):
    """A module of another class with the parameters of `module`."""
    other = kind(*module.weight.shape[::-1]) if kind is Low else kind(*module.weight.shape)
    other.load_state_dict(module.state_dict())
    return other.to(module.weight.dtype)


def each(model, ending):
    return [(name, part) for name, part in model.named_modules() if name.endswith(ending)]


def replaced(model, ending, make):
    for name, part in each(model, ending):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, make(part))


def listened(model, ending):
    parts = each(model, ending)
    assert parts, ending
    for _, part in parts:
        part.register_forward_hook(lambda module, given, output: output * 1.25)


ENDINGS = (
    "intermediate.dense",
    "output.dense",
    "attention.self.key",
    "LayerNorm",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "embeddings_project",
    "output.dropout",
    "embeddings.dropout",
    "embeddings",
    "intermediate",
    "encoder.layer.1.attention.output",
)
CHANGES = {
    **{f"hooks on {ending}": lambda m, ending=ending: listened(m, ending) for ending in ENDINGS},
    "a forward of its own": lambda m: [
        part.__dict__.__setitem__("forward", lambda x, part=part: nn.LayerNorm.forward(part, x) * 2)
        for _, part in each(m, "embeddings.LayerNorm")
    ],
    "linear layers derived": lambda m: replaced(m, "intermediate.dense", lambda part: derived(part, Low)),
    "words derived": lambda m: m.base_model.set_input_embeddings(derived(m.base_model.get_input_embeddings(), Words)),
    "low rank": lambda m: replaced(m, "intermediate.dense", lambda part: nn.Sequential(part, nn.Tanh())),
    "another norm": lambda m: replaced(
        m, "output.LayerNorm", lambda part: nn.RMSNorm(part.normalized_shape, dtype=part.weight.dtype)
    ),
    "norm without a bias": lambda m: replaced(
        m, "output.LayerNorm", lambda part: nn.LayerNorm(part.normalized_shape, bias=False, dtype=part.weight.dtype)
    ),
    "identity for dropout": lambda m: replaced(m, "dropout", lambda part: nn.Identity()),
    "pruned": lambda m: [
        prune.l1_unstructured(part, "weight", 0.4)
        for ending in ("dense", "LayerNorm", "word_embeddings")
        for _, part in each(m, ending)
    ],
    "weight_norm": lambda m: [parametrizations.weight_norm(part) for _, part in each(m, "dense")],
    "parametrized": lambda m: [
        parametrize.register_parametrization(part, "weight", nn.Tanh()) for _, part in each(m, "word_embeddings")
    ],
}


@pytest.mark.parametrize("name", ["ElectraModel", *LABELS])
@pytest.mark.parametrize("change", CHANGES)
def test_results_and_gradients_are_transformers(name, change):
    theirs, ours = twins(name, embedding_size=24)
    for model in (theirs, ours):
        CHANGES[change](model)
    call = {"input_ids": IDS, "attention_mask": MASK}
    if name in LABELS:
        labels = LABELS[name]
        call["labels"] = labels.masked_fill(MASK == 0, -100) if labels.dim() == 2 and "Pre" not in name else labels
    with torch.no_grad():
        expected, found = theirs(**call)[0], ours(**call)[0]
        keep = MASK.bool() if found.dim() > 1 else ...
        torch.testing.assert_close(found[keep], expected[keep], rtol=0, atol=1e-7, check_dtype=False)
    for _ in range(2):
        for model in (theirs, ours):
            model.zero_grad()
            output = model(**call)[0]
            (output[keep].square().sum() if output.dim() else output).backward()
    expected = {key: p.grad for key, p in theirs.named_parameters() if p.grad is not None}
    found = {key: p.grad for key, p in ours.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-7, atol=1e-8, msg=key)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "ElectraModel"])
def test_hooks_on_the_whole_model_below_a_head(name):
    theirs, ours = twins(name)
    heard = []
    for model in (theirs, ours):
        model.electra.register_forward_hook(lambda module, given, output: heard.append(output.last_hidden_state))
        before = model.electra.register_forward_pre_hook(lambda *given: heard.append(None))
    ids = IDS[:, None] if "Choice" in name else IDS
    mask = MASK[:, None] if "Choice" in name else MASK
    with torch.no_grad():
        expected, found = theirs(ids, mask), ours(ids, mask)
        assert len(heard) == 4
        torch.testing.assert_close(heard[3][MASK.bool()], heard[1][MASK.bool()], rtol=0, atol=1e-10)
        keep = MASK.bool() if found[0].shape[:2] == MASK.shape else ...
        torch.testing.assert_close(found[0][keep], expected[0][keep], rtol=0, atol=1e-10)
        before.remove()
        both = (ours(ids, mask, output_hidden_states=True), theirs(ids, mask, output_hidden_states=True))
        for mine, other in zip(*(output.hidden_states for output in both), strict=True):
            torch.testing.assert_close(mine[MASK.bool()], other[MASK.bool()], rtol=0, atol=1e-10)
        assert isinstance(ours(ids, mask, return_dict=False), tuple)


def test_a_dropouts_own_mode_counts():
    """Dropouts in training below a model in evaluation (Monte Carlo dropout), and the other way round."""
    _, model = twins("ElectraForSequenceClassification", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, model(IDS).logits)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.train()
        assert not torch.equal(model(IDS).logits, model(IDS).logits)
        model.train()
        for name, part in model.named_modules():
            if isinstance(part, nn.Dropout) or name.endswith("attention.self"):
                part.eval()
        assert torch.equal(model(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("name", CLASSES)
def test_linear_layers_quantised_by_torch(name):
    theirs, ours = twins(name, dtype=torch.float32)
    ids = IDS[:, None] if "Choice" in name else IDS
    with torch.no_grad():
        exact = ours(ids)[0]
        for model in (theirs, ours):
            torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8, inplace=True)
        expected, found = theirs(ids)[0], ours(ids)[0]
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * max(1.0, expected.abs().max().item()))
