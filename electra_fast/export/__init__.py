"""Export of networks as ONNX files and as torch.export programs, which run without this package.

A directory gets `onnx/model.onnx`, where transformers.js, optimum and others look for it, or `model.pt2`; and config
and tokenizer. Every network is compared with torch before its files get their names.
"""

from .network import INPUTS, OUTPUTS, Exportable, load_network
from .onnx_files import DEFAULT_OPSET, INT8_FILE, ONNX_FILE, OPSETS, OnnxErrors, export_onnx
from .program import PROGRAM_FILE, export_program

__all__ = [
    "DEFAULT_OPSET",
    "INPUTS",
    "INT8_FILE",
    "ONNX_FILE",
    "OPSETS",
    "OUTPUTS",
    "PROGRAM_FILE",
    "Exportable",
    "OnnxErrors",
    "export_onnx",
    "export_program",
    "load_network",
]
