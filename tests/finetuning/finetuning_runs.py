"""Fine-tuning of a network as small as possible on reviews of five words, here or in processes of their own."""

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import load_file

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.finetuning import TaskFiles, custom_task, finetune
from electra_fast.finetuning.loop import FinetuningLoop
from electra_fast.training.progress import read_records

GOOD, BAD = "good great fine lovely".split(), "bad poor dull awful".split()
OTHERS = "the a film book song very was is and it".split()


def write_checkpoint(directory):
    """A discriminator to begin with."""
    words = [*GOOD, *BAD, *OTHERS]
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=len(vocab),
        embedding_size=32,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.1,
    )
    model = ElectraForPreTraining(config)
    table = model.get_input_embeddings().weight.data
    for words, sign in ((GOOD, 1.0), (BAD, -1.0)):  # that good is not bad is known
        table[[vocab[word] for word in words], 0] += sign
    model.save_pretrained(directory)
    ElectraTokenizer(vocab, model_max_length=32).save_pretrained(directory)
    return directory


def write_reviews(path, n=96, seed=0):
    """A table of reviews of one to eight words, each "good" or "bad" by one word of it."""
    source, lines = random.Random(seed), ["review\tverdict"]
    for _ in range(n):
        verdict = source.choice(["good", "bad"])
        words = source.choices(OTHERS, k=source.randint(0, 7))
        words.insert(source.randint(0, len(words)), source.choice(GOOD if verdict == "good" else BAD))
        lines.append(f"{' '.join(words)}\t{verdict}")
    path.write_text("\n".join(lines) + "\n")
    return path


REVIEWS = custom_task("classification", name="reviews", text="review", label="verdict")


@contextmanager
def interrupted_in(step, number=signal.SIGTERM):
    """A signal comes while a run makes an update, in the last of its processes."""
    update = FinetuningLoop._update

    def interrupted(loop):
        if loop.step + 1 == step and loop.world.rank == loop.world.size - 1:
            os.kill(os.getpid(), number)
        return update(loop)

    with patch.object(FinetuningLoop, "_update", interrupted):
        yield


def run(folder, out, stop_after=None, **options):
    """A run of 18 updates, 3 epochs of 6, on the checkpoint and the reviews of a folder."""
    options = {
        "learning_rate": 1e-2,
        "batch_size": 16,
        "log_every": 1,
        "checkpoint_every": 4,
        "device": "cpu",
        **options,
    }
    folder = Path(folder)
    files = TaskFiles(REVIEWS, files={"train": folder / "train.tsv", "dev": folder / "dev.tsv"})
    with interrupted_in(stop_after):
        return finetune(folder / "checkpoint", [files], out, **options)


def write_folder(folder):
    write_checkpoint(folder / "checkpoint")
    write_reviews(folder / "train.tsv")
    write_reviews(folder / "dev.tsv", 40, seed=1)
    return folder


def start(folder, calls, n_processes=1, before=""):
    """A process that makes calls of `run`, pairs of `out` and options, or torchrun with several of them."""
    code = f"import json, sys, torch, finetuning_runs\ntorch.set_num_threads(1)\n{before}\n"
    code += "for out, options in json.loads(sys.argv[2]): finetuning_runs.run(sys.argv[1], out, **options)"
    command = [sys.executable, "-c", code, str(folder), json.dumps([(str(out), options) for out, options in calls])]
    if n_processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_processes)]
        command = [*launcher, "--no-python", *command]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def launch(folder, calls, n_processes=1, before=""):
    """Makes calls of `run` in other processes; returns their exit code and what they printed."""
    with start(folder, calls, n_processes, before) as process:
        try:
            printed, _ = process.communicate(timeout=240)
        finally:
            process.terminate()  # torchrun then ends its processes
    return process.returncode, printed


def curve(out, seed=0):
    """What the log says of every update and evaluation, but how long it took."""
    skipped = {"seconds", "tokens_per_second"}
    records = read_records(out / f"seed-{seed}" / "log.jsonl")
    kept = [record for record in records if record["kind"] in ("train", "evaluation")]
    return [{name: value for name, value in record.items() if name not in skipped} for record in kept]


def weights(out):
    return load_file(out / "model" / "model.safetensors")


def predictions(out, split="dev"):
    return [json.loads(line) for line in (out / "predictions" / f"{split}.jsonl").read_text().splitlines()]
