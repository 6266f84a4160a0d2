"""Exported ONNX files in onnxruntime beside torch."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import random_model

import electra_fast
from electra_fast.export import INPUTS, INT8_FILE, ONNX_FILE, OPSETS, OUTPUTS, export_onnx
from electra_fast.export.comparison import TOLERANCE
from electra_fast.finetuning.kinds.paper_heads import ElectraPaperForSequenceClassification

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

N_LAYERS, MAX_LENGTH = 2, 512
LOWEST = torch.finfo(torch.float32).min
FIELDS = {
    "ElectraForPreTraining": {"num_hidden_layers": N_LAYERS},
    "ElectraForCausalLM": {"is_decoder": True, "use_cache": False},
    "ElectraForSequenceClassification": {"num_labels": 3},
    "ElectraForTokenClassification": {"num_labels": 5},
}
LENGTHS = (1, 2, 17, 128, 511, 512)


class Exported:
    """A network beside its file."""

    def __init__(self, name: str, directory):
        self.name, self.path = name, directory / ONNX_FILE
        model_class = getattr(electra_fast, name, None) or ElectraPaperForSequenceClassification
        fields = {"num_hidden_layers": 1, "max_position_embeddings": MAX_LENGTH, **FIELDS.get(name, {})}
        self.model = random_model(model_class, **fields)
        self.errors = export_onnx(self.model, directory, quantize=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session, self.int8 = (
            onnxruntime.InferenceSession(directory / file, options, providers=["CPUExecutionProvider"])
            for file in (ONNX_FILE, INT8_FILE)
        )

    def inputs(self, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """With random ids and types; multiple choice has three choices of different padding."""
        if self.name == "ElectraForMultipleChoice":
            mask = torch.stack([mask, mask.flip(1), torch.ones_like(mask)], 1)
        return torch.randint(self.model.config.vocab_size, mask.shape), mask, torch.randint(2, mask.shape)

    @torch.no_grad()
    def compare(self, mask: torch.Tensor) -> None:
        """Mask [B, S]: equal at real tokens, and at padding too wherever that means something."""
        inputs = self.inputs(mask)
        feed = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
        found = self.session.run(None, feed)
        expected = self.model(*inputs)
        assert [output.name for output in self.session.get_outputs()] == list(OUTPUTS[self.name])
        for (name, fill), value in zip(OUTPUTS[self.name].items(), found, strict=True):
            got, want = torch.from_numpy(value), expected[name]
            assert got.shape == want.shape and got.dtype == torch.float32 and got.isfinite().all()
            if fill is not None and math.isnan(fill):
                got, want = got[mask != 0], want[mask != 0]
            torch.testing.assert_close(got, want, rtol=0, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By name; each is exported once."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        if name not in made:
            made[name] = Exported(name, tmp_path_factory.mktemp("onnx") / name)
        return made[name]

    return get


def padded(batch: int, length: int, side: str) -> torch.Tensor:
    """Row i has i padding positions more than the row before, as many as the length allows."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(batch) if side != "none" else ():
        n = min(row * max(1, length // 10), length - 1)
        mask[row, length - n :] = 0
    return mask.flip(1) if side == "left" else mask


@pytest.mark.parametrize("name", OUTPUTS)
def test_equal_to_torch(exported, name):
    network = exported(name)
    assert 0 < network.errors.largest < TOLERANCE
    for batch, length, side in (
        (1, 1, "none"),
        (9, 1, "none"),
        (3, 2, "left"),
        (9, 17, "right"),
        (7, 17, "left"),
        (2, 128, "right"),
        (2, 511, "left"),
        (1, 512, "none"),
    ):
        network.compare(padded(batch, length, side))


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTPUTS)
def test_equal_to_torch_for_every_batch_and_length(exported, name):
    network = exported(name)
    for length in range(1, MAX_LENGTH + 1) if name == "ElectraForPreTraining" else LENGTHS:
        for batch in (length % 9 + 1,) if length not in LENGTHS else range(1, 10):
            for side in ("none", "left", "right"):
                network.compare(padded(batch, length, side))


@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForSequenceClassification", "ElectraForCausalLM"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_padding_may_be_anywhere(exported, name, data):
    batch, length = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 24))
    bits = st.lists(st.integers(0, 1), min_size=length, max_size=length).filter(any)
    exported(name).compare(torch.tensor(data.draw(st.lists(bits, min_size=batch, max_size=batch))))


