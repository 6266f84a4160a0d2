"""The registry: every op is served, a named impl is kept to, nothing falls back in silence."""

import dataclasses

import pytest

from electra_fast import ElectraConfig, ElectraModel, ops, reference


def test_every_op_of_the_registry_has_a_torch_implementation():
    selected = ops.select("torch")
    for name in ops.OPS:
        assert getattr(selected, name) is getattr(reference, name)


def test_auto_says_why():
    assert ops.explain() == [(name, "torch", "no Triton kernel yet") for name in ops.OPS]


def test_an_impl_that_cannot_be_served_raises_when_the_model_is_built():
    with pytest.raises(ValueError, match="no Triton kernel"):
        ElectraModel(ElectraConfig(num_hidden_layers=1), impl="triton")


def test_unknown_impl_is_named():
    with pytest.raises(ValueError, match=r"auto, triton, torch, got 'cuda'"):
        ops.select("cuda")


def test_the_environment_stands_in_for_auto(monkeypatch):
    monkeypatch.setenv("ELECTRA_FAST_IMPL", "torch")
    assert ops.explain()[0][2] == "asked for"
    monkeypatch.setenv("ELECTRA_FAST_IMPL", "fast")
    with pytest.raises(ValueError, match="'fast'"):
        ops.select()


def test_an_entry_with_a_kernel_is_preferred_by_auto_and_left_by_torch(monkeypatch):
    def kernel(*args):
        return args

    entry = dataclasses.replace(ops.OPS["attention"], triton=kernel)
    monkeypatch.setitem(ops.OPS, "attention", entry)
    assert ops.choose("attention", "auto")[0] == ops.choose("attention", "triton")[0] == "triton"
    assert ops.choose("attention", "torch")[0] == "torch"
