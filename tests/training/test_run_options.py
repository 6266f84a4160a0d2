"""The options of a run: checked when they are made, merged with keywords, and those of the command line."""

import subprocess
import sys
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import tyro

from electra_fast import finetuning, pretraining
from electra_fast.cli.finetune import FinetuneCommand
from electra_fast.cli.pretrain import PretrainCommand
from electra_fast.finetuning.recipe import Recipe
from electra_fast.model.precision import DTYPES
from electra_fast.ops import Impl
from electra_fast.training import options
from electra_fast.training.options import by_owner, changed

BOTH = pytest.mark.parametrize("kind", [pretraining.PretrainingOptions, finetuning.FinetuningOptions])


@BOTH
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"accumulate": 0}, "^accumulate must be positive, got 0$"),
        ({"log_every": 0}, "^log_every must be positive, got 0$"),
        ({"checkpoint_every": -2}, "^checkpoint_every must be positive, got -2$"),
        ({"log_every": 3, "checkpoint_every": 4}, "^checkpoint_every must be a multiple of log_every 3, got 4$"),
        ({"precision": "fp8"}, "^precision must be one of fp32, bf16, fp16, got 'fp8'$"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_said(kind, given, message):
    with pytest.raises(ValueError, match=message):
        kind(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_steps": 0}, "^n_steps must be positive, got 0$"),
        ({"minutes": -1.0}, "^minutes must be positive, got -1.0$"),
        ({"minutes": float("nan")}, "^minutes must be positive, got nan$"),
        ({"keep_checkpoints": 0}, "^keep_checkpoints must be positive, got 0$"),
        ({"parallel": "dp"}, "^parallel must be one of ddp, fsdp, got 'dp'$"),
    ],
)
def test_what_pretraining_alone_has_is_checked_too(given, message):
    with pytest.raises(ValueError, match=message):
        pretraining.PretrainingOptions(**given)


@BOTH
def test_keywords_override_options(kind):
    assert changed(None, {}, kind) == kind()
    assert changed(kind(seed=3, log_every=5, checkpoint_every=10), {"log_every": 2}, kind) == kind(
        seed=3, log_every=2, checkpoint_every=10
    )
    with pytest.raises(ValueError, match="checkpoint_every must be a multiple of log_every 3, got 10"):
        changed(kind(log_every=5, checkpoint_every=10), {"log_every": 3}, kind)


def test_options_of_another_kind_of_run_are_refused():
    with pytest.raises(TypeError, match="must be PretrainingOptions, got FinetuningOptions"):
        changed(finetuning.FinetuningOptions(), {}, pretraining.PretrainingOptions)


def test_keywords_go_to_the_one_who_has_them():
    found = by_owner({"seed": 3, "n_epochs": 2.0, "track": ()}, finetuning.FinetuningOptions, Recipe)
    assert found == [{"seed": 3, "track": ()}, {"n_epochs": 2.0}]
    assert not {field.name for field in fields(finetuning.FinetuningOptions)} & {field.name for field in fields(Recipe)}


def test_a_keyword_that_nobody_has_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"unexpected keyword n_stepps; the options beside the named are accumulate, "):
        pretraining.pretrain(None, None, tmp_path / "out", n_stepps=2)
    with pytest.raises(
        TypeError, match=r"unexpected keyword minutes; the options beside the named are accumulate, .*n_epochs"
    ):
        finetuning.finetune("model", [], tmp_path / "out", seed=1, n_epochs=1.0, minutes=2)
    assert not (tmp_path / "out").exists()


def test_names_are_those_that_torch_and_ops_know():
    """They stand in the options again, because those import no torch."""
    hints = get_type_hints(options.RunOptions)
    assert get_args(options.Precision) == tuple(DTYPES)
    assert hints["impl"] == Impl


@pytest.mark.parametrize(
    ("command", "needed"),
    [(PretrainCommand, ["--out", "out"]), (FinetuneCommand, ["--task", "sst2", "--out", "out"])],
)
def test_the_commands_have_the_options_and_their_defaults(command, needed, capsys):
    default = tyro.cli(command, args=needed).options
    kind = next(
        kind for kind in (pretraining.PretrainingOptions, finetuning.FinetuningOptions) if isinstance(default, kind)
    )
    assert all(getattr(default, field.name) == field.default for field in fields(kind))
    given = ["--seed", "3", "--log-every", "4", "--checkpoint-every", "8", "--track", "wandb", "--precision", "bf16"]
    found = tyro.cli(command, args=[*needed, *given]).options
    assert (found.seed, found.log_every, found.checkpoint_every) == (3, 4, 8)
    assert (found.track, found.precision) == (("wandb",), "bf16")
    with pytest.raises(SystemExit):
        tyro.cli(command, args=["--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Updates between two records." in shown and "Code that serves the ops." in shown
    assert "options options" not in shown


def test_steps_is_the_commands_name_of_n_steps():
    assert tyro.cli(PretrainCommand, args=["--out", "out", "--steps", "7"]).options.n_steps == 7


def test_options_import_no_torch():
    code = "import sys, electra_fast.cli.finetune; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
