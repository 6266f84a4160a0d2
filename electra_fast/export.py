"""Export of networks as ONNX files and as torch.export programs, which run without this package.

A directory gets `model.onnx` or `model.pt2`, the config and the tokenizer. Every network is compared with torch before
its files get their names.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .disk import made, moved
from .model.base import ElectraPreTrainedModel
from .model.config import ElectraConfig
from .model.pretrained import load_complete
from .tokenizer import ElectraTokenizer

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DEFAULT_OPSET, OPSETS = 20, range(18, 24)
TOLERANCE = 1e-4

_LOWEST = torch.finfo(torch.float32).min
# The outputs of each class, and the value of each at padding positions. nan stands for any number: one more pass over
# the logits of a vocabulary would take a tenth of the time. None stands for outputs without positions.
OUTPUTS: dict[str, dict[str, float | None]] = {
    "ElectraModel": {"last_hidden_state": 0.0},
    "ElectraForPreTraining": {"logits": 0.0},
    "ElectraForMaskedLM": {"logits": math.nan},
    "ElectraForCausalLM": {"logits": math.nan},
    "ElectraForSequenceClassification": {"logits": None},
    "ElectraForTokenClassification": {"logits": 0.0},
    "ElectraForMultipleChoice": {"logits": None},
    "ElectraForQuestionAnswering": {"start_logits": _LOWEST, "end_logits": _LOWEST},
    "ElectraPaperForSequenceClassification": {"logits": None},
}


class Exportable(nn.Module):
    """A network that maps three inputs to a dictionary of tensors: fp32, on the CPU, in plain torch, in eval mode.

    Raises:
        ValueError: a class that cannot be exported, or a decoder with a cache.
    """

    def __init__(self, model: ElectraPreTrainedModel):
        super().__init__()
        name = type(model).__name__
        if name not in OUTPUTS:
            raise ValueError(f"the network to export must be one of {', '.join(OUTPUTS)}, got {name}")
        config = copy.deepcopy(model.config)
        if config.is_decoder and config.use_cache:
            raise ValueError(
                f"{name} with a key-value cache cannot be exported: set use_cache to False in its config, "
                "for logits of whole sequences"
            )
        # Feed-forward in chunks gives the same results, but the number of chunks would be frozen into the graph.
        config.update({"output_attentions": False, "chunk_size_feed_forward": 0})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they were given when the model itself was made
            self.network = type(model)(config, impl="torch")
        self.network.load_state_dict(model.state_dict())
        self.outputs = OUTPUTS[name]
        self.requires_grad_(False).eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        """Computes int64 [B, S] ([B, C, S] for multiple choice) -> fp32 tensors by name, at padding as in `OUTPUTS`."""
        output = self.network(input_ids, attention_mask, token_type_ids, return_dict=True)
        is_padding, values = attention_mask == 0, {}
        for name, fill in self.outputs.items():
            values[name] = value = output[name]
            if fill is not None and not math.isnan(fill):
                values[name] = value.masked_fill(is_padding[..., None] if value.dim() == 3 else is_padding, fill)
        return values

    @property
    def axes(self) -> tuple[str, ...]:
        is_choice = type(self.network).__name__ == "ElectraForMultipleChoice"
        return ("batch", "choices", "length") if is_choice else ("batch", "length")

    def program(self) -> torch.export.ExportedProgram:
        """The graph, with all axes of the inputs dynamic."""
        limit = self.network.config.max_position_embeddings
        limits = {"batch": None, "choices": None, "length": limit}
        axes = {i: torch.export.Dim(name, min=1, max=limits[name]) for i, name in enumerate(self.axes)}
        with _quiet():
            return torch.export.export(self, self.inputs(3, min(7, limit)), dynamic_shapes=(axes,) * len(INPUTS))

    def inputs(self, batch: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Random inputs; one of three rows has no padding, one has it on the right and one on the left."""
        config, random = self.network.config, torch.Generator().manual_seed(batch * 1000 + length)
        shape = (batch, 2, length) if "choices" in self.axes else (batch, length)
        ids = torch.randint(config.vocab_size, shape, generator=random)
        types = torch.randint(config.type_vocab_size, shape, generator=random)
        mask = torch.ones(shape, dtype=torch.int64)
        mask[1::3, ..., length - length // 3 :] = 0
        mask[2::3, ..., : length // 3] = 0
        return ids, mask, types


def load_network(name_or_path: str | os.PathLike, network: str = "auto") -> ElectraPreTrainedModel:
    """The network of a directory or the Hub, in fp32 on the CPU; "auto" takes the class that config.json names.

    Raises:
        FileNotFoundError: no such model, or one of its files is missing.
        ValueError: a class that cannot be exported, weights that lack a part of the network, damaged files.
    """
    config = ElectraConfig.from_pretrained(name_or_path)
    if network == "auto":
        network = (config.architectures or ["nothing of its architecture"])[0]
    if network not in OUTPUTS:
        raise ValueError(f"{name_or_path}: the network to export must be one of {', '.join(OUTPUTS)}, got {network}")
    if "Paper" in network:
        from .finetuning.kinds import paper_heads as home
    else:
        from .model import modeling as home
    options = {"config": config, "dtype": torch.float32, "device_map": "cpu", "impl": "torch"}
    return load_complete(getattr(home, network), name_or_path, f"an {network}", **options)


def export_onnx(
    model: ElectraPreTrainedModel,
    directory: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    opset: int = DEFAULT_OPSET,
    overwrite: bool = False,
) -> float:
    """Writes model.onnx, config.json and the tokenizer; returns the largest difference between onnxruntime and torch.

    Inputs are `INPUTS`, int64 [batch, length] ([batch, choices, length] for multiple choice), with all axes dynamic and
    padding anywhere; `OUTPUTS` has the outputs and their values at padding. Weights and activations are fp32, whatever
    the model's dtype. A row of padding alone has no meaning.

    Args:
        directory: a new directory; an existing one is refused unless `overwrite`, which replaces files of these names.
        opset: version of ONNX's operators; onnxruntime fuses most with 20 and later, which have GELU.

    Raises:
        ValueError: a class that cannot be exported, a decoder with a cache, an opset outside `OPSETS`, or a file whose
            outputs differ from torch's by more than `TOLERANCE`.
        FileExistsError, FileNotFoundError: a directory that exists, or whose parent does not.
        ImportError: onnx, onnxscript or onnxruntime is not installed.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset must be from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {', '.join(missing)}: pip install 'electra_fast[onnx]'")
    exportable = Exportable(model)
    with _written_beside(directory, ONNX_FILE, overwrite) as temporary:
        _write_onnx(exportable, temporary / ONNX_FILE, opset)
        difference = _largest_difference(exportable, _onnx_runner(temporary / ONNX_FILE))
        _write_companions(exportable, tokenizer, temporary)
    return difference


def export_program(
    model: ElectraPreTrainedModel,
    directory: str | os.PathLike,
    tokenizer: ElectraTokenizer | None = None,
    *,
    overwrite: bool = False,
) -> float:
    """Writes model.pt2, which `torch.export.load` reads with torch alone; the rest is as in `export_onnx`.

    The loaded program's `module()` takes the three inputs in the order of `INPUTS` and returns a dictionary.
    """
    exportable = Exportable(model)
    with _written_beside(directory, PROGRAM_FILE, overwrite) as temporary:
        torch.export.save(exportable.program(), temporary / PROGRAM_FILE)
        module = torch.export.load(temporary / PROGRAM_FILE).module()
        difference = _largest_difference(exportable, lambda inputs: module(*inputs))
        _write_companions(exportable, tokenizer, temporary)
    return difference


def _write_onnx(exportable: Exportable, path: Path, opset: int) -> None:
    with _quiet():
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
    added = op.Where(attn_mask, op.Constant(value_float=0.0), op.Constant(value_float=_LOWEST))
    return op.MatMul(op.Softmax(op.Add(scores, added), axis=-1), value)


def _onnx_runner(path: Path) -> Callable[[tuple[Tensor, ...]], dict[str, Tensor]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        feed = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
        return dict(zip(names, map(torch.from_numpy, session.run(None, feed)), strict=True))

    return run


def _largest_difference(exportable: Exportable, run: Callable[[tuple[Tensor, ...]], dict[str, Tensor]]) -> float:
    """The largest difference between file and network over batches of several shapes; raises ValueError if too large.

    The limit is `TOLERANCE`, times the largest value where that is over 1.
    """
    limit, largest = exportable.network.config.max_position_embeddings, 0.0
    for batch, length in ((1, 1), (1, 2), (3, min(17, limit)), (4, min(64, limit)), (3, limit)):
        inputs = exportable.inputs(batch, length)
        expected, got = exportable(*inputs), run(inputs)
        for name, value in expected.items():
            found = got[name]
            if math.isnan(exportable.outputs[name] or 0.0):
                is_real = inputs[1] != 0
                value, found = value[is_real], found[is_real]
            difference = (found - value).abs().max().item()
            scale = max(1.0, value[value > _LOWEST].abs().max().item())
            if not difference <= TOLERANCE * scale:  # NaN too
                raise ValueError(
                    f"the exported {type(exportable.network).__name__} does not compute what it should: for inputs of "
                    f"shape {tuple(inputs[0].shape)} {name} must be within {TOLERANCE * scale:.1e} of torch's, and "
                    f"differs by {difference:.1e}"
                )
            largest = max(largest, difference)
    return largest


def _write_companions(exportable: Exportable, tokenizer: ElectraTokenizer | None, directory: Path) -> None:
    config = exportable.network.config
    config.architectures, config.dtype = [type(exportable.network).__name__], "float32"
    config.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


@contextmanager
def _written_beside(directory: str | os.PathLike, last: str, overwrite: bool) -> Iterator[Path]:
    """A temporary directory whose files move to `directory` if no error occurs, the one called `last` at the end."""
    directory = Path(os.path.realpath(directory))
    if not directory.parent.is_dir():
        raise FileNotFoundError(f"the parent of the output directory does not exist: {directory.parent}")
    if directory.exists() and not (overwrite and directory.is_dir()):
        hint = "; --overwrite (overwrite=True) replaces its files" if directory.is_dir() else " and is no directory"
        raise FileExistsError(f"the output directory exists: {directory}{hint}")
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
        yield Path(temporary)
        made(directory)
        for file in sorted(Path(temporary).iterdir(), key=lambda file: file.name == last):
            moved(file, directory / file.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' remarks on themselves: deprecations in torch, torchvision that is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
