"""Programs of torch.export."""

from __future__ import annotations

import os

import torch

from ..model.base import ElectraPreTrainedModel
from ..tokenizer import ElectraTokenizer
from .comparison import largest_difference
from .directory import write_companions, written_beside
from .network import Exportable, quiet

PROGRAM_FILE = "model.pt2"


def export_program(
    model: ElectraPreTrainedModel,
    directory: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    overwrite: bool = False,
) -> float:
    """Writes model.pt2, which `torch.export.load` reads with torch alone; returns the largest difference from torch.

    The loaded program's `module()` takes the three inputs in the order of `INPUTS` and returns a dictionary. Arguments
    and errors are those of `export_onnx`.
    """
    exportable = Exportable(model)
    with written_beside(directory, (PROGRAM_FILE,), overwrite) as temporary:
        with quiet():
            torch.export.save(exportable.program(), temporary / PROGRAM_FILE)
        module = torch.export.load(temporary / PROGRAM_FILE).module()
        difference = largest_difference(exportable, lambda inputs: module(*inputs))
        write_companions(exportable, tokenizer, temporary)
    return difference
