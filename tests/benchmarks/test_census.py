"""The census of a step: what is a launch, how many bytes it moves, and whose it is; and small's step as a whole.

The whole step is taken in a process of its own, because pytest's process uses Triton's interpreter.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from electra_fast.benchmarks.ops.census import META, OBJECTIVE, REST, Recorder
from electra_fast.benchmarks.ops.resources import written_table
from electra_fast.benchmarks.ops.steps import MARK
from torch import nn

README = Path(__file__).parents[2] / "kernels" / "README.md"

WHOLE_STEP = """
import json
from dataclasses import asdict
from electra_fast.benchmarks.ops.census import take
from electra_fast.benchmarks.ops.prediction import Gpu
from electra_fast.pretraining.recipes import preset

step, gpu = take(preset("small")), Gpu()
events = [
    (e.name, e.part, e.is_backward, e.n_launches, e.n_bytes, e.launch is not None, gpu.seconds(e)) for e in step.events
]
units = [sum(e.n_bytes for e in step.layer(network)) / step.unit for network in ("discriminator", "generator")]
print(json.dumps(dict(events=events, n_launches=step.n_launches, units=units, layer=len(step.layer()))))
"""


def events_of(compute, model=None):
    recorder = Recorder(seq_length=1)
    with recorder.listening(model or nn.Module()):
        compute()
    return recorder.events


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(shape, dtype=dtype, device=META)


A, B, C = meta(8, 4), meta(4, 16), meta(8, 16)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: A.view(4, 8).t()[1:], []),
        (lambda: torch.empty_like(A), []),
        (lambda: torch.ones(3) + 1, []),
        (lambda: A + A, [("aten::add", 1, 2 * 64)]),
        (lambda: A + A[:1].expand(8, 4), [("aten::add", 1, 2 * (32 + 4 + 32))]),
        (lambda: A.float(), [("aten::_to_copy", 1, 2 * 32 + 4 * 32)]),
        (lambda: A.to(torch.bfloat16), []),
        (lambda: A.add_(1), [("aten::add_", 1, 2 * 64)]),
        (lambda: A.fill_(1), [("aten::fill_", 1, 2 * 32)]),
        (lambda: A.copy_(A.flip(0)), [("aten::flip", 1, 2 * 64), ("aten::copy_", 1, 2 * 64)]),
        (lambda: A @ B, [("aten::mm", 1, 2 * (32 + 64 + 128))]),
        (lambda: torch.addmm(meta(16), A, B), [("aten::addmm", 1, 2 * (16 + 32 + 64 + 128))]),
        # The matrix is copied to the result, which the product reads and writes.
        (lambda: torch.addmm(C, A, B), [("aten::addmm", 2, 2 * (4 * 128 + 32 + 64))]),
        (lambda: C.addmm_(A, B), [("aten::addmm_", 1, 2 * (2 * 128 + 32 + 64))]),
    ],
    ids=["views", "allocations", "on the cpu", "add", "broadcast", "cast", "no cast", "in place", "fill", "copy",
         "product", "with a bias", "with a matrix", "onto a matrix"],
)  # fmt: skip
def test_launches_and_bytes_of_an_operation(compute, expected):
    assert [(e.name, e.n_launches, e.n_bytes) for e in events_of(compute)] == expected


def test_a_product_knows_its_sizes():
    assert [e.product for e in events_of(lambda: (A @ B, A.t() @ C))] == [(8, 16, 4), (4, 16, 8)]


def test_a_backward_belongs_to_the_module_whose_forward_made_its_node():
    model = nn.ModuleDict({"net": nn.ModuleDict({"layer": nn.ModuleList(nn.Linear(4, 4) for _ in range(2))})}).to(META)

    def compute():
        x = meta(8, 4, dtype=torch.float32)
        for layer in model["net"]["layer"]:
            x = layer(x)
        x.sum().backward()

    found = events_of(compute, model)
    by_part = {part: [e.is_backward for e in found if e.part == part] for part in dict.fromkeys(e.part for e in found)}
    assert [e.name for e in found if e.part == "net.layer.1"] == ["aten::addmm", "aten::mm", "aten::mm", "aten::sum"]
    assert by_part["net.layer.0"] == [False, True, True] and by_part["net.layer.1"] == [False, True, True, True]
    assert set(by_part) == {"net.layer.0", "net.layer.1", REST}


@pytest.fixture(scope="module")
def small():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", WHOLE_STEP], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_layer_of_small_does_the_same(small):
    layers = {}
    for name, part, is_backward, *counted, _, _ in small["events"]:
        if ".layer." in part:
            layers.setdefault(part, []).append((name, is_backward, *counted))
    assert len(layers) == 24
    for network in ("discriminator", "generator"):
        # The first layer's gradient goes on to the embeddings, and the last one's comes from the heads: adds differ.
        inner = [sorted(done) for part, done in layers.items() if part.startswith(network)][1:-1]
        assert all(done == inner[0] for done in inner)


def test_the_whole_step_of_small(small):
    names = {name for name, *_, is_ours, _ in small["events"] if is_ours}
    assert {"adamw_kernel", "grad_norm_kernel", "mask_tokens_kernel", "short_fwd_kernel", "short_bwd_kernel"} <= names
    assert {part.split(".")[0] for _, part, *_ in small["events"]} == {
        "generator", "discriminator", "optimizer", OBJECTIVE, REST,
    }  # fmt: skip
    assert all(n_launches and n_bytes and 0 < seconds < 1 for *_, n_launches, n_bytes, _, seconds in small["events"])
    assert small["layer"] > 10 and all(20 < units < 200 for units in small["units"])


def test_small_launches_no_more_than_is_written(small):
    written = next(line for line in written_table(README, MARK).splitlines() if line.startswith("| small 128 x 128 "))
    assert small["n_launches"] == int(written.split("|")[2])
