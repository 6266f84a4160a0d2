"""Who runs the model: electra_fast and its peers, all with one face.

A provider is built from a folder of files (files.py), takes arrays (`inputs`), runs (this is timed), and gives hidden
states for the comparison (`states`). Each provider imports what it needs when it is built, so that a process of its own
loads no other library. All use the same number of threads; outputs that need no copy are not copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import OURS

CAPTURED = f"{OURS}, captured"
EAGER, SDPA, COMPILED = "transformers eager", "transformers sdpa", "transformers sdpa, compiled"
ONNX, ONNX_INT8, OPENVINO_INT8 = "model.onnx", "model.int8.onnx", "openvino.int8.xml"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "last_hidden_state"


@dataclass(frozen=True)
class Setup:
    """The settings that all providers of a run share: the folder with the model, "cpu" or "cuda", threads on a CPU."""

    folder: Path
    device: str
    threads: int


class Provider(Protocol):
    """One implementation of the model."""

    def inputs(self, ids: np.ndarray, mask: np.ndarray) -> tuple:
        """The arguments of `run` for ids and mask [B, S] int64."""

    def run(self, *inputs: Any) -> Any:
        """The forward pass, done when it returns."""

    def states(self, output: Any) -> np.ndarray:
        """Hidden states [B, S, H] fp32; at padding any number."""


class _Torch:
    """A module of torch, called as both libraries are."""

    def __init__(self, model: Any, setup: Setup):
        import torch

        torch.set_num_threads(setup.threads)
        self.torch, self.device, self.model = torch, torch.device(setup.device), model.to(setup.device).eval()

    def inputs(self, ids: np.ndarray, mask: np.ndarray) -> tuple:
        return tuple(self.torch.from_numpy(x).to(self.device) for x in (ids, mask))

    def run(self, ids: Any, mask: Any) -> Any:
        with self.torch.inference_mode():
            output = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if output.is_cuda:
            self.torch.cuda.synchronize()
        return output

    def states(self, output: Any) -> np.ndarray:
        return output.float().cpu().numpy()


class ElectraFast(_Torch):
    """Our encoder."""

    def __init__(self, setup: Setup, dtype: str):
        from ...model.backbone import ElectraModel

        super().__init__(ElectraModel.from_pretrained(setup.folder, dtype=_torch_dtype(dtype)), setup)


class Captured(ElectraFast):
    """Ours, replayed as CUDA graphs."""

    def __init__(self, setup: Setup, dtype: str):
        super().__init__(setup, dtype)
        self.model.capture(max_tokens=1 << 20)


class Transformers(_Torch):
    """The encoder of transformers."""

    def __init__(self, setup: Setup, dtype: str, attention: str = "sdpa"):
        import transformers

        options = {"dtype": _torch_dtype(dtype), "attn_implementation": attention}
        super().__init__(transformers.ElectraModel.from_pretrained(setup.folder, **options), setup)


class Compiled(Transformers):
    """Compiled once for all shapes on a CPU; for every shape anew on a GPU, where that is faster."""

    def __init__(self, setup: Setup, dtype: str):
        super().__init__(setup, dtype)
        self.model.compile(dynamic=setup.device == "cpu")


class OnnxRuntime:
    """A session of onnxruntime on a CPU."""

    def __init__(self, setup: Setup, dtype: str):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = setup.threads
        # Idle threads spin for more work, and would take the processor from whoever is next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 3
        file = setup.folder / (ONNX_INT8 if dtype == "int8" else ONNX)
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def inputs(self, ids: np.ndarray, mask: np.ndarray) -> tuple:
        return ids, mask

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run((OUTPUT,), dict(zip(INPUTS, (ids, mask), strict=True)))[0]

    def states(self, output: np.ndarray) -> np.ndarray:
        return output


class OpenVino:
    """A network that OpenVINO has compiled for a CPU."""

    def __init__(self, setup: Setup, dtype: str):
        import openvino

        # Without the hint it computes fp32 networks in bf16 where the processor can.
        precision = {"bf16": "bf16"}.get(dtype, "f32")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": setup.threads,
            "INFERENCE_PRECISION_HINT": precision,
        }
        file = setup.folder / (OPENVINO_INT8 if dtype == "int8" else ONNX)
        self.request = openvino.Core().compile_model(file, "CPU", options).create_infer_request()

    def inputs(self, ids: np.ndarray, mask: np.ndarray) -> tuple:
        return ids, mask

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        self.request.infer([ids, mask], share_inputs=True, share_outputs=True)
        return self.request.get_output_tensor(0).data

    def states(self, output: np.ndarray) -> np.ndarray:
        return output.copy()  # the next run overwrites it


def _torch_dtype(dtype: str) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, dtype)


@dataclass(frozen=True)
class Entry:
    """A provider of the table.

    Attributes:
        against: the peer that it belongs to; None is ours.
        build: makes the provider from a setup, a dtype and what `make` is given besides.
        dtypes, devices: the runs that it takes part in.
        own_dtype: its dtype where that is not the run's.
        files: the files that it needs beside the weights.
        modules: what must be installed.
    """

    name: str
    against: str | None
    build: Callable[..., Provider]
    dtypes: tuple[str, ...] = ("fp32", "bf16", "fp16")
    devices: tuple[str, ...] = ("cpu",)
    own_dtype: str | None = None
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ("transformers",)

    def make(self, setup: Setup, dtype: str, **options: Any) -> Provider:
        return self.build(setup, self.own_dtype or dtype, **options)


_BOTH = ("cpu", "cuda")
_ORT, _OPENVINO = ("onnx", "onnxruntime"), ("onnx", "openvino")
TABLE = (
    Entry(OURS, None, ElectraFast, ("fp32", "bf16", "fp16", "int8"), _BOTH, modules=()),
    Entry(CAPTURED, None, Captured, devices=("cuda",), modules=()),
    Entry(f"{OURS} fp32", None, ElectraFast, ("int8",), own_dtype="fp32", modules=()),
    Entry(EAGER, "transformers", partial(Transformers, attention="eager"), devices=_BOTH),
    Entry(SDPA, "transformers", Transformers, devices=_BOTH),
    Entry(f"{SDPA} fp32", "transformers", Transformers, ("int8",), own_dtype="fp32"),
    Entry(COMPILED, "compiled", Compiled, devices=_BOTH),
    Entry("onnxruntime", "onnxruntime", OnnxRuntime, ("fp32",), files=(ONNX,), modules=_ORT),
    Entry("onnxruntime int8", "onnxruntime", OnnxRuntime, ("int8",), files=(ONNX, ONNX_INT8), modules=_ORT),
    Entry("openvino", "openvino", OpenVino, ("fp32", "bf16"), files=(ONNX,), modules=_OPENVINO),
    Entry("openvino int8", "openvino", OpenVino, ("int8",), files=(ONNX, OPENVINO_INT8), modules=(*_OPENVINO, "nncf")),
)
BY_NAME = {entry.name: entry for entry in TABLE}
PEERS = tuple(dict.fromkeys(entry.against for entry in TABLE if entry.against is not None))


def text_runner(name: str, provider: Provider, setup: Setup, max_length: int) -> Callable[..., Any]:
    """A function from texts to hidden states, with the library's own tokenizer, or where it has none transformers'."""
    if name.startswith(OURS):
        from ...tokenizer import ElectraTokenizer

        tokenizer = ElectraTokenizer.from_pretrained(setup.folder)
    else:
        import transformers

        tokenizer = transformers.BertTokenizerFast.from_pretrained(setup.folder)

    def run(*texts: str) -> Any:
        columns = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="np")
        return provider.run(*provider.inputs(columns["input_ids"], columns["attention_mask"]))

    return run
