"""Checkpoints that are not what the run wrote: named on one line, and the one before is taken."""

import json
import os
import random
import shutil

import pytest
from checkpoint_states import SETTINGS, assert_equal, flat, trained, write

from electra_fast.training.checkpoint import Checkpoints
from electra_fast.training.distributed import join
from electra_fast.training.manifest import NAME

DATA = "__0_0.distcp"


@pytest.fixture(autouse=True)
def world():
    with join("cpu") as world:
        yield world


def resumed(directory, settings=SETTINGS, defaults=None, keep=10):
    """What `resume` returns, and the state that it has read."""
    state = trained(seed=7, n_steps=5)
    return *Checkpoints(directory, settings, keep, defaults).resume(state), flat(state)


def flip(path, bit=None):
    content = bytearray(path.read_bytes())
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def change_manifest(**changes):
    def change(two):
        path = two / NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def in_its_place(settings=SETTINGS, step=2, name=None):
    """Another run's or another step's files, or one of them, in the place of those of step 2."""

    def replace(two):
        write(two.parent / "other", step, settings=settings)
        source = two.parent / "other" / f"step-{step}"
        if name is not None:
            shutil.copy(source / name, two / name)
        else:
            shutil.rmtree(two)
            source.rename(two)
        shutil.rmtree(two.parent / "other")

    return replace


