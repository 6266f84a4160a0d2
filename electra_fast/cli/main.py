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
from .console import exit_code

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
    "curves": ("electra_fast.benchmarks.pretrain.curves:CurvesBench", "losses of pre-training beside transformers'"),
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
    "rerank": ("electra_fast.cli.rerank:RerankCommand", "order passages by their relevance to a query"),
    "export": ("electra_fast.cli.export:ExportCommand", "write a network as ONNX or as a torch.export program"),
    "cost": ("electra_fast.cli.cost:CostCommand", "estimate what pre-training takes, in hours on GPUs"),
    "train-vocab": ("electra_fast.cli.train_vocab:TrainVocabCommand", "make a WordPiece vocabulary from raw text"),
    "convert": ("electra_fast.cli.convert:ConvertCommand", "convert checkpoints of any origin to the Hub's form"),
    "bench": (BENCHMARKS, "measure speed beside other libraries"),
}

_HELP = ("-h", "--help")


def main(argv: list[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code, that of `exit_code`."""
    return _run("electra-fast", COMMANDS, *(sys.argv[1:] if argv is None else argv))


def _run(program: str, target: str | Commands, *arguments: str) -> int:
    if isinstance(target, dict) and arguments and arguments[0] in target:
        return _run(f"{program} {arguments[0]}", target[arguments[0]][0], *arguments[1:])

    def run() -> None:
        if isinstance(target, dict):
            return _show(program, target, *arguments)
        module, attribute = target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        return _parse(command, program, arguments).run()

    return exit_code(program, run)


def _show(program: str, commands: Commands, *arguments: str) -> None:
    """Prints the version, or the overview; exits with 2 if nothing was asked for."""
    if arguments and arguments[0] == "--version" and commands is COMMANDS:
        print(f"{program} {__version__}")
    elif arguments and arguments[0] not in _HELP:
        raise ValueError(f"unknown subcommand {arguments[0]!r}; the subcommands are {', '.join(commands)}")
    else:
        print(_overview(program, commands))
        sys.exit(0 if arguments else 2)  # tyro exits too after the help of a command


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
