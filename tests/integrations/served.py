"""Counts the layers that packed tokens went through, to tell whether our code ran."""

import pytest

from electra_fast.integrations import packed_electra
from electra_fast.integrations.transformers import disable, enable
from electra_fast.model import cpu_encoder


class LayerCount:
    """How many times a packed layer ran since it was last read."""

    def __init__(self, monkeypatch):
        self._count, run = 0, packed_electra._run_layer

        def counted(*args):
            self._count += 1
            return run(*args)

        monkeypatch.setattr(packed_electra, "_run_layer", counted)
        run_all = cpu_encoder.CpuEncoder.__call__

        def counted_all(encoder, *args):
            self._count += encoder._copy.n_states - 1
            return run_all(encoder, *args)

        monkeypatch.setattr(cpu_encoder.CpuEncoder, "__call__", counted_all)

    def read(self) -> int:
        count, self._count = self._count, 0
        return count


@pytest.fixture
def layers(monkeypatch):
    yield LayerCount(monkeypatch)
    disable()


def on_and_off(work, layers: LayerCount) -> tuple:
    """(what `work` gives with transformers' own code, what with ours), and that it was ours."""
    theirs = work()
    assert layers.read() == 0
    enable()
    try:
        ours = work()
    finally:
        disable()
    assert layers.read() > 0
    return theirs, ours