@pytest.mark.parametrize("name", OUTPUTS)
def test_shapes_are_whole_and_do_not_contradict_each_other(exported, name):
    onnx.checker.check_model(exported(name).path, full_check=True)
    onnx.shape_inference.infer_shapes(onnx.load(exported(name).path), check_type=True, strict_mode=True, data_prop=True)


@pytest.mark.parametrize("name", OUTPUTS)
def test_int8(exported, name):
    """Same inputs and outputs, int8 weights in all products, and a small error where there is no padding."""
    network, mask = exported(name), padded(4, 20, "right")
    for listed in ("get_inputs", "get_outputs"):
        theirs, ours = (
            [(x.name, x.type, x.shape) for x in getattr(s, listed)()] for s in (network.int8, network.session)
        )
        assert theirs == ours
    count = Counter(node.op_type for node in onnx.load(network.path.parents[1] / INT8_FILE).graph.node)
    assert (
        count["MatMulInteger"] + count["MatMul"] >= 8 and count["MatMul"] == 2 * network.model.config.num_hidden_layers
    )
    feed = {key: x.numpy() for key, x in zip(INPUTS, network.inputs(mask), strict=True)}
    for found, expected in zip(network.int8.run(None, feed), network.session.run(None, feed), strict=True):
        found, expected = found[expected > LOWEST], expected[expected > LOWEST]
        assert 0 < abs(found - expected).max() < 0.1 * max(1, abs(expected).max())
    assert 0 < network.errors.int8 < 0.1


def test_all_axes_are_dynamic(exported):
    for name, axes in (("ElectraModel", "batch length"), ("ElectraForMultipleChoice", "batch choices length")):
        for given_input in exported(name).session.get_inputs():
            assert (given_input.type, given_input.shape) == ("tensor(int64)", axes.split())
    logits = exported("ElectraForTokenClassification").session.get_outputs()[0]
    assert (logits.name, logits.shape) == ("logits", ["batch", "length", 5])


def test_a_longer_sequence_than_the_model_has_positions_for_fails(exported):
    with pytest.raises(Exception, match="out of data bounds"):
        exported("ElectraForPreTraining").compare(torch.ones(1, MAX_LENGTH + 1, dtype=torch.int64))


def test_the_graph_is_small(exported):
    network = exported("ElectraForPreTraining")
    graph = onnx.load(network.path).graph
    count = Counter(node.op_type for node in graph.node)
    assert {node.domain for node in graph.node} == {""} and not any(node.metadata_props for node in graph.node)
    assert count["Softmax"] == N_LAYERS and count["LayerNormalization"] == 2 * N_LAYERS + 1
    # A layer has two in attention, and six weights; then come the projection and the head.
    assert count["MatMul"] == 8 * N_LAYERS + 3
    assert count["Where"] == 2, "the mask is made once, and applied to the output once"
    assert len(graph.node) <= 30 + 35 * N_LAYERS
    tensors = [tensor.raw_data for tensor in graph.initializer if len(tensor.raw_data) > 16]
    assert len(set(tensors)) == len(tensors)
    weights = sum(parameter.numel() * 4 for parameter in network.model.parameters())
    assert sum(map(len, tensors)) <= weights
    assert network.path.stat().st_size < weights + 35_000


def test_what_padding_holds_does_not_matter(exported):
    session, mask = exported("ElectraForPreTraining").session, padded(4, 20, "left")
    ids, types = torch.randint(99, mask.shape), torch.randint(2, mask.shape)
    first, second = (
        session.run(None, dict(zip(INPUTS, (x.numpy() for x in (filled, mask, types)), strict=True)))[0]
        for filled in (ids, ids.masked_fill(mask == 0, 7))
    )
    assert (first == second).all() and (first[mask.numpy() == 0] == 0).all()


def test_answers_are_not_found_in_padding(exported):
    network, mask = exported("ElectraForQuestionAnswering"), padded(4, 20, "right")
    feed = dict(zip(INPUTS, (x.numpy() for x in network.inputs(mask)), strict=True))
    for logits in network.session.run(None, feed):
        assert (torch.from_numpy(logits)[mask == 0] == LOWEST).all()


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
def test_other_opsets(tmp_path, opset):
    model = random_model(electra_fast.ElectraForPreTraining, num_hidden_layers=1)
    assert export_onnx(model, tmp_path / "out", opset=opset).largest < TOLERANCE
    (imported,) = onnx.load(tmp_path / "out" / ONNX_FILE).opset_import
    assert (imported.domain, imported.version) == ("", opset)
