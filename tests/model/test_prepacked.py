"""Weights that the C++ encoder alone holds: the same results and values, less memory, and what is refused."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
import threading

import pytest
import torch
from cpu_pairs import NAMES, SMALL, limit_to, pair, tokens
from torch import nn

from electra_fast import ElectraConfig, ElectraForMaskedLM, ElectraForSequenceClassification, ElectraModel
from electra_fast.model.base import prepack_if_served
from electra_fast.model.cpu_parameters import Parameters
from electra_fast.model.prepacked import PrepackedParameter
from electra_fast.ops import cpu

pytestmark = pytest.mark.skipif(cpu.obstacle() is not None, reason=f"{cpu.obstacle()}")

IDS, PACKED = tokens([5, 1, 9])


def n_prepacked(model: nn.Module) -> int:
    return sum(type(parameter) is PrepackedParameter for parameter in model.parameters())


def has_values(model: nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(x, expected[key]) for key, x in state.items())


def states(model: ElectraModel) -> torch.Tensor:
    with torch.inference_mode():
        return model.encode_packed(IDS, PACKED)


@pytest.mark.parametrize("instructions", NAMES)
@pytest.mark.parametrize("sizes", [{}, {"embedding_size": 48}, {"hidden_size": 130, "intermediate_size": 67}], ids=str)
def test_all_is_as_before_and_the_way_back_keeps_every_bit(instructions, sizes, monkeypatch):
    limit_to(instructions, monkeypatch)
    model, reference = pair(**sizes)
    expected, before = reference.state_dict(), states(model)
    assert model.prepack_weights() is model
    assert n_prepacked(model) == len(list(model.parameters())) - 3  # the tables are read where they are
    assert has_values(model, expected)
    assert torch.equal(states(model), before)
    assert model.prepack_weights() is model
    assert model.unpack_weights() is model
    assert n_prepacked(model) == 0
    assert has_values(model, expected)
    assert torch.equal(states(model), before)


def test_it_tells_what_a_model_tells():
    model, reference = pair()
    model.prepack_weights()
    for prepacked, plain in zip(model.parameters(), reference.parameters(), strict=True):
        assert (prepacked.shape, prepacked.dtype, prepacked.device) == (plain.shape, plain.dtype, plain.device)
        assert prepacked.requires_grad and prepacked.grad is None
    for name in ("num_parameters", "get_memory_footprint"):
        assert getattr(model, name)() == getattr(reference, name)()
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert "PrepackedParameter([48, 72]" in repr(model.encoder.layer[0].output.dense.weight)


WAYS_BACK = {
    "unpack_weights": lambda model: model.unpack_weights(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "to": lambda model: model.to("cpu"),
    "double": lambda model: model.double().float(),
    "load_state_dict": lambda model: model.load_state_dict(model.state_dict()) and model,
    "quantize": lambda model: model.quantize("int8").quantize("fp32"),
}


@pytest.mark.parametrize("way", WAYS_BACK)
@pytest.mark.parametrize("in_inference_mode", [False, True])
def test_every_way_back_gives_a_model_that_trains(way, in_inference_mode):
    model, reference = pair()
    with torch.inference_mode(in_inference_mode):
        model.prepack_weights()
        found = WAYS_BACK[way](model)
    assert n_prepacked(found) == 0
    assert has_values(found, reference.state_dict())
    if in_inference_mode and way not in ("unpack_weights", "quantize"):
        return  # what torch makes there by itself never trains
    for network in (found, reference):
        network(torch.ones(1, 4, dtype=torch.long)).last_hidden_state.square().sum().backward()
    for got, expected in zip(found.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-4)


def test_saved_and_tied(tmp_path):
    model = ElectraForMaskedLM(ElectraConfig(**SMALL)).eval()
    expected = {key: x.clone() for key, x in model.state_dict().items()}
    model.prepack_weights().save_pretrained(tmp_path)
    assert has_values(ElectraForMaskedLM.from_pretrained(tmp_path), expected)
    assert model.generator_lm_head.weight is model.get_input_embeddings().weight
    assert has_values(model.unpack_weights(), expected)


def with_another_norm(model: ElectraModel) -> ElectraModel:
    model.encoder.layer[1].output.LayerNorm.weight = nn.Parameter(torch.ones(48))
    return model


REFUSED = {
    "gradients are enabled": lambda model: model(IDS[None]),
    "is in training mode": lambda model: torch.no_grad()(model.train())(IDS[None]),
    "padded form": lambda model: torch.no_grad()(model)(IDS[None], output_attentions=True),
    "its parts are others": lambda model: torch.no_grad()(with_another_norm(model))(IDS[None]),
    "linear needs a weight": lambda model: model.encoder.layer[0].output.dense(torch.ones(2, 72)),
    "add needs a weight": lambda model: model.encoder.layer[0].output.dense.weight + 1,
    "half needs a weight": lambda model: model.encoder.layer[1].half(),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_served_says_so_and_harms_nothing(message):
    model, reference = pair()
    model.prepack_weights()
    with pytest.raises(RuntimeError, match=rf"(?s){message}.*unpack_weights\(\)"):
        REFUSED[message](model)
    model.unpack_weights()
    if message != "its parts are others":
        assert has_values(model, reference.state_dict())


def test_what_cannot_be_prepacked():
    for model, reason in (
        (pair()[0].train(), "training mode"),
        (pair()[0].bfloat16(), "must be in fp32"),
        (pair(hidden_act="relu")[0], "the activation is relu"),
        (ElectraModel(ElectraConfig(**SMALL), impl="torch").eval(), "impl is not 'auto'"),
    ):
        prepack_if_served(model)
        with pytest.raises(ValueError, match=f"cannot serve it: .*{reason}"):
            model.prepack_weights()
        assert n_prepacked(model) == 0


def test_eight_bits_have_no_way_back():
    model = ElectraForSequenceClassification(ElectraConfig(**SMALL)).eval().quantize()
    ids = IDS[None]
    with torch.inference_mode():
        before = model(ids).logits
        fp32 = model.get_memory_footprint()
        model.prepack_weights()
        assert torch.equal(model(ids).logits, before)
    assert model.get_memory_footprint() < 0.6 * fp32
    for way in ("unpack_weights", "state_dict", "half", "quantize", "__deepcopy__"):
        with pytest.raises(ValueError, match="eight bits have no way back to fp32: load the model again"):
            copy.deepcopy(model) if way == "__deepcopy__" else getattr(model, way)()
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, before)


def test_what_others_hold_stays_and_comes_back():
    model, reference = pair()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = dict(model.named_parameters())
    other = ElectraModel(ElectraConfig(**SMALL)).eval()
    other.encoder.layer[0].output.dense.weight = held["encoder.layer.0.output.dense.weight"]
    model.prepack_weights()
    assert has_values(model, reference.state_dict())
    assert torch.isfinite(states(other)).all()
    model.unpack_weights()
    assert all(parameter is held[name] for name, parameter in model.named_parameters())
    before = model.state_dict()
    model(torch.ones(1, 4, dtype=torch.long)).last_hidden_state.square().sum().backward()
    optimizer.step()
    assert not has_values(model, before)


def test_a_parameter_in_two_places_stays_one():
    model, _ = pair()
    first, second = (layer.output.dense for layer in model.encoder.layer)
    second.weight = first.weight
    expected = {key: x.clone() for key, x in model.state_dict().items()}
    model.prepack_weights()
    assert first.weight is second.weight
    assert has_values(model.unpack_weights(), expected)
    assert first.weight is second.weight


def test_no_memory_for_the_copy_leaves_the_model_as_it_was(monkeypatch):
    model, reference = pair()
    real, calls = Parameters.replace, itertools.count()

    def replace(self, path, prepacked):
        real(self, path, prepacked)
        if next(calls) == 20:
            raise MemoryError

    monkeypatch.setattr(Parameters, "replace", replace)
    with pytest.raises(MemoryError):
        model.prepack_weights()
    assert n_prepacked(model) == 0
    assert has_values(model, reference.state_dict())


def test_threads_infer_while_one_prepacks_and_unpacks():
    model, _ = pair()
    expected, wrong, done = states(model), [], threading.Event()

    def infer():
        while not done.is_set():
            if not torch.equal(states(model), expected):
                wrong.append(1)

    threads = [threading.Thread(target=infer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        model.prepack_weights()
        model.unpack_weights()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


MEMORY = """
import sys, torch
from electra_fast import ElectraConfig, ElectraModel
from electra_fast.benchmarks.model.cold_start import resident_mb
from electra_fast.hub import weights
weights._PIECE_BYTES = 4 << 20
model, ids = ElectraModel.from_pretrained(sys.argv[1]), torch.ones(1, 4, dtype=torch.long)
loaded = resident_mb("VmHWM")
with torch.inference_mode():
    model.prepack_weights()(ids)
print(resident_mb("VmHWM") - loaded, resident_mb("VmRSS"), resident_mb("VmHWM"))
print(*(name for name in ("torch._dynamo", "sympy", "triton") if name in sys.modules))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status")
def test_loading_and_prepacking_hold_weights_once(tmp_path):
    config = ElectraConfig(**SMALL | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6})
    model = ElectraModel(config)
    model.save_pretrained(tmp_path)
    weights = model.get_memory_footprint() / 1e6  # 43 MB
    done = subprocess.run([sys.executable, "-c", MEMORY, tmp_path], capture_output=True, text=True, check=True)
    more, resident, peak = map(float, done.stdout.splitlines()[0].split())
    assert more < 0.3 * weights
    assert peak - resident < 0.7 * weights
    assert done.stdout.splitlines()[1] == "", "torch's compiler takes 150 MB and half a second"
