"""Endings of a command: its exit code, one line for a mistake, one JSON document."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

_MISTAKES = (ValueError, TypeError, ImportError, OSError)


def exit_code(program: str, run: Callable[[], None]) -> int:
    """Runs a command; returns 0, 2 for a user's mistake (with one line on stderr), 130 for Ctrl-C, or 141.

    Shells show 141 for a program whose reader (`head`, say) has enough: such a command ends in silence. A standard
    output or error that is closed counts as /dev/null, but a standard input that is closed is missing. A warning to the
    user is one line on stderr, too, without the place in the code.
    """
    _open_standard_streams()
    usual = warnings.formatwarning

    def one_line(message: Warning, category: type[Warning], *place: Any) -> str:
        if not issubclass(category, UserWarning):
            return usual(message, category, *place)
        return f"{program}: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = one_line
    try:
        try:
            run()
        finally:  # also after --help, which exits
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except _MISTAKES as error:
        return fail(program, str(error) or type(error).__name__)
    finally:
        warnings.formatwarning = usual
        for stream in (sys.stdout, sys.stderr):
            _empty(stream)
    return 0


def _open_standard_streams() -> None:
    """Opens /dev/null in place of standard streams that are closed.

    Otherwise the next files to be opened would have their numbers, and get what libraries write to these.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if number and getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _empty(stream: IO[str]) -> None:
    """Writes what a stream still holds; what it cannot write must not raise again when Python exits."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(program: str, message: str) -> int:
    """Prints one line on stderr, if that takes it; returns the exit code of a mistake."""
    with suppress(OSError):
        print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))
