"""The options of a run: how to train. The recipe says what to train.

This file does not import torch: the command line takes its options and their help texts from these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar, get_args

from typing_extensions import Doc

from .trackers import Tracker

Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]

# Options that commands without training have too, each with its one help text.
Device = Annotated[str, Doc("Device to run on: auto, cpu, cuda, cuda:1, ...")]
ImplOption = Annotated[Literal["auto", "triton", "torch"], Doc("Code that serves the ops.")]
PrecisionOption = Annotated[
    Precision | None,
    Doc("Type of weights and activations; training keeps fp32 masters. Default: bf16 on a GPU, fp32 on a CPU."),
]

Options = TypeVar("Options", bound="RunOptions")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options that every run has. `PretrainingOptions` and `FinetuningOptions` add their own, and defaults.

    Raises:
        ValueError: a number that is not positive, an unknown name.
    """

    accumulate: int = 1
    """Forwards and backwards per update, for batches that do not fit into memory."""
    log_every: int
    """Updates between two records."""
    checkpoint_every: int | None
    """Updates between two checkpoints; a multiple of log-every. Default: 50 times that."""
    gradient_checkpointing: bool = False
    """Keep only the inputs of layers for the backward, and compute the rest again: less memory for a third more
    work."""
    track: tuple[Tracker, ...] = ()
    """Trackers that records go to besides the log."""
    seed: int = 0
    """Seed of everything random."""
    device: Device = "auto"
    impl: ImplOption = "auto"
    precision: PrecisionOption = None

    def __post_init__(self) -> None:
        self._check_positive("accumulate", "log_every", "checkpoint_every")
        if self.checkpoint_every is not None and self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every must be a multiple of log_every {self.log_every}, got {self.checkpoint_every}"
            )
        if self.precision is not None:
            self._check_one_of("precision", Precision)

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def _check_one_of(self, name: str, kind: Any) -> None:
        if (value := getattr(self, name)) not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}")


def changed(options: Options | None, changes: Mapping[str, Any], kind: type[Options]) -> Options:
    """The options, or the defaults of `kind`, with some fields changed; raises TypeError for another kind's options."""
    if options is not None and not isinstance(options, kind):
        raise TypeError(f"options must be {kind.__name__}, got {type(options).__name__}")
    return replace(options or kind(), **changes)


def by_owner(changes: Mapping[str, Any], *owners: type) -> list[dict[str, Any]]:
    """Keyword arguments split by the dataclass that has a field of the name; raises TypeError for unknown names."""
    names = [{field.name for field in fields(owner)} for owner in owners]
    if unknown := changes.keys() - set.union(*names):
        known = ", ".join(sorted(set.union(*names)))
        raise TypeError(f"unexpected keyword {', '.join(sorted(unknown))}; the options beside the named are {known}")
    return [{name: value for name, value in changes.items() if name in own} for own in names]
