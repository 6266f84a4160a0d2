"""The subcommand `convert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ..conversion.convert import convert_to_hub, convert_to_keras_hub, convert_to_tf1
from ..conversion.sources import NETWORKS
from ..disk import check_apart, check_readable

_CONVERTERS = {"hub": convert_to_hub, "tf1": convert_to_tf1, "keras-hub": convert_to_keras_hub}


@dataclass
class ConvertCommand:
    """Turn a checkpoint of any origin into directories in the Hub's form, into presets of KerasHub, or back into a
    TensorFlow checkpoint.

    Reads Google's TensorFlow checkpoints of ELECTRA and BERT (no TensorFlow needed), presets of KerasHub (no Keras
    needed), and models of the Hub: ELECTRA in safetensors, .bin, tf_model.h5 or flax_model.msgpack, and BERT, whose
    encoder becomes an ElectraModel. The tensors tell the networks' sizes.
    """

    source: tyro.conf.Positional[str]
    """A TensorFlow checkpoint (model.ckpt-1000, or its directory), a directory or a repository of the Hub, or a
    directory with the directories discriminator and generator."""
    out: tyro.conf.Positional[Path]
    """A new directory, for the network or for the directories discriminator and generator."""
    network: Literal["discriminator", "generator", "both"] | None = None
    """The networks to convert. Default: all in the checkpoint."""
    config: tuple[Path, ...] = ()
    """A config.json for each network of a TensorFlow checkpoint, the discriminator's first. It must not contradict the
    tensors, and adds what they do not show: the number of heads, if it is not one for every 64 of the hidden size."""
    vocab: Path | None = None
    """A vocab.txt. Default: the one beside the weights, if any."""
    to: Literal["hub", "tf1", "keras-hub"] = "hub"
    """Form to write: the Hub's, a TensorFlow checkpoint, or a preset of KerasHub's ElectraBackbone."""

    def run(self) -> None:
        networks = {None: None, "both": NETWORKS}.get(self.network, (self.network,))
        files = self.config if self.vocab is None else (*self.config, self.vocab)
        for path in files:
            check_readable(path)
        check_apart(self.out, self.source, *files)
        checkpoint = _CONVERTERS[self.to](self.source, self.out, networks, self.config, self.vocab)
        at = f" at step {checkpoint.step:,}" if checkpoint.step is not None else ""
        print(f"read {self.source}{at}")
        for network in checkpoint.networks:
            print(network)
            for note in network.notes:
                print(f"  {note}")
        if checkpoint.tokenizer is None:
            print("no vocabulary was found: give one with --vocab, or add a vocab.txt")
        else:
            case = "lower-cased" if checkpoint.tokenizer.do_lower_case else "cased"
            print(f"vocabulary of {len(checkpoint.tokenizer):,} entries, {case}")
        print(f"written to {self.out}")
