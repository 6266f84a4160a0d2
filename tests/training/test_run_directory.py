"""What a run finds in its directory: errors name the file."""

import json

import pytest

from electra_fast.finetuning.seed_run import SeedDirectory
from electra_fast.training.lock import NAME as LOCK
from electra_fast.training.progress import read_records, rewind_records
from electra_fast.training.run_directory import RunDirectory

NO_OBJECTS = {
    "cut": b'{"seed": 1, "rec',
    "empty": b"",
    "a list": b"[1, 2]",
    "a number": b"5",
    "no UTF-8": b'{"seed": "\xff"}',
    "deep": b"[" * 100_000,
    "nothing but zeros": bytes(20),
}


@pytest.mark.parametrize("name", NO_OBJECTS)
def test_damaged_settings_are_named(tmp_path, name):
    (tmp_path / "run.json").write_bytes(NO_OBJECTS[name])
    with pytest.raises(ValueError, match=r"run\.json must hold (a )?JSON.*, got") as error:
        RunDirectory(tmp_path, ()).check_settings({"seed": 1})
    assert "\n" not in str(error.value)


def test_settings_of_another_type_are_named(tmp_path):
    (tmp_path / "run.json").write_text('{"seed": "1", "recipe": [5]}')
    message = r"other settings \(recipe: \[5\] then, None now; recipe\.a: None then, 1 now; seed: 1 then, 1 now\)"
    with pytest.raises(ValueError, match=message):
        RunDirectory(tmp_path, ()).check_settings({"seed": 1, "recipe": {"a": 1}})


@pytest.mark.parametrize("name", NO_OBJECTS)
def test_a_damaged_line_of_the_log_is_named(tmp_path, name):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"kind": "run"}\n' + NO_OBJECTS[name] + b'\n{"kind": "train", "step": 1}\n')
    for read in (read_records, lambda path: rewind_records(path, 1)):
        with pytest.raises(ValueError, match=r"log\.jsonl, line 2 must be a JSON object, got: ") as error:
            read(log)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [{"step": 1}, {"kind": 5}, {"kind": "train", "step": "1"}, {"kind": None}])
def test_fields_of_another_type_are_named(tmp_path, record):
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, line 1 must have a text as kind and a number as step, got: {"):
        read_records(log)


@pytest.mark.parametrize("length", range(1, 40))
def test_a_last_line_that_was_cut_off_anywhere_is_left_out(tmp_path, length):
    line = '{"kind": "warning", "advice": "größer"}'.encode()
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"kind": "run"}\n' + line[:length])
    assert read_records(log) == [{"kind": "run"}]
    rewind_records(log, 0)
    assert log.read_bytes() == b'{"kind": "run"}\n'


@pytest.mark.parametrize("name", NO_OBJECTS)
def test_a_damaged_result_is_named(tmp_path, name):
    directory = SeedDirectory(tmp_path)
    assert directory.result() is None
    (tmp_path / "result.json").write_bytes(NO_OBJECTS[name])
    with pytest.raises(ValueError, match=r"result\.json must hold (a )?JSON.*, got"):
        directory.result()


@pytest.mark.parametrize(
    ("result", "missing"),
    [({}, "metrics, score, seed"), ({"seed": 1, "metrics": {}}, "score"), ({"failure": "x"}, "seed")],
)
def test_a_result_that_lacks_something_is_named(tmp_path, result, missing):
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=rf"result\.json must be the result of a run, but has no {missing}$"):
        SeedDirectory(tmp_path).result()


def test_a_lock_that_was_left_is_no_content(tmp_path):
    (tmp_path / LOCK).touch()
    RunDirectory(tmp_path, ()).check(overwrite=False)
    (tmp_path / "notes").touch()
    with pytest.raises(FileExistsError, match="is not empty, and holds no run"):
        RunDirectory(tmp_path, ()).check(overwrite=False)


def test_a_new_run_empties_what_links_lead_to(tmp_path):
    (tmp_path / "out").symlink_to("disk/out")
    (tmp_path / "disk").mkdir()
    directory = RunDirectory(tmp_path / "out", ["checkpoints", "results.json"])
    directory.clear()
    for name in ("checkpoints", "results.json", "log.jsonl"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "checkpoints" / "step-1").mkdir(parents=True)
    for name in ("results.json", "log.jsonl"):
        (tmp_path / "disk" / name).write_text("old")
    directory.clear()
    assert (tmp_path / "out").is_symlink() and all(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert [path.name for path in (tmp_path / "disk" / "checkpoints").iterdir()] == []
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["checkpoints", "out"]
    with directory.writer([]) as log:
        log.write("run", seed=1)
    assert (tmp_path / "disk" / "log.jsonl").read_text() == '{"kind": "run", "seed": 1}\n'
