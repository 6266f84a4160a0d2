"""torch.compile, torch.export, torch.jit.trace and ONNX under `enable()`: transformers' own graph, for all lengths."""

import pytest
import torch
from electra_calls import assert_same, padded_batch, results, tiny
from served import layers  # noqa: F401  the fixture

from electra_fast.integrations.transformers import disable, enable, patch


@pytest.fixture(autouse=True)
def enabled():
    enable()
    yield
    disable()
    torch.compiler.reset()


def test_compile(layers):  # noqa: F811
    model = tiny("ElectraForSequenceClassification", num_hidden_layers=1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for call in (padded_batch(), padded_batch(2, 5)):
        layers.read()
        ours = compiled(**call).logits
        assert layers.read() == 0
        torch.testing.assert_close(ours, model(**call).logits, rtol=0, atol=1e-5)
        assert layers.read() > 0  # not compiled: served


def test_compiled_training(layers):  # noqa: F811
    model = tiny("ElectraForPreTraining", num_hidden_layers=1)
    call = padded_batch() | {"labels": torch.ones(3, 9, dtype=torch.long)}
    expected = results(patch(model), call)
    model.compile(backend="aot_eager")
    ours = results(model, call)
    assert_same(ours, expected)


def test_export_holds_for_other_lengths(layers):  # noqa: F811
    model, call = tiny("ElectraForTokenClassification", num_hidden_layers=1), padded_batch()
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=24)
    shapes = {name: {0: batch, 1: length} for name in call}
    program = torch.export.export(model, (), call, dynamic_shapes=shapes, strict=False)
    assert layers.read() == 0
    for other in (call, padded_batch(5, 14)):
        is_real = other["attention_mask"].bool()
        ours = program.module()(**other).logits[is_real]
        torch.testing.assert_close(ours, model(**other).logits[is_real], rtol=0, atol=1e-5)


def test_trace_holds_for_other_masks(layers):  # noqa: F811
    model, call = tiny("ElectraModel", attn_implementation="eager"), padded_batch()
    model.config.return_dict = False
    traced = torch.jit.trace(model, (call["input_ids"], call["attention_mask"]), check_trace=False)
    assert layers.read() == 0
    other = padded_batch(seed=3)
    is_real = other["attention_mask"].bool()
    ours = traced(other["input_ids"], other["attention_mask"])[0][is_real]
    torch.testing.assert_close(ours, model(**other)[0][is_real], rtol=0, atol=1e-5)


def test_onnx(layers, tmp_path):  # noqa: F811
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, call = tiny("ElectraForSequenceClassification", num_hidden_layers=1), padded_batch()
    shapes = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=24)} for name in call}
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (), path, kwargs=call, dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert layers.read() == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for other in (call, padded_batch(5, 14)):
        (logits,) = session.run(None, {name: x.numpy() for name, x in other.items()})
        torch.testing.assert_close(torch.from_numpy(logits), model(**other).logits, rtol=0, atol=1e-4)
