"""Endings of a command: its exit code, one line for a mistake, one JSON document."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

_MISTAKES = (ValueError, TypeError, ImportError, OSError)


def exit_code(program: str, run: Callable[[], None]) -> int:
    """Runs a command; returns 0, 2 for a user's mistake (with one line on stderr), or 130 for Ctrl-C.

    A warning to the user is one line on stderr, too, without the place in the code.
    """
    usual = warnings.formatwarning

    def one_line(message: Warning, category: type[Warning], *place: Any) -> str:
        if not issubclass(category, UserWarning):
            return usual(message, category, *place)
        return f"{program}: warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = one_line
    try:
        run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, say) has enough; the rest of the buffer must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _MISTAKES as error:
        return fail(program, str(error) or type(error).__name__)
    finally:
        warnings.formatwarning = usual
    return 0


def fail(program: str, message: str) -> int:
    """Prints one line on stderr; returns the exit code of a mistake."""
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def print_json(document: Any) -> None:
    """Prints one JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False))
