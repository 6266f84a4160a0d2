"""Layers by one op a half, on a CPU in training: when C++ serves them, and that nobody can tell the difference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from tiny_models import random_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

import electra_fast
from electra_fast.model.layers import ElectraIntermediate
from electra_fast.ops.contracts import cpu_library
from electra_fast.training.distributed import join

pytestmark = pytest.mark.skipif(cpu_library.obstacle() is not None, reason=f"{cpu_library.obstacle()}")

N_LAYERS = 2
IDS = torch.arange(1, 25).reshape(2, 12)
MASK = (torch.arange(12) < torch.tensor([[12], [7]])).long()
CALL = {"input_ids": IDS, "attention_mask": MASK}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


def n_served(served) -> int:
    """The number of halves since it was last asked for."""
    n = len(served)
    served.clear()
    return n


def network(name="ElectraModel", **fields):
    fields = dict.fromkeys(DROPOUT, 0.0) | {"num_hidden_layers": N_LAYERS} | fields
    return random_model(getattr(electra_fast, name), **fields).train()


def twins(name="ElectraModel", **fields):
    """(as C++ serves it, in torch): one model twice."""
    ours = network(name, **fields)
    theirs = type(ours)(ours.config, impl="torch").train()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def results(model, **call):
    """The first output and all gradients by name."""
    model.zero_grad()
    out = model(**CALL | call)[0]
    if out.dim() > 1:
        out = out[MASK.bool()] if out.shape[:2] == MASK.shape else out
    out.sin().sum().backward()
    return {"out": out.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def assert_close(found, expected, atol=1e-4):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    "name",
    ["ElectraModel", "ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForSequenceClassification"],
)
def test_results_and_gradients_are_those_of_torch(name, served):
    ours, theirs = twins(name)
    assert_close(results(ours), results(theirs))
    assert n_served(served) == 2 * N_LAYERS
    with torch.no_grad():
        ours(**CALL)  # in training mode, so that the encoder for inference does not serve it
    assert n_served(served) == 2 * N_LAYERS


def test_evaluation_with_gradients_is_served_and_inference_is_not(served):
    ours, theirs = (model.eval() for model in twins())
    assert_close(results(ours), results(theirs))
    assert n_served(served) == 2 * N_LAYERS
    with torch.no_grad():
        ours(**CALL)
    assert n_served(served) == 0  # one call computes all layers


def test_a_decoder_is_causal(served):
    ours, theirs = twins("ElectraForCausalLM", is_decoder=True)
    assert_close(results(ours, use_cache=False), results(theirs, use_cache=False))
    assert n_served(served) == 2 * N_LAYERS


def test_the_padded_form_takes_the_second_half(served):
    ours, theirs = twins()
    assert_close(results(ours, output_attentions=True), results(theirs, output_attentions=True))
    assert n_served(served) == N_LAYERS


def test_chunks_of_the_feed_forward(served):
    ours, theirs = twins(chunk_size_feed_forward=5)
    assert_close(results(ours), results(theirs))
    assert n_served(served) == N_LAYERS * (1 + 4)  # 19 tokens


# Modules that have to be called


class Low(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 0.5


class Inner(ElectraIntermediate):
    def forward(self, hidden):
        return super().forward(hidden) * 0.5


def hooked(path):
    return lambda model: model.get_submodule(path).register_forward_hook(lambda module, given, output: None)


def derived(model):
    old = model.encoder.layer[0].output.dense
    model.encoder.layer[0].output.dense = new = Low(old.in_features, old.out_features)
    new.load_state_dict(old.state_dict())


def with_own_forward(model):
    norm = model.encoder.layer[0].attention.output.LayerNorm
    norm.forward = lambda x: F.layer_norm(x, norm.normalized_shape) * 2


def of_another_class(model):
    model.encoder.layer[0].intermediate.__class__ = Inner


LAYER = "encoder.layer.0"
CHANGES = {
    **{
        path: (hooked(f"{LAYER}.{path}"), 1)
        for path in (
            "attention.self",
            "attention.self.query",
            "attention.self.value",
            "attention.output",
            "attention.output.dense",
            "attention.output.LayerNorm",
            "attention.output.dropout",
            "intermediate",
            "intermediate.dense",
            "output",
            "output.dense",
            "output.dropout",
            "output.LayerNorm",
        )
    },
    # Its own call is one that everybody sees.
    "attention": (hooked(f"{LAYER}.attention"), 0),
    "layer": (hooked(LAYER), 0),
    "derived": (derived, 1),
    "a forward of its own": (with_own_forward, 1),
    "another class": (of_another_class, 1),
    "identity for dropout": (lambda model: setattr(model.encoder.layer[0].output, "dropout", nn.Identity()), 0),
    "no bias": (lambda model: model.encoder.layer[0].intermediate.dense.register_parameter("bias", None), 1),
    "parametrized": (
        lambda model: parametrize.register_parametrization(model.encoder.layer[0].output.dense, "weight", nn.Tanh()),
        0,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_modules_that_have_to_be_called_are_called(change, served):
    apply, n_pieces = CHANGES[change]
    pair = twins()
    for model in pair:
        apply(model)
    ours, theirs = (results(model) for model in pair)
    assert_close(ours, theirs)
    assert n_served(served) == 2 * N_LAYERS - n_pieces


def test_hooks_of_all_modules_are_called(served):
    model = network()
    with nn.modules.module.register_module_forward_hook(lambda *call: None):
        model(**CALL)
    assert n_served(served) == 0
    model(**CALL)
    assert n_served(served) == 2 * N_LAYERS


def test_another_activation_goes_piece_by_piece(served):
    ours, theirs = twins(hidden_act="relu")
    assert_close(results(ours), results(theirs))
    assert n_served(served) == N_LAYERS


# Training


def test_frozen_layers_get_no_gradients(served):
    pair = twins()
    for model in pair:
        model.embeddings.requires_grad_(False)
        model.embeddings_project.requires_grad_(False)
        model.encoder.layer[0].requires_grad_(False)
        model.encoder.layer[1].attention.self.key.requires_grad_(False)
    ours, theirs = (results(model) for model in pair)
    assert_close(ours, theirs)
    assert "encoder.layer.1.attention.self.key.weight" not in ours


def test_checkpointing_and_copies_give_the_same_bits(served):
    model = network(**DROPOUT)
    copied = copy.deepcopy(model)
    copied.gradient_checkpointing_enable()
    found = []
    for one in (model, copied):
        torch.manual_seed(5)
        found.append(results(one))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    assert n_served(served) == 2 * N_LAYERS * 3


def test_steps_of_an_optimizer_are_those_of_torch(served):
    pair = twins("ElectraForSequenceClassification")
    losses = []
    for model in pair:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses.append([])
        for _ in range(5):
            loss = model(**CALL, labels=torch.tensor([0, 1])).loss
            loss.backward()
            losses[-1].append(loss.item())
            optimizer.step()
            optimizer.zero_grad()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0][-1] < losses[0][0]
    assert n_served(served) == 5 * 2 * N_LAYERS


def test_autocast_and_other_dtypes_go_to_torch(served):
    model = network()
    with torch.autocast("cpu", torch.bfloat16):
        model(**CALL)
    model.double()(**CALL)
    model.half()(**CALL)
    assert n_served(served) == 0


def test_a_compiled_model_is_torchs(served):
    ours, theirs = twins()
    expected = theirs(IDS)[0]
    compiled = torch.compile(ours, backend="aot_eager")
    torch.testing.assert_close(compiled(IDS)[0], expected, rtol=0, atol=1e-5)
    exported = torch.export.export(ours.eval(), (IDS,), strict=False).module()
    torch.testing.assert_close(exported(IDS)[0], theirs.eval()(IDS)[0], rtol=0, atol=1e-5)
    assert n_served(served) == 0


def test_data_parallel(served):
    ours, theirs = twins()
    with join("cpu"):
        wrapped = DistributedDataParallel(ours)
        found = results(wrapped)
    assert_close({name.removeprefix("module."): value for name, value in found.items()}, results(theirs))
    assert n_served(served) == 2 * N_LAYERS


def test_impl_torch_is_kept_to(served):
    _, theirs = twins()
    theirs(**CALL)
    assert n_served(served) == 0
