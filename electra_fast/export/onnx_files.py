"""ONNX files in fp32 and int8."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..model.base import ElectraPreTrainedModel
from ..tokenizer import ElectraTokenizer
from .comparison import Runner, largest_difference, relative_error
from .directory import write_companions, written_beside
from .network import INPUTS, LOWEST, Exportable, quiet

ONNX_FILE, INT8_FILE = "onnx/model.onnx", "onnx/model_quantized.onnx"
DEFAULT_OPSET, OPSETS = 20, range(18, 24)


class OnnxErrors(NamedTuple):
    """How far the outputs of ONNX files are from torch's."""

    largest: float
    """The largest difference of the file in fp32."""
    int8: float | None
    """The error of the file in int8, a root mean square as a part of that of the outputs; None where there is none."""


def export_onnx(
    model: ElectraPreTrainedModel,
    directory: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    quantize: bool = False,
    overwrite: bool = False,
) -> OnnxErrors:
    """Writes onnx/model.onnx, config.json and the tokenizer; returns how far onnxruntime's outputs are from torch's.

    Inputs are `INPUTS`, int64 [batch, length] ([batch, choices, length] for multiple choice), with all axes dynamic and
    padding anywhere; `OUTPUTS` has the outputs and their values at padding. Weights and activations are fp32, whatever
    the model's dtype. A row of padding alone has no meaning.

    Args:
        directory: a new directory; an existing one is refused unless `overwrite`, which replaces files of these names.
        opset: version of ONNX's operators; onnxruntime fuses most with 20 and later, which have GELU.
        quantize: whether to write onnx/model_quantized.onnx, too, with the same inputs and outputs: its weights are
            int8, and so are the activations that they are multiplied by, which onnxruntime rounds as they come.

    Raises:
        ValueError: a class that cannot be exported, a decoder with a cache, an opset outside `OPSETS`, or a file whose
            outputs differ from torch's by more than `TOLERANCE`, or in int8 by as much as zeros would.
        FileExistsError, FileNotFoundError: a directory that exists, or whose parent does not.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: pip install 'electra_fast[onnx]'")
    exportable = Exportable(model)
    with written_beside(directory, (INT8_FILE, ONNX_FILE), overwrite) as temporary:
        path, int8_path, int8_error = temporary / ONNX_FILE, temporary / INT8_FILE, None
        path.parent.mkdir()
        _write_onnx(exportable, path, opset)
        largest = largest_difference(exportable, _onnx_runner(path))
        if quantize:
            _write_int8(path, int8_path)
            int8_error = relative_error(exportable, _onnx_runner(int8_path))
        write_companions(exportable, tokenizer, temporary)
    return OnnxErrors(largest, int8_error)


def _write_onnx(exportable: Exportable, path: Path, opset: int) -> None:
    with quiet():
        onnx_program = torch.onnx.export(
            exportable.program(),
            input_names=list(INPUTS),
            output_names=list(exportable.outputs),
            opset_version=opset,
            dynamic_shapes=(dict(enumerate(exportable.axes)),) * len(INPUTS),  # names of the axes
            verbose=False,
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
        )
    # The metadata says where in the source each node comes from: a megabyte, with paths of this machine.
    for node in onnx_program.model.graph:
        node.metadata_props.clear()
    onnx_program.save(path)
    _drop_shapes_of_weights(path)


def _write_int8(path: Path, int8_path: Path) -> None:
    """Writes the int8 file of an ONNX file.

    Weights are rounded by output column, with signs, to seven bits: processors without VNNI add two products of a byte
    with a sign and one without in 16 bits, and of eight bits such sums would not fit.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    content = onnx.load(path)
    # The exporter has found the shapes. Without this mark onnxruntime logs that its own preparation should.
    onnx.helper.set_model_props(content, {"onnx.quant.pre_process": "onnxruntime.quant"})
    quantize_dynamic(content, int8_path, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)


def _drop_shapes_of_weights(path: Path) -> None:
    """Removes the shapes that the exporter stores of weights a second time, beside the weights themselves.

    onnxruntime's `quantize_dynamic` transposes the weight of a Gemm and leaves that shape as it was: shape inference
    then finds the two to contradict each other.
    """
    import onnx

    content = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in content.graph.initializer}
    others = [value for value in content.graph.value_info if value.name not in weights]
    del content.graph.value_info[:]
    content.graph.value_info.extend(others)
    onnx.save(content, path)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Translates attention, softmax(q k' / sqrt(D) + mask) v, [B, A, S, D]; the mask is True where it is allowed.

    torch's own translation has four times the nodes, most of them for shapes and for rows that see nothing. With the
    lowest number in place of -inf such rows need no care: they become uniform. The exporter keeps one mask for all
    layers.
    """
    from onnxscript import opset18 as op

    assert attn_mask is not None and dropout_p == 0 and not is_causal and scale is None and not enable_gqa
    scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 3, 2]))
    scores = op.Mul(scores, op.Constant(value_float=1 / math.sqrt(query.shape[-1])))
    added = op.Where(attn_mask, op.Constant(value_float=0.0), op.Constant(value_float=LOWEST))
    return op.MatMul(op.Softmax(op.Add(scores, added), axis=-1), value)


def _onnx_runner(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        feed = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
        return dict(zip(names, map(torch.from_numpy, session.run(None, feed)), strict=True))

    return run
