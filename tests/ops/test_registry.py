"""The registry: every op is served, a named impl is kept to, nothing falls back in silence."""

import dataclasses
import gc
import inspect
import pickle
import weakref

import pytest
import torch

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraModel
from electra_fast.ops import cpu, reference, reference_blocks, reference_optim, registry
from electra_fast.ops.contracts import cpu_library, library


@pytest.fixture
def on_a_gpu(monkeypatch):
    """The registry as on a machine whose GPU runs the kernels."""
    monkeypatch.setattr(registry, "obstacle", lambda: None)
    monkeypatch.setattr(library, "IS_INTERPRETED", False)
    registry._bind.cache_clear()
    yield
    registry._bind.cache_clear()


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(registry, "obstacle", lambda: "no CUDA GPU")
    monkeypatch.setattr(library, "IS_INTERPRETED", False)
    registry._bind.cache_clear()
    yield
    registry._bind.cache_clear()


def test_every_op_has_all_implementations_with_one_name():
    selected = registry.select("torch")
    for name, op in registry.OPS.items():
        module = next(module for module in (reference, reference_blocks, reference_optim) if hasattr(module, name))
        assert getattr(selected, name) is op.torch is getattr(module, name)
        assert op.triton.__name__ == op.cpu.__name__ == name
        assert (op.cpu is op.torch) == (op.cpu_module is None)


@pytest.mark.parametrize("name", registry.OPS)
def test_implementations_have_one_signature(name):
    op = registry.OPS[name]
    signature = inspect.signature(op.torch)
    assert inspect.signature(op.triton) == inspect.signature(op.cpu) == signature
    if op.torch_with is not None:
        first, *others = inspect.signature(op.torch_with).parameters.values()
        assert first.name == "activation" and others == list(signature.parameters.values())


def test_all_ops_are_selected():
    assert [field.name for field in dataclasses.fields(registry.Ops)] == [*registry.OPS, "draw_seeds"]
    with pytest.raises(AttributeError, match="linear_gleu"):
        registry.select().linear_gleu  # noqa: B018


IN_CPP = [name for name, op in registry.OPS.items() if op.cpu_module is not None]


def test_auto_says_why(without_gpu):
    served = {name: (impl, reason) for name, impl, reason in registry.explain()}
    assert list(served) == list(registry.OPS)
    assert {served[name] for name in served if name not in IN_CPP} == {("torch", "no CUDA GPU")}


def test_auto_says_what_serves_the_ops_in_cpp(without_gpu, monkeypatch):
    monkeypatch.setattr(cpu_library, "obstacle", lambda: None)
    monkeypatch.setattr(cpu, "instructions", lambda: "AVX2")
    monkeypatch.setattr(cpu_library, "bf16_obstacle", lambda: "no AVX512_BF16")
    served = {name: (impl, reason) for name, impl, reason in registry.explain()}
    expected = "AVX2, for float32, not bfloat16: no AVX512_BF16; no CUDA GPU"
    assert served["attention_block"] == served["feed_forward_block"] == ("C++", expected)
    assert served["mlm_head"] == ("C++", "AVX2, for float32; no CUDA GPU")
    assert all(served[name][0] == "C++" for name in IN_CPP)
    monkeypatch.setattr(cpu_library, "bf16_obstacle", lambda: None)
    assert registry.choose("attention_block", "auto") == ("C++", "AVX2, for float32 and bfloat16; no CUDA GPU")
    served = {name: (impl, reason) for name, impl, reason in registry.explain(activation="relu")}
    assert served["feed_forward_block"] == ("torch", "the activation is relu; the kernel has gelu alone")
    assert registry.choose("attention_block", "torch") == ("torch", "asked for")
    monkeypatch.setattr(cpu_library, "obstacle", lambda: "it is not built")
    assert registry.choose("attention_block", "auto") == ("torch", "no CUDA GPU; it is not built")


def test_auto_says_what_serves_the_ops_in_cpp_beside_a_gpu(on_a_gpu, monkeypatch):
    monkeypatch.setattr(cpu_library, "obstacle", lambda: None)
    monkeypatch.setattr(cpu, "instructions", lambda: "AVX2")
    monkeypatch.setattr(cpu_library, "bf16_obstacle", lambda: "no AVX512_BF16")
    assert registry.choose("attention_block", "auto") == ("auto", "the kernels on the GPU, C++ (AVX2) elsewhere")
    monkeypatch.setattr(cpu_library, "obstacle", lambda: "it is not built")
    assert registry.choose("attention_block", "auto") == ("auto", "the kernels on the GPU, torch elsewhere")
    assert registry.choose("attention_block", "auto", head_size=256)[0] == "torch"


