"""Exported files in the programs of others: transformers.js in Node, optimum, AOTInductor."""

from __future__ import annotations

import json
import math
import shutil
import subprocess

import pytest
import torch
from tiny_models import random_model

import electra_fast
from electra_fast.export import INPUTS, OUTPUTS, PROGRAM_FILE, Exportable, export_onnx, export_program

pytestmark = pytest.mark.slow

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "fox", "##es", "e", "林", "."]
TEXTS = ["The foxes.", "É 林林 the [MASK]!", ""]
TYPES = ("fp32", "q8")
# Those that transformers.js has a class for; of the others it runs the file as it does an ElectraModel.
PIPELINES = {
    "ElectraForSequenceClassification": "text-classification",
    "ElectraForTokenClassification": "token-classification",
}

JAVASCRIPT = """
const { AutoModel, AutoTokenizer, Tensor, env, pipeline } = require('@huggingface/transformers');
const { mkdirSync, readFileSync } = require('fs');
const root = process.argv[2];
env.allowRemoteModels = false;
env.localModelPath = root + '/';
const asked = JSON.parse(readFileSync(root + '/asked.json', 'utf-8'));
(async () => {
  const answers = {};
  for (const [name, { inputs, task }] of Object.entries(asked.networks)) {
    const feed = {};
    for (const [key, { values, shape }] of Object.entries(inputs)) {
      feed[key] = new Tensor('int64', BigInt64Array.from(values.map(BigInt)), shape);
    }
    const answer = answers[name] = { };
    for (const dtype of asked.types) {
      const model = await AutoModel.from_pretrained(name, { dtype });
      const output = await model(feed);
      answer[dtype] = {};
      for (const [key, tensor] of Object.entries(output)) answer[dtype][key] = [Array.from(tensor.data), tensor.dims];
    }
    if (task) {
      const classifier = await pipeline(task, name, { dtype: 'fp32' });
      answer.pipeline = await classifier(asked.texts[0]);
    }
    const tokenizer = await AutoTokenizer.from_pretrained(name);
    answer.ids = asked.texts.map((text) => tokenizer.encode(text));
  }
  console.log(JSON.stringify(answers));
})();
"""


@pytest.fixture(scope="module")
def node() -> str:
    path = shutil.which("node")
    found = path and subprocess.run([path, "-e", "require.resolve('@huggingface/transformers')"], capture_output=True)
    if not found or found.returncode:
        pytest.skip("Node with @huggingface/transformers is not there: make test-files installs it")
    return path


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """Of all classes but the paper's, each with an int8 file and a tokenizer; and their models."""
    root, models = tmp_path_factory.mktemp("networks"), {}
    tokenizer = electra_fast.ElectraTokenizer({token: i for i, token in enumerate(TOKENS)}, model_max_length=64)
    for name in OUTPUTS:
        if not name.startswith("ElectraPaper"):
            fields = {"is_decoder": True, "use_cache": False} if name == "ElectraForCausalLM" else {}
            models[name] = random_model(getattr(electra_fast, name), num_hidden_layers=1, **fields)
            export_onnx(models[name], root / name, tokenizer, quantize=True)
    return root, models


