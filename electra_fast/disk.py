"""Text files, plain or packed, line by line; JSON; files and directories that appear whole or not at all."""

from __future__ import annotations

import errno
import gzip
import io
import json
import lzma
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import zstandard

COMPRESSIONS = (".gz", ".xz", ".zst")
STANDARD_INPUT = "standard input"

_DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, EOFError)
_CHUNK = 1 << 20
_DEEPEST = 100  # far more than any file of ours or of the Hub, far less than Python can copy or print
# Half of a surrogate pair as JSON can spell it; the other half may stand beside it.
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


# Reading


def lines(path: Path, newline: str | None = None) -> Iterator[str]:
    """The lines of UTF-8 text, plain, .gz, .xz or .zst, with their ends.

    Args:
        newline: that of `open`; by default carriage returns end lines too, and become line feeds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, naming the line.
    """
    check_readable(path)
    number = 0
    try:
        # Spreadsheets begin a file with a byte order mark. A decoder names a place in its buffer, so bytes that are no
        # text pass it, and their line is found here.
        with _open_packed(path) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline) as text:
            for number, line in enumerate(text, start=1):
                _check_utf8(line, f"{path}, line {number}")
                yield line
    except _DAMAGE as error:
        raise ValueError(f"{path}, line {number + 1}: the compressed file is damaged: {error}") from error


def check_readable(path: Path) -> None:
    """Raises FileNotFoundError for a file that is not there, or that is a directory."""
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no such file: {path}{' is a directory' if path.is_dir() else ''}")


def numbered_lines(path: Path | None) -> Iterator[tuple[int, str]]:
    """The `lines` of a file, or of the standard input (None), by number from 1.

    A line ends with a line feed and nothing else: a carriage return within one is white space of its text.

    Raises:
        FileNotFoundError, ValueError: from `lines`; a text without any line feed whose lines carriage returns end.
    """
    found = _standard_input() if path is None else lines(path, newline="\n")
    first = next(found, None)
    if first is None:
        return
    if not first.endswith("\n") and "\r" in first[:-1]:
        name = STANDARD_INPUT if path is None else path
        raise ValueError(f"{name}, line 1: lines must end with line feeds, got carriage returns alone")
    yield 1, first
    yield from enumerate(found, start=2)


def _standard_input() -> Iterator[str]:
    if sys.stdin is None or sys.stdin.closed:
        raise FileNotFoundError(f"the {STANDARD_INPUT} must be open, got a closed one")
    for number, line in enumerate(sys.stdin.buffer, start=1):
        text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")
        _check_utf8(text, f"{STANDARD_INPUT}, line {number}")
        yield text


def _check_utf8(line: str, place: str) -> None:
    """Raises ValueError if a line holds bytes that are no text, which were read as halves of surrogate pairs."""
    try:
        line.encode()
    except UnicodeEncodeError:
        try:
            line.encode(errors="surrogateescape").decode()
        except UnicodeDecodeError as error:
            byte = f"0x{error.object[error.start]:02x}"
            raise ValueError(f"{place}: must be UTF-8, got byte {byte}: {error.reason}") from error


def _open_packed(file: Path) -> BinaryIO:
    """The bytes of a file, plain, .gz, .xz or .zst; reading raises one of `_DAMAGE` where it is damaged."""
    openers = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstd}
    return openers.get(file.suffix.lower(), open)(file, "rb")


def _open_zstd(path: Path, _mode: str) -> io.BufferedReader:
    return io.BufferedReader(_ZstdFile(path), _CHUNK)


class _ZstdFile(io.RawIOBase):
    """The frames of a .zst file as one stream; zstandard's own reader takes a file that was cut off for a whole one."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        # Files packed with --long=31 need that window.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed, self._plain = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._plain:
            self._packed = self._packed or self._file.read(_CHUNK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the file ends before its last frame does")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._plain = memoryview(self._frame.decompress(self._packed))
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def plain_name(path: Path) -> str:
    """The file's name without .gz, .xz or .zst."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def plain_suffix(path: Path) -> str:
    """How that name ends, in lower case: ".jsonl"."""
    return Path(plain_name(path)).suffix.lower()


# JSON


