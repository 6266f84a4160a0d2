"""The files that providers are built from: one set of fp32 weights, in the form that each of them takes.

The files are made once a model and are no part of any figure: who deploys a model has them.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from ...bundled import bundled
from ...model.config import ElectraConfig
from ...tokenizer import ElectraTokenizer
from .peers import INPUTS, ONNX, ONNX_INT8, OPENVINO_INT8, OUTPUT
from .work import Batch

SHAPES = {
    "tiny": dict(
        hidden_size=128, embedding_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    ),
    "small": dict(),
    "base": dict(hidden_size=768, embedding_size=768, num_attention_heads=12, intermediate_size=3072),
    "large": dict(
        hidden_size=1024,
        embedding_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
}


def write_weights(model: str | Path, folder: Path) -> tuple[ElectraConfig, ElectraTokenizer]:
    """Writes an encoder in fp32 as transformers saves it, and a tokenizer whose ids it takes.

    Args:
        model: a key of `SHAPES`, for random weights, or a directory with a checkpoint. Without a tokenizer of its own
            a model gets that of the package's bundled model.

    Raises:
        FileNotFoundError: no such directory, or files that it lacks.
        ValueError: a checkpoint of something else, or a vocabulary too small for the bundled tokenizer.
    """
    import transformers

    torch.manual_seed(0)
    if isinstance(model, str):
        network = transformers.ElectraModel(transformers.ElectraConfig(**SHAPES[model]))
        tokenizer = ElectraTokenizer.from_pretrained(bundled("discriminator"))
    else:
        ElectraConfig.from_pretrained(model)  # raises with one line that says what is wrong
        network, found = transformers.ElectraModel.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
        if found["missing_keys"]:
            raise ValueError(f"{model} must hold an ELECTRA encoder, and lacks {sorted(found['missing_keys'])[0]}")
        has_own = any((model / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
        tokenizer = ElectraTokenizer.from_pretrained(model if has_own else bundled("discriminator"))
    if len(tokenizer) > network.config.vocab_size:
        raise ValueError(
            f"{model} has no tokenizer and {network.config.vocab_size} entries, too few for the bundled one's "
            f"{len(tokenizer)}"
        )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ElectraConfig.from_pretrained(folder), tokenizer


def write_network(folder: Path, network_class: str) -> Path:
    """Writes the folder's encoder with the random head of one of transformers' classes; returns where it is."""
    import transformers

    torch.manual_seed(0)
    getattr(transformers, network_class).from_pretrained(folder).save_pretrained(folder / network_class)
    return folder / network_class


def write_onnx(folder: Path, batches: Sequence[Batch]) -> None:
    """transformers' own module with eager attention as ONNX, by torch's older exporter.

    We compared transformers' eager and sdpa attention and our `export`, by torch's older and newer exporter. This graph
    is the fastest in onnxruntime, with its own optimisations alone (ORT_ENABLE_ALL) as well as after the fusions for
    BERT of onnxruntime.transformers.optimizer; these fusions also know it whole. For small on one thread of
    AMD EPYC, batch 8 of 128: 245 ms; after those fusions 282; the newer exporter's 278, our export's 303.
    """
    import transformers

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    axes = {name: {0: "batch", 1: "length"} for name in (*INPUTS, OUTPUT)}
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    with quiet():
        torch.onnx.export(
            Encoder(),
            (torch.ones_like(mask), mask),
            folder / ONNX,
            input_names=INPUTS,
            output_names=(OUTPUT,),
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


def write_onnx_int8(folder: Path, batches: Sequence[Batch]) -> None:
    """Dynamic quantisation by onnxruntime as its documentation advises for VNNI: weights signed, a scale a channel."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    prepared = folder / "prepared.onnx"
    with quiet():
        quant_pre_process(folder / ONNX, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, folder / ONNX_INT8, per_channel=True, weight_type=QuantType.QInt8)
    prepared.unlink()


def write_openvino_int8(folder: Path, batches: Sequence[Batch]) -> None:
    """Static quantisation by NNCF, OpenVINO's own tool, with its settings for transformers.

    It was the fastest of what OpenVINO can run in int8: batch 8 of 128 in 100 ms, where onnxruntime's static
    quantisation took 106 with three times the error, and int8 weights alone 156.

    Args:
        batches: the ranges of activations are taken from these.
    """
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset([dict(zip(INPUTS, (batch.ids, batch.mask), strict=True)) for batch in batches])
    with quiet():
        network = openvino.Core().read_model(folder / ONNX)
        network = nncf.quantize(network, calibration, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches))
    openvino.save_model(network, folder / OPENVINO_INT8, compress_to_fp16=False)


# The order is that in which they are made: later ones are made from earlier ones.
WRITERS = {ONNX: write_onnx, ONNX_INT8: write_onnx_int8, OPENVINO_INT8: write_openvino_int8}


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what the tools say within."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
