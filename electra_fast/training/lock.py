"""The lock of a run's directory. It belongs to a process and ends with it, whatever ends the process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from ..disk import made, named_if_full

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".lock"
_UNLOCKED = "nothing keeps a second run out of it"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes from locking a directory; makes it, and removes it at the end if nothing else is in it.

    Where the file system has no locks, this says so and locks nothing.

    Raises:
        BlockingIOError: another process has the lock; the message names it.
        OSError: a directory that cannot be made or written.
    """
    if fcntl is None:
        print(f"no lock on {directory}: {_UNLOCKED}", flush=True)
        yield
        return
    place = Path(os.path.realpath(directory))  # a link may lead to what is not there yet
    missing = [path for path in (place, *place.parents) if not path.exists()]
    path = directory / NAME
    file = _open_locked(path)
    try:
        holder = f"host {socket.gethostname()}, process {os.getpid()}, since {datetime.now().astimezone():%F %T %z}"
        with named_if_full(path):
            os.ftruncate(file, 0)
            os.write(file, holder.encode())
        yield
    finally:
        # The file goes before the lock does, so nobody loses a lock file that is in use.
        path.unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):  # a directory that is not empty
            for made_here in missing:
                made_here.rmdir()


def _open_locked(path: Path) -> int:
    """An open, locked file of this name."""
    while True:
        made(path.parent)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # another process has just removed the directory that it had made
            continue
        try:
            _lock(file, path)
            # The one who had the lock before may have removed the file since it was opened here.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 300).decode("utf-8", "replace") or "a process that has just begun"
        raise BlockingIOError(
            f"another run is at work in {path.parent} ({' '.join(holder.split())}): wait for its end, or give another "
            f"directory"
        ) from None
    except OSError as error:
        print(f"no lock on {path.parent}: {error}; {_UNLOCKED}", flush=True)