def parse_json(text: str) -> Any:
    """The value of a JSON text; the last of equal keys counts, and NaN and Infinity are numbers, as in transformers.

    Raises:
        json.JSONDecodeError: a text that is no JSON.
        ValueError: lists and objects that are nested too deep, a number of too many digits.
    """
    try:
        value = json.loads(text)
        # Counting brackets takes almost no time, and most rows of data sets have few.
        if text.count("[") + text.count("{") <= _DEEPEST or _is_shallow(value):
            return value
    except RecursionError:
        pass
    raise ValueError(f"lists and objects must be nested at most {_DEEPEST} deep, got more")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [part for part in level if isinstance(part, dict | list)]
        if not level:
            return True
        level = [x for part in level for x in (part.values() if isinstance(part, dict) else part)]
    return False


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: what is no JSON that `parse_json` takes, or holds half of a surrogate pair; names the file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = parse_json(text)
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except ValueError as error:
        raise ValueError(f"{path} must hold JSON, got: {error}") from error


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """The object of a JSON file; raises ValueError, with its name, for another value and from `read_json`."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


# Writing


@contextmanager
def written(path: str | os.PathLike, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Gives a file to write, UTF-8 text or bytes, which gets its name when all of it is on the disk.

    What was there before stays until then, and after an error. A link is followed, as `open` does. A process that is
    killed leaves `.NAME.PID.tmp`, which the next one removes. Of two processes that write at once, the last one wins.
    Only a file is ever replaced: a stream is written into, and has what was written before an error.

    Raises:
        FileNotFoundError, FileExistsError, OSError: from `check_writable`.
    """
    check_writable(path)
    encoding, place = None if mode == "wb" else "utf-8", _followed(path)
    with named_if_full(path):
        if is_stream(path):
            # A descriptor keeps its place in what it is open for, which another opening would not know.
            with open(os.dup(place) if isinstance(place, int) else place, mode, encoding=encoding) as file:
                yield file
            return
        temporary = _beside(place)
        try:
            with open(temporary, mode, encoding=encoding) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if place.exists():
                shutil.copymode(place, temporary)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def named_if_full(path: str | os.PathLike) -> Iterator[None]:
    """Names the file in the error of a disk or a device that takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and error.filename is None:
            error.filename = os.fspath(path)
        raise


def is_stream(path: str | os.PathLike) -> bool:
    """Whether a name leads to a device, a pipe, or what a descriptor of this process is open for (/dev/stdout)."""
    place = _followed(path)
    return isinstance(place, int) or (place.exists() and not place.is_file() and not place.is_dir())


_MOST_LINKS = 40  # as in Linux


def _followed(path: str | os.PathLike) -> Path | int:
    """Where a name leads, whether something is there or not: a path without links, or the number of a descriptor.

    Raises:
        FileExistsError: links that lead in a circle.
    """
    end = os.fspath(path)
    for _ in range(_MOST_LINKS):
        parent, name = os.path.split(end)
        parent = os.path.realpath(parent or ".")
        # The system shows descriptors as links to files, which may have other names now, or none.
        if parent == os.path.realpath("/proc/self/fd") and name.isdecimal():
            return int(name)
        end = os.path.join(parent, name)
        if not os.path.islink(end):
            return Path(os.path.realpath(end))
        end = os.path.join(parent, os.readlink(end))
    raise FileExistsError(f"the output must not be a link that leads in a circle, got {path}")


def check_writable(path: str | os.PathLike) -> None:
    """Refuses what `written` cannot write, before hours are spent on it.

    Raises:
        FileNotFoundError: the directory does not exist.
        FileExistsError: a directory or a socket has that name, or links lead in a circle.
        OSError: a descriptor that is not open.
    """
    place = _followed(path)
    if isinstance(place, int):
        os.fstat(place)
        return
    if place.is_dir() or place.is_socket():
        kind = "directory" if place.is_dir() else "socket"
        raise FileExistsError(f"the output must be a file, but {path} is there and is none (it is a {kind})")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"the directory of the output does not exist: {place.parent}")


def check_apart(output: str | os.PathLike | int, *inputs: str | os.PathLike | int | None) -> None:
    """Refuses an output that would take the place of something that the same command reads, however it is spelt.

    Args:
        output: a file or a directory, which need not exist; 1 is the standard output.
        inputs: files and directories, 0 for the standard input. What does not exist here, such as a model on the Hub,
            and None are passed over.

    Raises:
        FileExistsError: output and an input are one file or directory; the output is a directory that holds an input;
            or it is a file that is there already, in a directory that is an input.
    """
    for given in inputs:
        if given is not None and os.path.exists(given) and (overlap := _overlap(output, given)) is not None:
            names = (_STREAMS.get(place, place) for place in (output, given))
            raise FileExistsError(f"the output must not be written over what is read: {overlap.format(*names)}")


_STREAMS = {0: f"the {STANDARD_INPUT}", 1: "the standard output"}


def _overlap(output: str | os.PathLike | int, given: str | os.PathLike | int) -> str | None:
    """How the two meet, with places for their names; None if they do not."""
    # A terminal or /dev/null may well be both.
    is_there = os.path.isfile(output) or os.path.isdir(output)
    if is_there and os.path.samefile(output, given):
        return "{} is {}"
    if isinstance(output, int) or isinstance(given, int):
        return None
    to, of = Path(os.path.realpath(output)), Path(os.path.realpath(given))
    if to.is_dir() and of.is_relative_to(to):
        return "{} holds {}"
    return "{} is a file of {}" if to.is_file() and to.is_relative_to(of) else None


@contextmanager
def replaced(directory: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty directory to write to, which then takes the place of what was there before; parents are made.

    What was there before stays until then, and after an error. A link is followed. A process that is killed leaves
    `.NAME.PID.tmp`, which the next one removes; between the two moves also `.NAME.old.tmp`, which the next one moves
    back.

    Raises:
        FileExistsError: a file has that name, or a process works in the directory: it would go on in the old one.
    """
    place = _followed(directory)
    if isinstance(place, int) or (place.exists() and not place.is_dir()):
        raise FileExistsError(f"the output must be a directory, but {directory} is a file")
    directory = place
    if Path.cwd().is_relative_to(directory):
        raise FileExistsError(f"the output must be another directory than the working one, got {directory}")
    temporary, old = _beside(directory), directory.with_name(f".{directory.name}.old.tmp")
    _clean(directory, temporary, old)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        # Moving a directory away takes no time, removing it may.
        if directory.exists():
            os.replace(directory, old)
        os.replace(temporary, directory)
    finally:
        _clean(directory, temporary, old)


