"""The live line and the log."""

import errno
import io
import math
import os

import pytest

from electra_fast.training.progress import JsonLines, ProgressLine, format_duration, read_records


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_records_are_lines_of_json_and_a_cut_off_one_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    with JsonLines(path) as log:
        log.write("run", seed=1)
        log.write("train", step=2, loss=math.nan)
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"kind": "tra')
    assert read_records(path) == [{"kind": "run", "seed": 1}, {"kind": "train", "step": 2, "loss": None}]
    assert read_records(path, "run") == [{"kind": "run", "seed": 1}]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_name_of_the_log():
    log = JsonLines("/dev/full")
    for call in (lambda: log.write("run", seed=1), log.close):
        with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
            call()


def test_the_line_is_rewritten_on_a_terminal():
    stream = Terminal()
    line = ProgressLine(stream)
    line.show(50, 0.25, 30.0, {"gen": "12345"})
    line.show(100, 0.5, 60.0, {"gen": "1"})
    line.end()
    first, second = stream.getvalue().removeprefix("\r").removesuffix("\n").split("\r")
    assert first == "step 50/200   25%  gen 12345  ETA 1:30"
    assert second.rstrip() == "step 100/200   50%  gen 1  ETA 1:00"
    assert len(second) == len(first)


def test_a_process_may_have_no_standard_output(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    line = ProgressLine()
    line.show(50, 0.25, 30.0, {"gen": "12345"})
    line.end()


def test_a_terminal_that_is_closed_takes_nothing_and_ends_nothing(capfd):
    class Closed(Terminal):
        def flush(self):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def fileno(self):
            return 1

    descriptor = os.dup(1)
    try:
        line = ProgressLine(Closed())
        line.show(50, 0.25, 30.0, {})
        os.write(1, b"is lost")
    finally:
        os.dup2(descriptor, 1)
        os.close(descriptor)
    assert capfd.readouterr().out == "", "it is the whole process that has no terminal"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_other_errors_of_an_output_are_told(number):
    class Full(Terminal):
        def flush(self):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)):
        ProgressLine(Full()).show(50, 0.25, 30.0, {})


def test_elsewhere_a_line_now_and_then_and_the_last():
    stream = io.StringIO()
    line = ProgressLine(stream)
    for step in range(1, 101):
        line.show(step, step / 100, float(step), {})
    line.end()
    assert [text.split()[1] for text in stream.getvalue().splitlines()] == ["1/100", "100/100"]


def test_durations():
    assert [format_duration(seconds) for seconds in (0, 75.4, 3675)] == ["0:00", "1:15", "1:01:15"]
