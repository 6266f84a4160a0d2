"""The clock of a loop: a record has the time that a GPU took for its updates, though the host runs ahead."""

import time
from types import SimpleNamespace

import torch
from torch import nn

from electra_fast.training.distributed import World
from electra_fast.training.loop import Loop, _seed


class Idle(Loop):
    """A loop without a model, whose updates take no time on the host."""

    _new_optimizers = _batches = _compute = _collect = None

    def __init__(self, device):
        self.model = self.module = nn.Identity()
        self.world, self.n_steps, self.minutes, self.log_every = World(0, 1, torch.device(device)), 4, None, 2
        self.step, self.seconds, self.stopped_by, self._signal, self._window_start = 0, 0.0, 0, 0, 0.0

    def _update(self):
        pass

    def _metrics(self, seconds):
        return {"seconds": seconds}


def test_a_record_waits_for_the_gpu_before_it_takes_the_time(monkeypatch):
    records = []
    report = SimpleNamespace(training=lambda step, progress, seconds, metrics: records.append((step, seconds, metrics)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: time.sleep(0.2))
    loop = Idle("cuda")
    loop.run(report)
    (first, until_first, metrics), (second, until_second, more) = records
    assert (first, second) == (2, 4)
    assert until_first == metrics["seconds"] >= 0.2
    assert until_second - until_first == more["seconds"] >= 0.2
    assert loop.seconds == until_second


def test_the_gpu_is_seeded_also_where_its_device_has_no_number(monkeypatch):
    """As in the benchmarks, which train on device "cuda"."""
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeds.append)
    for device in ("cpu", "cuda", "cuda:1"):
        _seed(3, torch.device(device))
        assert torch.initial_seed() == 3
    assert seeds == [3, 3]