def test_auto_goes_by_the_device_of_the_tensors(on_a_gpu):
    assert {served for _, served, _ in registry.explain()} == {"auto"}
    x, weight = torch.randn(3, 8), torch.ones(8)
    y = registry.select("auto").dropout_add_norm(x, x, weight, weight, 1e-12)
    assert torch.equal(y, reference.dropout_add_norm(x, x, weight, weight, 1e-12))
    meta = x.to("meta")
    with pytest.raises(ValueError, match="need CUDA tensors, got x on meta"):
        registry.select("triton").dropout_add_norm(meta, meta, weight, weight, 1e-12)


def test_a_model_that_chose_by_device_can_be_pickled(on_a_gpu):
    config = ElectraConfig(
        vocab_size=30, embedding_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = ElectraModel(config).eval()
    ids = torch.tensor([[1, 2, 3]])
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(model(ids).last_hidden_state, again(ids).last_hidden_state)


def test_heads_too_large_for_the_kernels_go_to_torch_or_are_refused(on_a_gpu):
    choice = registry.choose("attention", "auto", head_size=256)
    assert choice == ("torch", "heads of size 256; the kernels go up to 128")
    with pytest.raises(ValueError, match="attention cannot run on it: heads of size 256"):
        registry.select("triton", head_size=256)


def with_activation(activation) -> ElectraConfig:
    return ElectraConfig(
        vocab_size=30, embedding_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, hidden_act=activation,
    )  # fmt: skip


def test_an_activation_that_the_kernels_do_not_know_goes_to_torch_or_is_refused(on_a_gpu):
    served = {name: (impl, reason) for name, impl, reason in registry.explain(activation="relu")}
    for name in ("linear_gelu", "feed_forward_block", "rtd_head"):
        assert served.pop(name) == ("torch", "the activation is relu; the kernel has gelu alone")
    assert {impl for impl, _ in served.values()} == {"auto"}
    for build in (ElectraModel, ElectraForPreTraining):
        with pytest.raises(ValueError, match=r"linear_gelu cannot run on it: the activation is relu; .* use 'auto'"):
            build(with_activation("relu"), impl="triton")
    with pytest.raises(ValueError, match="rtd_head cannot run on it: the activation is silu"):
        registry.choose("rtd_head", "triton", activation=torch.nn.functional.silu)
    model = ElectraModel(with_activation("relu")).eval()
    feed_forward, hidden = model.encoder.layer[0].intermediate, torch.randn(3, 8)
    assert torch.equal(feed_forward(hidden), feed_forward.dense(hidden).relu())


class Scaled:
    """An activation of a user: equal to all of its kind, and so without a hash."""

    def __init__(self, factor):
        self.factor = factor

    def __eq__(self, other):
        return isinstance(other, Scaled)

    def __call__(self, x):
        return self.factor * x


def test_functions_as_activations_are_kept_apart():
    models = [ElectraModel(with_activation(Scaled(factor))).eval() for factor in (1, 5)]
    hidden = torch.randn(3, 8)
    for model, factor in zip(models, (1, 5), strict=True):
        feed_forward = model.encoder.layer[0].intermediate
        assert torch.equal(feed_forward(hidden), factor * feed_forward.dense(hidden))
    function = weakref.ref(models[0].config.hidden_act)
    del model, models, feed_forward
    gc.collect()
    assert function() is None


def test_an_activation_that_nobody_knows_is_named():
    for ask in (lambda: registry.explain(activation="nope"), lambda: registry.select("torch", activation="nope")):
        with pytest.raises(ValueError, match=r"the activation must be one of .*, got 'nope'"):
            ask()


@pytest.mark.parametrize("activation", ["gelu", "gelu_python", torch.nn.functional.gelu])
def test_the_erf_gelu_is_served_by_any_of_its_names(on_a_gpu, activation):
    model = ElectraForPreTraining(with_activation(activation), impl="triton")
    assert model.electra.encoder.layer[0].intermediate.linear_gelu is registry.OPS["linear_gelu"].triton
    assert model.discriminator_predictions.rtd_head is registry.OPS["rtd_head"].triton


def test_an_impl_that_cannot_be_served_raises_when_the_model_is_built(without_gpu):
    with pytest.raises(ValueError, match=r"was asked for, .* no CUDA GPU"):
        ElectraModel(ElectraConfig(num_hidden_layers=1), impl="triton")


def test_unknown_impl_is_named():
    with pytest.raises(ValueError, match=r"auto, triton, torch, got 'cuda'"):
        registry.select("cuda")


def test_the_environment_stands_in_for_auto(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_IMPL", "torch")
    assert registry.explain()[0][2] == "asked for"
    monkeypatch.setenv("ELECTRA_FAST_IMPL", "")
    assert registry.resolve("auto") == "auto"
    monkeypatch.setenv("ELECTRA_FAST_IMPL", "fast")
    with pytest.raises(ValueError, match="'fast'"):
        registry.select()
