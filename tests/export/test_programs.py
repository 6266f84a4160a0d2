"""`electra-fast export`: programs of torch.export, what is refused, and which files are left."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import TINY, edit, random_model

import electra_fast
from electra_fast.cli.main import main
from electra_fast.export import (
    INT8_FILE,
    ONNX_FILE,
    OUTPUTS,
    PROGRAM_FILE,
    Exportable,
    export_onnx,
    export_program,
    load_network,
    onnx_files,
)
from electra_fast.export.comparison import TOLERANCE, largest_difference, relative_error
from electra_fast.export.directory import written_beside
from electra_fast.finetuning.kinds.paper_heads import ElectraPaperForQuestionAnswering

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox"]
SHAPES = [(1, 1), (1, 7), (5, 1), (9, 33), (2, 64)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """Of a discriminator, with its tokenizer."""
    path = tmp_path_factory.mktemp("discriminator")
    random_model(electra_fast.ElectraForPreTraining, num_hidden_layers=1).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def model() -> electra_fast.ElectraForPreTraining:
    return random_model(electra_fast.ElectraForPreTraining, num_hidden_layers=1)


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def fail(capsys, *argv: object) -> str:
    """The one line that a user's mistake gives."""
    code, captured = main(["export", *map(str, argv)]), capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert captured.err.startswith("electra-fast export: error: ") and captured.err.count("\n") == 1
    return captured.err


# Programs

SCRIPT = """
import sys
sys.modules["electra_fast"] = None
import torch

for path in sys.argv[1:]:
    program = torch.export.load(path + "/model.pt2").module()
    torch.save([program(*inputs) for inputs in torch.load(path + "/inputs.pt")], path + "/outputs.pt")
"""


def test_a_program_runs_without_this_package(tmp_path):
    names = ("ElectraForQuestionAnswering", "ElectraForMultipleChoice")
    expected = {}
    for name in names:
        model = random_model(getattr(electra_fast, name), num_hidden_layers=1)
        assert export_program(model, tmp_path / name) < TOLERANCE
        batches = [Exportable(model).inputs(*shape) for shape in SHAPES]
        torch.save(batches, tmp_path / name / "inputs.pt")
        with torch.no_grad():
            expected[name] = [model(*inputs) for inputs in batches]
    subprocess.run([sys.executable, "-c", SCRIPT, *(tmp_path / name for name in names)], check=True, cwd=tmp_path)
    for name in names:
        for got, want in zip(torch.load(tmp_path / name / "outputs.pt"), expected[name], strict=True):
            assert list(got) == list(OUTPUTS[name])
            for key, value in got.items():
                torch.testing.assert_close(value, want[key], rtol=0, atol=1e-5)


def test_every_batch_that_is_compared_has_padding_on_both_sides(model):
    _, mask, types = Exportable(model).inputs(3, 9)
    assert mask.tolist() == [[1] * 9, [1] * 6 + [0] * 3, [0] * 3 + [1] * 6]
    assert set(types.flatten().tolist()) == {0, 1}


