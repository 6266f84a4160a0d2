"""The command line: a table of subcommands, each a dataclass whose fields are its options and whose `run` does it.

Only the subcommand that is asked for is imported. A user's mistake is one line on stderr and exit code 2; anything else
that goes wrong is ours, and keeps its traceback.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from .. import __version__
from ..versions import installed_version

if TYPE_CHECKING:
    from ..bundled import Network
    from ..tokenizer import ElectraTokenizer

# name: (where its dataclass is, or the table of its own subcommands; its line in the overview)
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
    "info": ("electra_fast.cli.main:InfoCommand", "versions, device, which impl serves each op and why"),
    "detect": ("electra_fast.cli.main:DetectCommand", "tell which tokens of a text look replaced"),
    "fill-mask": ("electra_fast.cli.main:FillMaskCommand", "give the likeliest tokens at every [MASK] of a text"),
    "pretrain": ("electra_fast.cli.pretrain:PretrainCommand", "train a generator and a discriminator from raw text"),
    "prepare": ("electra_fast.cli.prepare:PrepareCommand", "tokenise text into shards, once for many runs"),
    "finetune": ("electra_fast.cli.finetune:FinetuneCommand", "train a network on a task, and measure it"),
    "predict": ("electra_fast.cli.predict:PredictCommand", "say what a fine-tuned network predicts"),
    "embed": ("electra_fast.cli.embed:EmbedCommand", "turn texts into vectors"),
    "export": ("electra_fast.cli.export:ExportCommand", "write a network as ONNX or as a torch.export program"),
    "cost": ("electra_fast.cli.cost:CostCommand", "tell what pre-training takes, in hours on GPUs"),
    "train-vocab": ("electra_fast.cli.pretrain:TrainVocabCommand", "make a WordPiece vocabulary from raw text"),
    "convert": ("electra_fast.cli.convert:ConvertCommand", "bring checkpoints of any origin to the Hub's form"),
    "bench": (BENCHMARKS, "measure speed beside other libraries"),
}

_HELP = ("-h", "--help")
_MISTAKES = (ValueError, TypeError, ImportError, OSError)


@dataclass(kw_only=True)
class InfoCommand:
    """Show versions, the device, which implementation serves each op and why, and what transformers keeps to itself."""

    json: bool = False
    """Print one JSON document."""

    def run(self) -> None:
        import torch

        from ..integrations.limits import LIMITS, version_obstacle
        from ..model.cpu_encoder import instructions
        from ..model.cpu_encoder import obstacle as cpu_obstacle
        from ..ops import explain

        cuda = torch.cuda.is_available()
        versions = {"electra_fast": __version__, "python": platform.python_version()}
        versions |= {name: installed_version(name) for name in ("torch", "triton", "transformers")}
        device = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
        ops = [dict(zip(("op", "impl", "reason"), row, strict=True)) for row in explain("auto")]
        encoder = {name: cpu_obstacle(name) or instructions() for name in ("fp32", "int8")}
        obstacle = version_obstacle()
        if self.json:
            served = {"obstacle": obstacle, "limits": LIMITS}
            _print_json(
                {"versions": versions, "device": device, "ops": ops, "cpu_inference": encoder, "transformers": served}
            )
            return
        for name, value in {**versions, "device": device}.items():
            print(f"{name:<20}{value or 'not installed'}")
        print()
        for op in ops:
            print(f"{op['op']:<20}{op['impl']:<8}{op['reason']}")
        print()
        for name, by in encoder.items():
            print(f"{f'CPU inference, {name}':<28}{by}")
        print(f"\nelectra_fast.integrations.transformers.enable() {obstacle or 'serves ELECTRA, but not these calls:'}")
        for name, why in ({} if obstacle else LIMITS).items():
            print(f"  {name:<24}{why}")


@dataclass(kw_only=True)
class _ModelCommand:
    model: str | None = None
    """A directory, or a model on the Hub. Default: the small English one that comes with the package."""
    device: str = "auto"
    """Where to run: auto, cpu, cuda, cuda:1, ..."""
    impl: Literal["auto", "triton", "torch"] = "auto"
    """Which code serves the ops."""
    json: bool = False
    """Print one JSON document."""
    texts: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TEXT...", help_behavior_hint="")
    ] = ()
    """The texts; without any, one is read from each line of the standard input."""

    def load(self, class_name: str, network: Network) -> tuple[Any, ElectraTokenizer]:
        """The model and its tokenizer; a checkpoint that lacks a part of the model is refused."""
        import electra_fast

        from ..bundled import bundled
        from ..hub.files import load_complete

        path, model_class = self.model or bundled(network), getattr(electra_fast, class_name)
        model = load_complete(model_class, path, f"an {class_name}", device_map=self.device, impl=self.impl)
        return model, electra_fast.ElectraTokenizer.from_pretrained(path)

    def read_texts(self) -> list[str]:
        texts = list(self.texts) or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        if not texts:
            raise ValueError("a text is needed, as an argument or a line of the standard input; got none")
        return texts


@dataclass(kw_only=True)
class DetectCommand(_ModelCommand):
    """Tell which tokens of a text look replaced.

    Prints each text's tokens over 1 where the discriminator takes the token for a replacement, and 0 elsewhere.
    """

    threshold: float = 0.5
    """The probability above which a token counts as replaced."""

    def run(self) -> None:
        from ..inference.detect import detect, format_table

        texts = self.read_texts()
        detections = detect(*self.load("ElectraForPreTraining", "discriminator"), texts, self.threshold)
        if self.json:
            _print_json([asdict(detection) for detection in detections])
        else:
            print("\n\n".join(map(format_table, detections)))


@dataclass(kw_only=True)
class FillMaskCommand(_ModelCommand):
    """Give the likeliest tokens, by the generator, at every [MASK] of a text."""

    top_k: int = 5
    """How many tokens to give for each mask."""

    def run(self) -> None:
        from ..inference.detect import fill_mask

        texts = self.read_texts()
        fillings = fill_mask(*self.load("ElectraForMaskedLM", "generator"), texts, self.top_k)
        if self.json:
            keys = ("token", "probability")
            masks = [[[dict(zip(keys, best, strict=True)) for best in mask] for mask in f.masks] for f in fillings]
            _print_json([{"text": f.text, "masks": m} for f, m in zip(fillings, masks, strict=True)])
            return
        for filling in fillings:
            print(filling.text)
            for number, mask in enumerate(filling.masks, start=1):
                if len(filling.masks) > 1:
                    print(f"  mask {number}")
                for token, probability in mask:
                    print(f"    {probability:6.4f}  {token}")


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
        return _fail(parent, f"unknown subcommand {name!r}; the subcommands are {', '.join(commands)}")
    program, target = f"{parent} {name}", commands[name][0]
    if isinstance(target, dict):
        if not arguments or arguments[0] in _HELP:
            print(_overview(program, target))
            sys.exit(0 if arguments else 2)  # as tyro does after the help of a command
        return _run(program, target, *arguments)

    def run() -> None:
        module, attribute = target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        _parse(command, program, arguments).run()

    return exit_code(program, run)


def _parse(command: type, program: str, arguments: Sequence[str]) -> Any:
    """The command with its options. tyro draws its errors as a box; the message is what comes before its first rule."""
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


def exit_code(program: str, run: Callable[[], None]) -> int:
    """Runs a command: 0, 2 and one line on stderr for a user's mistake, 130 for Ctrl-C."""
    try:
        run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has enough; what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _MISTAKES as error:
        return _fail(program, str(error) or type(error).__name__)
    return 0


def _overview(program: str, commands: Commands) -> str:
    lines = [f"  {name:<14}{line}" for name, (_, line) in commands.items()]
    more = f"{program} SUBCOMMAND --help tells more."
    return "\n".join([f"usage: {program} SUBCOMMAND ...", "", *lines, "", more])


def _fail(program: str, message: str) -> int:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=False))