MISFITS = {
    "a bit of the tensors": (lambda two: flip(two / DATA), f"{DATA} is damaged: its checksum is another"),
    "a bit of the metadata": (lambda two: flip(two / ".metadata"), ".metadata is damaged: its checksum is another"),
    "tensors of another step": (in_its_place(step=1, name=DATA), f"{DATA} is damaged"),
    "another step": (in_its_place(step=1), "it is that of step 1"),
    "another seed": (in_its_place(SETTINGS | {"seed": 4}), r"other settings \(seed: 4 then, 3 now\)"),
    "another recipe": (
        in_its_place(SETTINGS | {"recipe": {"dropout": 0.2, "layers": (1, 2)}}),
        r"other settings \(recipe.dropout: 0.2 then, 0.1 now\)",
    ),
    "another text": (in_its_place(SETTINGS | {"text": "4567"}), r"\(text: 4567 then, 0123 now\)"),
    "a file missing": (lambda two: os.remove(two / DATA), f"{DATA} must be a file of it, and is missing"),
    "a directory for a file": (
        lambda two: (os.remove(two / DATA), (two / DATA).mkdir()),
        f"{DATA} must be a file of it",
    ),
    "a pipe for a file": (lambda two: (os.remove(two / DATA), os.mkfifo(two / DATA)), f"{DATA} must be a file of it"),
    "an extra file": (lambda two: (two / "__1_0.distcp").touch(), "__1_0.distcp is no file of it"),
    "a cut file": (lambda two: os.truncate(two / DATA, 99), f"{DATA} must have .* bytes, got 99"),
    "a longer file": (lambda two: (two / DATA).open("ab").write(b"\0"), f"{DATA} must have .* bytes, got "),
    "no manifest": (lambda two: os.remove(two / NAME), f"its {NAME} is missing"),
    "an empty manifest": (lambda two: os.truncate(two / NAME, 0), f"{NAME} must hold JSON"),
    "a cut manifest": (lambda two: os.truncate(two / NAME, 300), f"{NAME} must hold JSON"),
    "a list as manifest": (lambda two: (two / NAME).write_text("[]"), f"{NAME} must hold a JSON object, got list"),
    "a deep manifest": (lambda two: (two / NAME).write_text("[" * 100_000), f"{NAME} must hold JSON"),
    "bytes as manifest": (lambda two: (two / NAME).write_bytes(b"\xff\xfe\x00"), f"{NAME} must hold JSON"),
    "files of another type": (change_manifest(files=[1]), f"{NAME} is damaged"),
    "facts of another type": (change_manifest(files={DATA: 5}), f"{NAME} is damaged"),
    "settings of another type": (change_manifest(settings=7), f"{NAME} is damaged"),
    "a later version": (change_manifest(version=2), f"{NAME} must have version 1, got 2"),
    "a file for the checkpoint's directory": (lambda two: (shutil.rmtree(two), two.write_text("x")), None),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_is_named_and_the_one_before_is_taken(tmp_path, name):
    _, states = write(tmp_path, 1, 2)
    damage, message = MISFITS[name]
    damage(tmp_path / "step-2")
    step, lines, state = resumed(tmp_path)
    assert step == 1
    assert_equal({"": state}, {f".{key}": x for key, x in states[1].items()})
    if message is None:  # what is no directory is no checkpoint
        assert lines == []
    else:
        (line,) = lines
        assert str(tmp_path / "step-2") in line and line.endswith("; the run goes on from step 1 instead")
        assert "\n" not in line
        with pytest.raises(ValueError, match=rf"step-2 does not fit: .*{message}"):
            Checkpoints(tmp_path, SETTINGS).load(2, trained())


def test_any_flipped_bit_is_found_or_harmless(tmp_path):
    _, states = write(tmp_path, 1, 2)
    source = random.Random(5)
    for name in (DATA, ".metadata", NAME):
        path = tmp_path / "step-2" / name
        content = path.read_bytes()
        for _ in range(40):
            flip(path, source.randrange(8 * len(content)))
            step, lines, state = resumed(tmp_path)
            assert step == 2 - len(lines)
            assert_equal({"": state}, {f".{key}": x for key, x in states[step].items()})
            assert step == 1 or name == NAME, "white space of the manifest may change"
        path.write_bytes(content)


def test_several_that_do_not_fit_are_all_named(tmp_path):
    write(tmp_path, 1, 2, 3)
    for step in (2, 3):
        flip(tmp_path / f"step-{step}" / DATA)
    step, lines, _ = resumed(tmp_path)
    assert step == 1 and [f"step-{n} does not fit" in line for n, line in zip((3, 2), lines, strict=True)] == [True] * 2


def test_if_none_fits_the_error_names_all(tmp_path):
    write(tmp_path, 1, 2)
    with pytest.raises(
        ValueError, match=r"no checkpoint fits this run: .*step-2 .*seed.*; .*step-1 .*anew, remove /"
    ) as e:
        resumed(tmp_path, SETTINGS | {"seed": 9})
    assert "\n" not in str(e.value)


def test_one_from_before_manifests_is_taken_with_a_warning(tmp_path):
    _, states = write(tmp_path, 1, 2)
    for step in states:
        os.remove(tmp_path / f"step-{step}" / NAME)
    step, (line,), state = resumed(tmp_path)
    assert step == 2 and f"step-2 has no {NAME}" in line
    assert_equal({"": state}, {f".{key}": x for key, x in states[2].items()})


def test_a_setting_that_did_not_exist_then_had_its_default(tmp_path):
    write(tmp_path, 1)
    settings = SETTINGS | {"recipe": {**SETTINGS["recipe"], "new": 5}}
    assert resumed(tmp_path, settings, {"recipe": {"new": 5}})[:2] == (1, [])
    with pytest.raises(ValueError, match=r"recipe\.new: 4 then, 5 now"):
        resumed(tmp_path, settings, {"recipe": {"new": 4}})


def test_one_that_does_not_fit_is_replaced_and_never_kept_for_a_good_one(tmp_path):
    _, states = write(tmp_path, 1, 2, 3, 6)
    for step in (2, 3, 6):
        flip(tmp_path / f"step-{step}" / DATA)
    checkpoints = Checkpoints(tmp_path, SETTINGS, keep=2)
    state = trained()
    assert checkpoints.resume(state)[0] == 1
    checkpoints.save(3, state)
    checkpoints.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-3", "step-6"]
    checkpoints.save(6, state)
    checkpoints.finish()
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-3", "step-6"]
    step, lines, found = resumed(tmp_path)
    assert (step, lines) == (6, [])
    assert_equal({"": found}, {f".{key}": x for key, x in states[1].items()})
