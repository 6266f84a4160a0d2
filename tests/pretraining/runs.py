"""Runs of a network as small as possible, here or in processes of their own, and what is left of them on disk."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from texts import documents
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from electra_fast.pretraining import Corpus, preset, pretrain
from electra_fast.pretraining.loop import TrainingLoop
from electra_fast.training.progress import read_records

RECIPE = dataclasses.replace(
    preset("tiny"),
    num_hidden_layers=1,
    hidden_size=32,
    num_attention_heads=1,
    embedding_size=32,
    generator_size=1.0,
    vocab_size=300,
    seq_length=16,
    max_position_embeddings=16,
    batch_size=12,
)


@contextmanager
def sigterm_in(step):
    """The last of a run's processes gets SIGTERM while it makes an update."""
    update = TrainingLoop._update

    def interrupted(loop):
        if loop.step + 1 == step and loop.world.rank == loop.world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(loop)

    with patch.object(TrainingLoop, "_update", interrupted):
        yield


def run(out, stop_after=None, recipe=None, **options):
    """A run of 12 steps that records each and writes a checkpoint every 4; SIGTERM comes while `stop_after` is made.

    The exit that follows SIGTERM is passed over, so that a process can go on with another run.
    """
    options = {"n_steps": 12, "log_every": 1, "checkpoint_every": 4, "device": "cpu", **options}
    corpus = Corpus.from_texts(documents())
    with sigterm_in(stop_after), suppress(SystemExit) if stop_after else nullcontext():
        return pretrain(dataclasses.replace(RECIPE, **(recipe or {})), corpus, out, **options)


def start(calls, n_processes=1, before="", torchrun=None, inside=(), **options):
    """A process that makes calls of `run`, pairs of `out` and options, or torchrun with several of them.

    Args:
        before: Python that each process executes first.
        torchrun: options by which torchruns meet; None: there is one at most, and none for a single process.
        inside: the beginning of the command, which says where the process runs.
        options: of Popen.
    """
    code = f"import json, sys, torch, runs\ntorch.set_num_threads(1)\n{before}\n"
    code += "for out, options in json.loads(sys.argv[1]): runs.run(out, **options)"
    command = [sys.executable, "-c", code, json.dumps([(str(out), options) for out, options in calls])]
    if n_processes > 1 or torchrun:
        meeting = torchrun or ["--standalone"]
        launcher = [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node", str(n_processes)]
        command = [*launcher, "--no-python", *command]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*inside, *command], env=environment, **(pipes | options))


def wait_for(is_true, process, seconds=60):
    """Waits until a condition holds in the files of a process that is at work."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert process.poll() is None, process.stdout.read()
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"nothing happened for {seconds} seconds")
        time.sleep(0.002)


def launch(calls, n_processes=1, before=""):
    """Makes calls of `run` in other processes; returns their exit code and what they printed."""
    with start(calls, n_processes, before) as process:
        try:
            printed, _ = process.communicate(timeout=240)
        finally:
            process.terminate()  # torchrun then ends its processes
    return process.returncode, printed


def curve(out):
    """What the log says of every update, but how long it took."""
    skipped = {"seconds", "tokens_per_second"}
    return [
        {name: value for name, value in record.items() if name not in skipped}
        for record in read_records(out / "log.jsonl", "train")
    ]


def steps_done(out):
    """The step of the last record of an update."""
    return max((record["step"] for record in curve(out)), default=0) if (out / "log.jsonl").is_file() else 0


def checkpoints(out):
    """The names of what lies among the checkpoints, in order of their steps."""
    names = [path.name for path in (out / "checkpoints").glob("*")]
    return sorted(names, key=lambda name: int(name.rpartition("-")[2]))


def state(out, step=12):
    """All tensors of a checkpoint, whole, by part and name, but the clock; and those of the exported networks."""
    whole = out / "whole.pt"
    dcp_to_torch_save(out / "checkpoints" / f"step-{step}", whole)
    parts = torch.load(whole)
    del parts["clock"]
    parts |= {name: load_file(out / name / "model.safetensors") for name in ("generator", "discriminator")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def assert_same_run(found, expected, tolerance=1e-6):
    """Every update's losses, and at the end weights and moments, equal up to rounding."""
    curves = curve(found), curve(expected)
    assert [record["step"] for record in curves[0]] == list(range(1, 13))
    for record, wanted in zip(*curves, strict=True):
        for name in ("loss", "generator_loss", "discriminator_loss", "generator_accuracy", "grad_norm"):
            assert record[name] == pytest.approx(wanted[name], rel=tolerance), (record["step"], name)
    tensors, wanted = state(found), state(expected)
    assert tensors.keys() == wanted.keys()
    for name in tensors:
        # The loss does not depend on a key's bias: its gradient is rounding, and nothing else.
        if "key.bias" in name:
            continue
        ours, theirs = tensors[name].double(), wanted[name].double()
        assert torch.linalg.vector_norm(ours - theirs) <= tolerance * torch.linalg.vector_norm(theirs), name
