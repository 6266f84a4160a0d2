"""The command line: a table of subcommands, each a dataclass with its options as fields and a method `run`.

Only the chosen subcommand is imported. A user's mistake gives one line on stderr and exit code 2; any other error is
ours and keeps its traceback.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from itertools import takewhile
from typing import Any

import tyro

from ..versions import __version__
from .console import exit_code, fail

# name: (module and name of its dataclass, or the table of its own subcommands; its line in the overview)
Commands = dict[str, tuple["str | Commands", str]]

BENCHMARKS: Commands = {
    "model": (
        "electra_fast.benchmarks.model.bench:ModelBench",
        "inference beside other libraries",
    ),
    "ops": ("electra_fast.benchmarks.ops.bench:OpsBench", "every op beside eager and compiled torch"),
    "tokenizer": ("electra_fast.benchmarks.tokenizer.bench:TokenizerBench", "the tokenizer beside other libraries"),
    "embed": ("electra_fast.benchmarks.embed.bench:EmbedBench", "from texts to embeddings, beside other libraries"),
    "pretrain": ("electra_fast.benchmarks.pretrain.bench:PretrainBench", "pre-training beside transformers"),
    "finetune": ("electra_fast.benchmarks.finetune.bench:FinetuneBench", "fine-tuning beside transformers' Trainer"),
    "report": ("electra_fast.benchmarks.report.report:ReportCommand", "tables and plots of what has been measured"),
}
COMMANDS: Commands = {
    "info": ("electra_fast.cli.info:InfoCommand", "versions, device, which impl serves each op and why"),
    "detect": ("electra_fast.cli.detect:DetectCommand", "tell which tokens of a text look replaced"),
    "fill-mask": ("electra_fast.cli.detect:FillMaskCommand", "give the likeliest tokens at every [MASK] of a text"),
    "pretrain": ("electra_fast.cli.pretrain:PretrainCommand", "train a generator and a discriminator from raw text"),
    "prepare": ("electra_fast.cli.prepare:PrepareCommand", "tokenise text into shards, once for many runs"),
    "finetune": ("electra_fast.cli.finetune:FinetuneCommand", "train a network on a task, and measure it"),
    "predict": ("electra_fast.cli.predict:PredictCommand", "say what a fine-tuned network predicts"),
    "embed": ("electra_fast.cli.embed:EmbedCommand", "turn texts into vectors"),
    "export": ("electra_fast.cli.export:ExportCommand", "write a network as ONNX or as a torch.export program"),
    "cost": ("electra_fast.cli.cost:CostCommand", "estimate what pre-training takes, in hours on GPUs"),
    "train-vocab": ("electra_fast.cli.train_vocab:TrainVocabCommand", "make a WordPiece vocabulary from raw text"),
    "convert": ("electra_fast.cli.convert:ConvertCommand", "convert checkpoints of any origin to the Hub's form"),
    "bench": (BENCHMARKS, "measure speed beside other libraries"),
}

_HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in _HELP:
        print(_overview("electra-fast", COMMANDS))
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"electra-fast {__version__}")
        return 0
    return _run("electra-fast", COMMANDS, *argv)


def _run(parent: str, commands: Commands, name: str, *arguments: str) -> int:
    if name not in commands:
        return fail(parent, f"unknown subcommand {name!r}; the subcommands are {', '.join(commands)}")
    program, target = f"{parent} {name}", commands[name][0]
    if isinstance(target, dict):
        if not arguments or arguments[0] in _HELP:
            print(_overview(program, target))
            sys.exit(0 if arguments else 2)  # tyro exits too after the help of a command
        return _run(program, target, *arguments)

    def run() -> None:
        module, attribute = target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        _parse(command, program, arguments).run()

    return exit_code(program, run)


def _parse(command: type, program: str, arguments: Sequence[str]) -> Any:
    """Parses a command's options. tyro draws errors as a box; the message is the part before the box's first rule."""
    drawn = io.StringIO()
    try:
        with redirect_stderr(drawn):
            return tyro.cli(command, prog=program, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if stop.code != 2:
            raise
    lines = [line.strip("│ ") for line in drawn.getvalue().splitlines()[1:]]
    message = " ".join(takewhile(lambda line: line.strip("─╰╯"), lines))
    raise ValueError(f"{message}; {program} --help tells more")


def _overview(program: str, commands: Commands) -> str:
    lines = [f"  {name:<14}{line}" for name, (_, line) in commands.items()]
    more = f"{program} SUBCOMMAND --help tells more."
    return "\n".join([f"usage: {program} SUBCOMMAND ...", "", *lines, "", more])
