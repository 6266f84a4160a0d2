"""Methods of a model besides its forward."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from parity import CLASSES, SHAPE, assert_close, gradients, transformers, twins

from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, ElectraModel

IDS = torch.arange(1, 13).reshape(2, 6)
BERT_TINY = Path(__file__).resolve().parents[3] / "shared" / "data" / "bert-tiny"


def test_initial_weights():
    model = ElectraForMaskedLM(ElectraConfig(num_hidden_layers=1, vocab_size=2000))
    table, norm = model.get_input_embeddings().weight, model.electra.embeddings.LayerNorm
    assert abs(table[1:].std().item() - 0.02) < 0.001
    assert abs(model.electra.encoder.layer[0].intermediate.dense.weight.std().item() - 0.02) < 0.001
    assert table[0].abs().sum() == 0
    assert torch.equal(norm.weight, torch.ones(128))
    assert torch.equal(norm.bias, torch.zeros(128))
    assert model.electra.encoder.layer[0].attention.self.query.bias.abs().sum() == 0


def test_the_output_embeddings_are_the_word_table():
    model = ElectraForMaskedLM(ElectraConfig(**SHAPE))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    untied = ElectraForMaskedLM(ElectraConfig(**SHAPE, tie_word_embeddings=False))
    assert untied.get_output_embeddings().weight is not untied.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("size", "multiple", "rows"), [(110, None, 110), (98, 8, 104), (50, None, 50), (None, 64, 128)]
)
def test_resize_token_embeddings(size, multiple, rows):
    model = ElectraForMaskedLM(ElectraConfig(**SHAPE))
    before = model.get_input_embeddings().weight.detach().clone()
    bias = model.generator_lm_head.bias.detach().normal_().clone()
    table = model.resize_token_embeddings(size, pad_to_multiple_of=multiple)
    kept = min(rows, len(before))
    assert table.num_embeddings == model.config.vocab_size == rows
    assert torch.equal(table.weight[:kept], before[:kept])
    assert torch.equal(model.generator_lm_head.bias[:kept], bias[:kept])
    assert model.generator_lm_head.weight is table.weight
    if rows > len(before):
        torch.testing.assert_close(table.weight[-1], before.mean(0))
    assert model(torch.full((1, 2), rows - 1)).logits.shape == (1, 2, rows)


def test_frozen_tables_stay_frozen_when_resized():
    model = ElectraForMaskedLM(ElectraConfig(**SHAPE)).requires_grad_(False)
    model.resize_token_embeddings(110)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", CLASSES)
def test_gradient_checkpointing_changes_nothing(name):
    _, model = twins(name, is_decoder=name == "ElectraForCausalLM", use_cache=False)
    model.train()
    ids = torch.randint(1, 97, (2, 3, 5) if name == "ElectraForMultipleChoice" else (2, 5))
    plain = model(ids)[0]
    plain.sin().sum().backward()
    expected = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    again = model(ids)[0]
    again.sin().sum().backward()
    assert_close("output", again, plain, 1e-12)
    for key, value in gradients(model).items():
        assert_close(key, value, expected[key], 1e-12)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "quick_gelu", "relu2"])
def test_copies_and_pickles_give_the_same(act):
    model = ElectraForPreTraining(ElectraConfig(**SHAPE, hidden_act=act)).eval()
    expected = model(IDS).logits
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(IDS).logits, expected)


def test_copies_and_pickles_stay_tied():
    model = ElectraForMaskedLM(ElectraConfig(**SHAPE))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight
        assert twin.get_input_embeddings().weight is not model.get_input_embeddings().weight


@pytest.mark.parametrize(
    "act", sorted(set(transformers.activations.ACT2FN) - {"laplace", "sqrtsoftplus", "prelu", "xielu"})
)
def test_every_activation_is_transformers(act):
    from electra_fast.ops.reference import activation_of

    x = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    assert_close(act, activation_of(act)(x), transformers.activations.ACT2FN[act](x), 1e-6)


def test_dtype_and_device_and_size():
    model = ElectraModel(ElectraConfig(**SHAPE))
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.get_memory_footprint() == 4 * model.num_parameters()
    assert ElectraModel.from_config(ElectraConfig(**SHAPE), dtype=torch.bfloat16).dtype == torch.bfloat16
    assert model.num_parameters(exclude_embeddings=True) == model.num_parameters() - (97 + 32 + 2) * 16
    model.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 0
    assert model(IDS).last_hidden_state.dtype == torch.float32
    assert model.to(torch.bfloat16)(IDS).last_hidden_state.dtype == torch.bfloat16


def test_base_model():
    model = ElectraForPreTraining(ElectraConfig(**SHAPE))
    assert model.base_model is model.electra
    assert model.electra.base_model is model.electra


def test_inputs_can_be_made_to_require_gradients():
    model = ElectraModel(ElectraConfig(**SHAPE)).requires_grad_(False)
    model.enable_input_require_grads()
    assert model(IDS).last_hidden_state.requires_grad
    model.disable_input_require_grads()
    assert not model(IDS).last_hidden_state.requires_grad


def test_a_partial_state_dict_names_what_is_missing_in_transformers_names():
    model = ElectraModel(ElectraConfig(**SHAPE))
    state = model.state_dict()
    missing = "encoder.layer.1.attention.self.key.weight"
    del state[missing]
    changed = "encoder.layer.1.attention.self.query.weight"
    state[changed] = state[changed] + 1
    assert model.load_state_dict(state, strict=False).missing_keys == [missing]
    assert torch.equal(model.state_dict()[changed], state[changed])
    with pytest.raises(RuntimeError, match=missing):
        model.load_state_dict(state)


def test_compiled_in_one_graph_it_gives_the_same():
    model = ElectraForPreTraining(ElectraConfig(**SHAPE)).eval()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close("logits", compiled(IDS).logits, model(IDS).logits, 1e-6)


@pytest.mark.skipif(not BERT_TINY.exists(), reason="real weights (shared/data/bert-tiny) are not on this machine")
def test_real_weights_give_transformers_hidden_states():
    theirs = transformers.ElectraModel.from_pretrained(BERT_TINY).eval()
    ours = ElectraModel.from_pretrained(BERT_TINY)
    torch.manual_seed(0)
    ids, mask = torch.randint(1000, 30000, (4, 50)), torch.ones(4, 50, dtype=torch.long)
    mask[1, 30:] = mask[2, :20] = 0
    expected = theirs(ids, attention_mask=mask, output_hidden_states=True)
    output = ours(ids, attention_mask=mask, output_hidden_states=True)
    for x, y in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert_close("hidden", x[mask.bool()], y[mask.bool()], 1e-5)