def made(directory: str | os.PathLike) -> Path:
    """Makes a directory to write into, and its parents, if need be; follows a link, also one that leads nowhere yet."""
    place = _followed(directory)
    if isinstance(place, int):
        raise FileExistsError(f"the output must be a directory, but {directory} is a file")
    # Another process may remove a directory between two looks of `mkdir`, as a run that ends early does with its own.
    for _ in range(100):
        with suppress(FileExistsError, FileNotFoundError):
            place.mkdir(parents=True, exist_ok=True)
            return Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    return Path(directory)


def copied(source: Path, target: Path) -> None:
    """Copies a file or a directory, as `written` and `replaced` do."""
    if source.is_dir():
        with replaced(target) as directory:
            shutil.copytree(source, directory, dirs_exist_ok=True)
    else:
        with source.open("rb") as file, written(target, "wb") as copy:
            shutil.copyfileobj(file, copy)


def moved(source: Path, target: Path) -> None:
    """Gives a file, or a directory in the place of none or an empty one, another name, as `copied` would."""
    if target.is_symlink() or is_stream(target):
        copied(source, target)
        removed(source)
    else:
        os.replace(source, target)


def removed(path: Path) -> None:
    """Removes a file or a directory, if it is there. A link stays: what it leads to is removed, or emptied."""
    place = _followed(path)
    if isinstance(place, int) or is_stream(place):
        return
    if not place.is_dir():
        place.unlink(missing_ok=True)
    elif path.is_symlink():
        for inner in place.iterdir():
            shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
    else:
        shutil.rmtree(place)


def _beside(path: Path) -> Path:
    """The temporary name of this process, `.NAME.PID.tmp`; removes what processes that are no more have left."""
    start, end = f".{path.name}.", ".tmp"
    for leftover in path.parent.iterdir() if path.parent.is_dir() else ():
        pid = leftover.name[len(start) : -len(end)]
        if leftover.name == f"{start}{pid}{end}" and pid.isdigit() and not _is_at_work(int(pid)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}{end}")


def _is_at_work(pid: int) -> bool:
    """Whether another process of this number lives."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # there a signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _clean(directory: Path, temporary: Path, old: Path) -> None:
    """Removes what `replaced` leaves behind, and undoes the first of its two moves where the second did not come."""
    if old.exists() and not directory.exists():
        os.replace(old, directory)
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
