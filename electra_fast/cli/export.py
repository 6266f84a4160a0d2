"""The subcommand `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..disk import check_apart


@dataclass(kw_only=True)
class ExportCommand:
    """Write a network as an ONNX file or as a torch.export program, with its config and its tokenizer.

    Batch and length are dynamic, weights are fp32. The result is compared with torch before the
    file gets its name. An ONNX directory is laid out as transformers.js and optimum read it.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A directory, or a model on the Hub."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The directory to write onnx/model.onnx or model.pt2 into."""
    format: Literal["onnx", "torch"] = "onnx"
    """Form of the file: ONNX for onnxruntime and others, or a program for torch.export.load."""
    network: str = "auto"
    """Class of the network, such as ElectraForPreTraining. Default: the class in config.json."""
    opset: int | None = None
    """The version of ONNX's operators, 18 to 23. Default: 20."""
    quantize: bool = False
    """Write onnx/model_quantized.onnx, too, with weights of int8, and activations rounded to int8 as they come."""
    overwrite: bool = False
    """Replace files of the same names in OUT."""

    def run(self) -> None:
        from ..export import (
            DEFAULT_OPSET,
            INT8_FILE,
            ONNX_FILE,
            PROGRAM_FILE,
            export_onnx,
            export_program,
            load_network,
        )
        from ..tokenizer import ElectraTokenizer

        if self.format == "torch":
            for option, value in (("--opset", self.opset), ("--quantize", self.quantize or None)):
                if value is not None:
                    raise ValueError(f"{option} needs --format onnx, got {value} with --format torch")
        check_apart(self.out / "config.json", self.model)
        model, tokenizer = load_network(self.model, self.network), ElectraTokenizer.from_pretrained(self.model)
        if self.format == "onnx":
            opset = DEFAULT_OPSET if self.opset is None else self.opset
            options = {"opset": opset, "quantize": self.quantize, "overwrite": self.overwrite}
            file, runtime = self.out / ONNX_FILE, "onnxruntime"
            difference, int8_error = export_onnx(model, self.out, tokenizer, **options)
        else:
            file, runtime, int8_error = self.out / PROGRAM_FILE, "the program", None
            difference = export_program(model, self.out, tokenizer, overwrite=self.overwrite)
        print(f"wrote {file}, {_megabytes(file)}, an {type(model).__name__}")
        others = (other for other in self.out.iterdir() if other.is_file() and other != file)
        print(f"beside it {', '.join(sorted(other.name for other in others))}")
        print(f"largest difference between {runtime} and the model: {difference:.1e}")
        if int8_error is not None:
            file = self.out / INT8_FILE
            print(
                f"wrote {file}, {_megabytes(file)}, whose error is {int8_error:.1%} of the outputs (root mean square)"
            )


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"
