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
    file gets its name.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A directory, or a model on the Hub."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The directory to write model.onnx or model.pt2 into."""
    format: Literal["onnx", "torch"] = "onnx"
    """Form of the file: ONNX for onnxruntime and others, or a program for torch.export.load."""
    network: str = "auto"
    """Class of the network, such as ElectraForPreTraining. Default: the class in config.json."""
    opset: int | None = None
    """The version of ONNX's operators, 18 to 23. Default: 20."""
    overwrite: bool = False
    """Replace files of the same names in OUT."""

    def run(self) -> None:
        from ..export import DEFAULT_OPSET, ONNX_FILE, PROGRAM_FILE, export_onnx, export_program, load_network
        from ..tokenizer import ElectraTokenizer

        if self.format == "torch" and self.opset is not None:
            raise ValueError(f"--opset needs --format onnx, got {self.opset} with --format torch")
        check_apart(self.out / "config.json", self.model)
        model, tokenizer = load_network(self.model, self.network), ElectraTokenizer.from_pretrained(self.model)
        if self.format == "onnx":
            opset = DEFAULT_OPSET if self.opset is None else self.opset
            file, runtime = self.out / ONNX_FILE, "onnxruntime"
            difference = export_onnx(model, self.out, tokenizer, opset=opset, overwrite=self.overwrite)
        else:
            file, runtime = self.out / PROGRAM_FILE, "the program"
            difference = export_program(model, self.out, tokenizer, overwrite=self.overwrite)
        print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB, an {type(model).__name__}")
        print(f"beside it {', '.join(sorted(other.name for other in self.out.iterdir() if other != file))}")
        print(f"largest difference between {runtime} and the model: {difference:.1e}")
