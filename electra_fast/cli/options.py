"""Options that commands have in common, each with its one help text."""

from __future__ import annotations

import tyro

from ..training.options import Device, ImplOption, PrecisionOption

__all__ = ["Device", "ImplOption", "PrecisionOption", "flattened"]

# Marks a dataclass field: its fields become options of the command itself, without a prefix or a box of their own, and
# errors from its checks are not drawn as errors of the parser.
flattened = tyro.conf.arg(name="")
