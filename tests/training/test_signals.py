"""The signals that stop a run: all that would end its process, but those that somebody else has taken."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from electra_fast.training import loop as training_loop
from electra_fast.training.loop import end_by_signal, stopped_by_signals

NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
NUMBERS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
WARNINGS = NUMBERS[2:]


@pytest.fixture
def loop():
    found = SimpleNamespace(stopped_by=[])
    found.stop = found.stopped_by.append
    return found


@pytest.fixture
def handler():
    """Gives a signal another handler until the test ends."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield signal.signal
    for number, usual in before.items():
        signal.signal(number, usual)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_stops_the_loop_and_is_its_exit_code(loop, handler, number):
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    handler(number, usual)
    with stopped_by_signals(loop):
        os.kill(os.getpid(), number)
    assert loop.stopped_by == [number]
    assert signal.getsignal(number) == usual
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as end:
        end_by_signal(number)
    assert number == signal.SIGINT or end.value.code == 128 + number


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_ignored_stays_so(loop, handler, number):
    """As with nohup, and in the background of a shell."""
    handler(number, signal.SIG_IGN)
    with stopped_by_signals(loop):
        os.kill(os.getpid(), number)
    assert loop.stopped_by == []


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_that_the_program_handles_is_for_it(loop, handler, number):
    seen = []
    handler(number, lambda *_: seen.append(number))
    with stopped_by_signals(loop):
        os.kill(os.getpid(), number)
    assert (seen, loop.stopped_by) == ([number], [])


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_that_comes_again_is_one_still(loop, handler, number, monkeypatch):
    """SIGXCPU comes each second."""
    monkeypatch.setattr(training_loop, "_REPEAT_SECONDS", -1.0)
    handler(signal.SIGTERM, usual := lambda *_: loop.stop("as usual"))
    with stopped_by_signals(loop):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
    assert loop.stopped_by[:3] == [number, number, "as usual"]
    assert signal.getsignal(signal.SIGTERM) is usual


def test_a_handler_that_python_did_not_install_stays(loop, monkeypatch):
    usual = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else usual(number))
    with stopped_by_signals(loop):
        assert usual(signal.SIGTERM) == signal.SIG_DFL
        assert usual(signal.SIGINT) != signal.default_int_handler