def is_meant(name: str, mask: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Which values of an output are no padding's."""
    return mask == 1 if value.shape[: mask.ndim] == mask.shape else torch.ones(value.shape, dtype=torch.bool)


@torch.no_grad()
def test_transformers_js(node, directories):
    """All classes: fp32 is torch's to 1e-4, int8 near it, and its tokenizer gives our ids."""
    root, models = directories
    inputs = {name: Exportable(model).inputs(4, 20) for name, model in models.items()}
    networks = {
        name: {
            "inputs": {
                key: {"values": x.flatten().tolist(), "shape": x.shape} for key, x in zip(INPUTS, tensors, strict=True)
            },
            "task": PIPELINES.get(name),
        }
        for name, tensors in inputs.items()
    }
    (root / "asked.json").write_text(json.dumps({"networks": networks, "types": TYPES, "texts": TEXTS}))
    (root / "run.js").write_text(JAVASCRIPT, encoding="utf-8")
    result = subprocess.run([node, root / "run.js", root], capture_output=True, text=True, check=True)
    answers = json.loads(result.stdout)
    tokenizer = electra_fast.ElectraTokenizer.from_pretrained(root / "ElectraModel")
    for name, model in models.items():
        expected, mask = model(*inputs[name], return_dict=True), inputs[name][1]
        for dtype, bound in zip(TYPES, (1e-4, 0.1), strict=True):
            assert list(answers[name][dtype]) == list(OUTPUTS[name])
            for key, (values, shape) in answers[name][dtype].items():
                got, want = torch.tensor(values).reshape(shape), expected[key]
                real = is_meant(name, mask, want)
                scale = max(1.0, want[real].abs().max().item())
                torch.testing.assert_close(got[real], want[real], rtol=0, atol=bound * scale)
        assert answers[name]["ids"] == tokenizer(TEXTS)["input_ids"]
    batch = tokenizer(TEXTS[:1], return_tensors="pt")
    scores = models["ElectraForSequenceClassification"](**batch).logits.softmax(-1)[0]
    (found,) = answers["ElectraForSequenceClassification"]["pipeline"]
    assert found["label"] == f"LABEL_{scores.argmax()}" and math.isclose(found["score"], scores.max(), abs_tol=1e-4)
    assert len(answers["ElectraForTokenClassification"]["pipeline"]) <= len(batch["input_ids"][0])


OPTIMUM = {
    "ElectraModel": "ORTModelForFeatureExtraction",
    "ElectraForMaskedLM": "ORTModelForMaskedLM",
    "ElectraForSequenceClassification": "ORTModelForSequenceClassification",
    "ElectraForTokenClassification": "ORTModelForTokenClassification",
    "ElectraForMultipleChoice": "ORTModelForMultipleChoice",
    "ElectraForQuestionAnswering": "ORTModelForQuestionAnswering",
}


@torch.no_grad()
def test_optimum(directories):
    optimum = pytest.importorskip("optimum.onnxruntime", exc_type=ImportError)
    root, models = directories
    for name, theirs in OPTIMUM.items():
        inputs = Exportable(models[name]).inputs(3, 9)
        feed, expected = dict(zip(INPUTS, inputs, strict=True)), models[name](*inputs, return_dict=True)
        for file, bound in (("model.onnx", 1e-4), ("model_quantized.onnx", 0.1)):
            output = getattr(optimum, theirs).from_pretrained(root / name, file_name=file)(**feed)
            for key in OUTPUTS[name]:
                real = is_meant(name, inputs[1], expected[key])
                scale = max(1.0, expected[key][real].abs().max().item())
                torch.testing.assert_close(output[key][real], expected[key][real], rtol=0, atol=bound * scale)


def test_a_program_compiles_ahead_of_time(tmp_path):
    """With AOTInductor, for any batch and length; the result runs without the program."""
    if shutil.which("g++") is None:
        pytest.skip("AOTInductor needs a C++ compiler: g++ is not there")
    model = random_model(electra_fast.ElectraForQuestionAnswering, num_hidden_layers=1)
    export_program(model, tmp_path / "program")
    path = torch._inductor.aoti_compile_and_package(
        torch.export.load(tmp_path / "program" / PROGRAM_FILE), package_path=str(tmp_path / "compiled.pt2")
    )
    shutil.rmtree(tmp_path / "program")
    run, exportable = torch._inductor.aoti_load_package(path), Exportable(model)
    for shape in ((1, 1), (1, 7), (5, 1), (9, 33), (2, 64)):
        inputs = exportable.inputs(*shape)
        expected, got = exportable(*inputs), run(*inputs)
        assert list(got) == list(OUTPUTS["ElectraForQuestionAnswering"])
        for key, value in expected.items():
            torch.testing.assert_close(got[key], value, rtol=0, atol=1e-5)
