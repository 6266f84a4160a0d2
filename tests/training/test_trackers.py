"""Trackers write what they are given: read back from what each package left on the disk."""

import json
import sqlite3
import struct
import sys
import time

import pytest

from electra_fast.training.trackers import RecordWriters, open_tracker

RUN = {"seed": 1, "recipe": {"name": "tiny"}}


def write_records(tracker):
    with RecordWriters([tracker]) as log:
        log.write("run", **RUN)
        log.write("train", step=50, loss=3.5, lr=1e-3, note="text", is_odd=True)
        log.write("evaluation", step=50, generator_loss=3.0, discriminator_auc=None)
        log.write("train", step=100, loss=2.5)
        log.write("end", reason="done")


def test_tensorboard(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_records(open_tracker("tensorboard", tmp_path))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/lr", "evaluation/generator_loss"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(50, 3.5), (100, 2.5)]
    (text,) = events.Tensors("run/text_summary")
    assert b'"name": "tiny"' in text.tensor_proto.string_val[0]


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")

    monkeypatch.setenv("WANDB_MODE", "offline")
    write_records(open_tracker("wandb", tmp_path))
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 60
    while not (records := list(wandb_records(path))) or not records[-1].HasField("exit"):
        assert time.monotonic() < deadline, "wandb writes its file in a process of its own, but not for a minute"
        time.sleep(0.1)
    history, config = {}, {}
    for record in records:
        for item in record.history.item:
            name = item.key or "".join(item.nested_key)
            history.setdefault(record.history.step.num, {})[name] = json.loads(item.value_json)
        config |= {item.key: json.loads(item.value_json) for item in record.config.update}
    kept = {step: {name: v for name, v in row.items() if "/" in name} for step, row in history.items()}
    assert kept == {
        50: {"train/loss": 3.5, "train/lr": 1e-3, "evaluation/generator_loss": 3.0},
        100: {"train/loss": 2.5},
    }
    assert config == RUN


def wandb_records(path):
    """The records of a file that fits one block: a header, then checksum, length, type and content of each."""
    from wandb.proto import wandb_internal_pb2

    raw, at = path.read_bytes(), 7
    while at + 7 <= len(raw):
        _, size, _ = struct.unpack_from("<IHB", raw, at)
        if at + 7 + size > len(raw):
            return
        yield wandb_internal_pb2.Record.FromString(raw[at + 7 : at + 7 + size])
        at += 7 + size


def test_trackio(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    write_records(open_tracker("trackio", tmp_path / "run"))
    with sqlite3.connect(tmp_path / "trackio" / "electra_fast.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
        (config,) = database.execute("select config from configs").fetchone()
    assert [(name, step, json.loads(metrics)) for name, step, metrics in rows] == [
        ("run", 50, {"train/loss": 3.5, "train/lr": 1e-3}),
        ("run", 50, {"evaluation/generator_loss": 3.0}),
        ("run", 100, {"train/loss": 2.5}),
    ]
    assert {name: value for name, value in json.loads(config).items() if not name.startswith("_")} == RUN


@pytest.mark.parametrize(("name", "extra"), [("tensorboard", "train"), ("wandb", "wandb"), ("trackio", "trackio")])
def test_a_package_that_is_missing_is_named_with_its_extra(name, extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} needs its package: pip install 'electra_fast\[{extra}\]'"):
        open_tracker(name, tmp_path)


def test_an_unknown_tracker_is_named(tmp_path):
    with pytest.raises(ValueError, match="one of tensorboard, wandb, trackio, got 'paper'"):
        open_tracker("paper", tmp_path)


def test_all_writers_get_all_records_and_are_closed_in_reverse():
    calls = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def write(self, kind, **fields):
            calls.append((self.name, kind, fields))

        def close(self):
            calls.append((self.name, "close"))

    with RecordWriters([Recorder("a"), Recorder("b")]) as log:
        log.write("train", step=1)
    assert calls == [("a", "train", {"step": 1}), ("b", "train", {"step": 1}), ("b", "close"), ("a", "close")]
