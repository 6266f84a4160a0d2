"""Recorded graphs: torch.compile, torch.export and torch.jit.trace."""

import subprocess
import sys

import pytest
import torch
from parity import CLASSES, VOCAB, assert_close, twins


def batch(lengths: list[int], name: str = "") -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, with a dimension for choices where there are."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, VOCAB, mask.shape)
    return (ids[:, None], mask[:, None]) if name == "ElectraForMultipleChoice" else (ids, mask)


def compare(recorded, model, lengths: list[int], name: str) -> None:
    ids, mask = batch(lengths, name)
    got, expected = recorded(ids, mask)[0], model(ids, mask)[0]
    if got.shape[:2] == mask.shape:
        got, expected = got[mask.bool()], expected[mask.bool()]
    assert_close(name, got, expected, 1e-10)


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "ElectraForCausalLM"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_model_serves_other_masks(name):
    """Packing depends on the mask's values: it must not be frozen into the trace."""
    _, model = twins(name, return_dict=False)
    model.requires_grad_(False)
    traced = torch.jit.trace(model, batch([6, 6], name), check_trace=False)
    compare(traced, model, [2, 6], name)


@pytest.mark.parametrize("name", ["ElectraForPreTraining", "ElectraForSequenceClassification"])
def test_an_exported_model_serves_other_shapes_and_masks(name):
    _, model = twins(name)
    rows, length = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("length", min=2, max=32)
    shapes = {"input_ids": {0: rows, 1: length}, "attention_mask": {0: rows, 1: length}}
    program = torch.export.export(model, batch([6, 5, 4]), dynamic_shapes=shapes)
    compare(program.module(), model, [9, 3, 2, 5], name)


SCRIPT = """
import torch, electra_fast

model = electra_fast.ElectraForPreTraining(electra_fast.ElectraConfig(num_hidden_layers=1, vocab_size=97)).eval()
compiled = torch.compile(model, backend="aot_eager")
for lengths in ([6, 2], [4, 1, 3], [5, 5]):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(0, 97, mask.shape)
    torch.testing.assert_close(compiled(ids, mask).logits, model(ids, mask).logits)
"""


def test_a_compiled_model_serves_one_batch_after_another():
    """In a process of its own: dynamo may fail or not by what it compiled before."""
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True)