def test_the_model_stays_as_it_was(model, tmp_path):
    model.train().to(torch.bfloat16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    export_program(model, tmp_path / "out")
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    config = electra_fast.ElectraConfig.from_pretrained(tmp_path / "out")
    assert (config.architectures, config.dtype) == (["ElectraForPreTraining"], torch.float32)
    program = torch.export.load(tmp_path / "out" / PROGRAM_FILE)
    assert {value.dtype for value in program.state_dict.values()} == {torch.float32}


def test_what_a_config_asks_for_is_left_out():
    fields = {"output_hidden_states": True, "output_attentions": True, "return_dict": False}
    model = random_model(electra_fast.ElectraModel, num_hidden_layers=1, chunk_size_feed_forward=2, **fields)
    exportable = Exportable(model)
    inputs = exportable.inputs(3, 33)
    (name, value), *others = exportable.program().module()(*inputs).items()
    assert name == "last_hidden_state" and not others
    torch.testing.assert_close(value, exportable(*inputs)[name])


# What is refused


def test_networks_that_cannot_be_exported(tmp_path):
    config = electra_fast.ElectraConfig(**TINY)
    with pytest.raises(ValueError, match=r"must be one of ElectraModel, .*, got ElectraPaperForQuestionAnswering"):
        export_program(ElectraPaperForQuestionAnswering(config), tmp_path / "out")
    config.is_decoder = True
    with pytest.raises(ValueError, match="ElectraForCausalLM with a key-value cache cannot be exported: set use_cache"):
        export_onnx(electra_fast.ElectraForCausalLM(config), tmp_path / "out")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("opset", [17, 24])
def test_opsets_that_are_not_served(model, tmp_path, opset):
    with pytest.raises(ValueError, match=f"opset must be from 18 to 23, got {opset}"):
        export_onnx(model, tmp_path / "out", opset=opset)


def test_a_missing_extra_is_named(model, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(ImportError, match=r"ONNX export needs .*onnxscript.*: pip install 'electra_fast\[onnx\]'"):
        export_onnx(model, tmp_path / "out")


def test_where_nothing_is_written(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="the parent of the output directory does not exist"):
        export_program(model, tmp_path / "no" / "out")
    with pytest.raises(FileExistsError, match=r"the output directory exists: .*; --overwrite"):
        export_program(model, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="and is no directory"):
        export_program(model, tmp_path / "file", overwrite=True)
    assert files(tmp_path) == {"file"}


def test_a_file_that_computes_something_else_is_not_left(model, tmp_path, monkeypatch):
    needs_onnx()
    attention = onnx_files._attention

    def without_scale(query, key, value, mask, *rest, **options):
        return attention(query, key, key, mask, *rest, **options)

    monkeypatch.setattr(onnx_files, "_attention", without_scale)
    with pytest.raises(ValueError, match=r"exported ElectraForPreTraining does not compute .* logits must be within 1"):
        export_onnx(model, tmp_path / "out")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("wrong", [float("nan"), 0.1])
def test_any_difference_is_found(model, wrong):
    exportable = Exportable(model)
    assert largest_difference(exportable, lambda inputs: exportable(*inputs)) == 0

    def run(inputs):
        outputs = exportable(*inputs)
        outputs["logits"][-1, -1] += wrong if inputs[0].shape[1] == TINY["max_position_embeddings"] else 0.0
        return outputs

    with pytest.raises(ValueError, match=r"inputs of shape \(4, 64\) logits must be within"):
        largest_difference(exportable, run)


@pytest.mark.parametrize("factor", [float("nan"), 0.0, -1.0])
def test_int8_that_is_no_better_than_zeros_is_refused(factor):
    exportable = Exportable(random_model(electra_fast.ElectraForQuestionAnswering, num_hidden_layers=1))

    def run(inputs, factor=factor):
        return {name: value * factor for name, value in exportable(*inputs).items()}

    assert relative_error(exportable, lambda inputs: run(inputs, 1.25)) == pytest.approx(0.25, rel=1e-3)
    with pytest.raises(ValueError, match=r"must compute in int8 nearly what it does in fp32, and errs by (nan|\d+)%"):
        relative_error(exportable, run)


def test_a_failure_leaves_what_was_there(model, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / PROGRAM_FILE).write_text("old")
    (out / "notes.txt").write_text("kept")
    monkeypatch.setattr(torch.export, "load", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export_program(model, out, overwrite=True)
    assert files(tmp_path) == {"out"} and (out / PROGRAM_FILE).read_text() == "old"
    monkeypatch.undo()
    export_program(model, out, overwrite=True)
    assert files(out) == {PROGRAM_FILE, "config.json", "notes.txt"} and (out / "notes.txt").read_text() == "kept"


def test_a_file_of_another_model_does_not_stay(tmp_path):
    for written in ((INT8_FILE, ONNX_FILE, "config.json"), (ONNX_FILE,)):
        with written_beside(tmp_path / "out", (INT8_FILE, ONNX_FILE), overwrite=True) as temporary:
            (temporary / "onnx").mkdir()
            for name in written:
                (temporary / name).touch()
        assert files(tmp_path / "out") == {"onnx", "config.json"} and files(tmp_path) == {"out"}
        assert files(tmp_path / "out" / "onnx") == {Path(name).name for name in written} - {"config.json"}


# The subcommand


def test_onnx_from_the_command_line(capfd, directory, tmp_path):
    needs_onnx()
    assert main(["export", str(directory), str(tmp_path / "out"), "--opset", "18", "--quantize"]) == 0
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith(f"wrote {tmp_path / 'out' / ONNX_FILE}, 0.") and "ElectraForPreTraining" in lines[0]
    assert lines[1].startswith("beside it config.json, ") and lines[1].endswith("vocab.txt")
    assert float(lines[2].removeprefix("largest difference between onnxruntime and the model: ")) < 1e-4
    assert lines[3].startswith(f"wrote {tmp_path / 'out' / INT8_FILE}, 0.") and "% of the outputs" in lines[3]
    assert len(lines) == 4 and captured.err == ""
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("the fox")["input_ids"] == [2, 5, 6, 3]


def test_a_program_from_the_command_line(capsys, directory, tmp_path):
    options = [str(directory), str(tmp_path / "out"), "--format", "torch"]
    assert main(["export", *options, "--network", "ElectraModel"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"wrote {tmp_path / 'out' / PROGRAM_FILE}") and captured.err == ""
    assert files(tmp_path / "out") >= {PROGRAM_FILE, "config.json", "vocab.txt"}
    assert "the output directory exists" in fail(capsys, *options)
    assert main(["export", *options, "--overwrite"]) == 0


def test_mistakes_are_one_line(capsys, directory, tmp_path):
    out = tmp_path / "out"
    for arguments, message in (
        ((tmp_path / "no", out), "neither a directory nor a name of a model on the Hub"),
        ((directory, out, "--network", "Electra"), "must be one of ElectraModel, "),
        ((directory, out, "--network", "ElectraForMaskedLM"), "must be an ElectraForMaskedLM, but lacks generator"),
        ((directory, out, "--format", "torch", "--opset", "20"), "--opset needs --format onnx, got 20"),
        ((directory, out, "--format", "torch", "--quantize"), "--quantize needs --format onnx, got True"),
        ((directory, out / "deeper", "--format", "torch"), "the parent of the output directory does not exist"),
    ):
        assert message in fail(capsys, *arguments)
    assert files(tmp_path) == set()


def test_a_network_is_what_its_config_says(directory, tmp_path):
    assert type(load_network(directory)) is electra_fast.ElectraForPreTraining
    config = electra_fast.ElectraConfig(**TINY)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"must be one of ElectraModel, .*, got nothing of its architecture"):
        load_network(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    random_model(electra_fast.ElectraForPreTraining).save_pretrained(tmp_path)
    edit(tmp_path, lambda tensors: {k: v for k, v in tensors.items() if "layer.1.output.dense.bias" not in k})
    with pytest.raises(ValueError, match=r"but lacks .*layer\.1\.output\.dense\.bias"):
        load_network(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_network(tmp_path)
