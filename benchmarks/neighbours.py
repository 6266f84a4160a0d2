"""Busy neighbours: processes that compute beside a measurement, as the other workers of a server do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn


@contextmanager
def neighbours(n: int) -> Iterator[list[subprocess.Popen]]:
    """Lets `n` processes compute within. They take time of the cores, and hardly any cache or memory.

    They end with the block, and also with this process however it ends: each reads a pipe that only this process holds.

    Raises:
        RuntimeError: one did not start.
    """
    pipe, none = subprocess.PIPE, subprocess.DEVNULL  # Ctrl-C reaches them, too, and they have nothing to say
    with ExitStack() as stack:
        processes = []
        for _ in range(n):
            processes.append(subprocess.Popen([sys.executable, "-I", __file__], stdin=pipe, stdout=pipe, stderr=none))
            stack.enter_context(processes[-1])
            stack.callback(processes[-1].kill)
            if not processes[-1].stdout.readline():
                raise RuntimeError("a busy neighbour did not start")
        yield processes


def _compute() -> NoReturn:
    """Computes until standard input ends."""

    def leave() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=leave, daemon=True).start()
    print("computing", flush=True)
    while True:
        pass


if __name__ == "__main__":
    _compute()
