"""Outputs of all commands: none is written over what its command reads, and a directory is told from a file."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest
from tiny_models import random_model

from electra_fast import ElectraForPreTraining
from electra_fast.cli import bundle
from electra_fast.cli.demo import Demo
from electra_fast.cli.main import main

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the commands read: a model, data, a vocabulary and a line of text."""
    root = tmp_path_factory.mktemp("made")
    for model in (root / "model", root / "run" / "model"):
        random_model(ElectraForPreTraining, vocab_size=len(WORDS)).save_pretrained(model)
        (model / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (root / "data").mkdir()
    (root / "data" / "train.csv").write_text("t,l\n" + "a,x\nb,y\n" * 20)
    (root / "data" / "text.txt").write_text("a b\n\n" * 50)
    (root / "a.txt").write_text("a\n")
    (root / "link.txt").symlink_to("a.txt")
    (root / "same").symlink_to("data")
    return root


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def refused(made, tmp_path, monkeypatch, capsys):
    """Runs a command, given as one text, in a copy of what was made; nothing of that may change."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here", symlinks=True))

    def refused(run, message):
        before = contents(Path())
        with pytest.raises((FileExistsError, FileNotFoundError), match=message):
            run()
        assert contents(Path()) == before

    return refused


CUSTOM = "finetune --task classification --text t --label l --overwrite"
TINY = "pretrain --preset tiny --overwrite"
OVER = "must not be written over what is read: "


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train-vocab --data data/text.txt --out same/text.txt", OVER + "same/text.txt is data/text.txt"),
        ("train-vocab --data same --out data/text.txt", OVER + "data/text.txt is a file of same"),
        ("train-vocab --data data --out model", "must be a file, but model is there and is none .it is a directory"),
        ("train-vocab --data data --out no/vocab.txt", "the directory of the output does not exist: .*no"),
        (f"{TINY} --data data --out same", OVER + "same is data"),
        (f"{TINY} --data data --out .", OVER + ". holds data"),
        (f"{TINY} --data data --init-discriminator run/model --out run", OVER + "run holds run/model"),
        (f"{TINY} --data data --vocab model/vocab.txt --out model", OVER + "model holds model/vocab.txt"),
        (f"{CUSTOM} --model run/model --data data --out run", OVER + "run holds run/model"),
        (f"{CUSTOM} --model model --data data --out same", OVER + "same is data"),
        (f"{CUSTOM} --model model --train data/train.csv --out data", OVER + "data holds data/train.csv"),
        (f"{CUSTOM} --model model --train data --out new", "no such file: data is a directory"),
        ("prepare --data data --vocab a.txt --out data", "data is not empty"),
        ("prepare --data data --vocab a.txt --out link.txt", "must be a directory, but link.txt is a file"),
        ("export model model --overwrite", OVER + "model/config.json is a file of model"),
        ("convert model model", OVER + "model is model"),
        ("convert run/model run", OVER + "run holds run/model"),
        ("convert model new --vocab data", "no such file: data is a directory"),
        ("bench embed --texts a.txt --json link.txt", OVER + "link.txt is a.txt"),
        ("bench model --texts a.txt --json link.txt", OVER + "link.txt is a.txt"),
        ("bench tokenizer --data data --json data/text.txt", OVER + "data/text.txt is a file of data"),
        ("bench finetune --data data --json data/train.csv", OVER + "data/train.csv is a file of data"),
        ("bench pretrain --json data", "must be a file, but data is there and is none .it is a directory"),
        ("bench report --results data --markdown data/text.txt", OVER + "data/text.txt is a file of data"),
        ("bench report --results data --plots a.txt", "must be a directory, but a.txt is a file"),
        ("bench report --results data --plots no/plots", "the directory of the output does not exist: no"),
    ],
)
def test_no_command_writes_over_what_it_reads(refused, capsys, command, message):
    def run():
        code = main(command.split())
        assert code == 2
        raise FileExistsError(capsys.readouterr().err)

    refused(run, message)


def test_neither_do_the_demo_and_the_maker_of_the_bundled_model(refused, monkeypatch):
    refused(Demo(data=(Path("same"),), out=Path("data")).run, "data is not empty")
    Path("data/run.json").write_text("{}")
    refused(Demo(data=(Path("same"),), out=Path("data")).run, OVER + "data is same")
    monkeypatch.setattr(bundle, "DIRECTORY", Path("run"))
    maker = bundle.MakeBundled(run_directory=Path("run/model"), sources=Path("x"), figures=Path("x"))
    refused(maker.run, OVER + "run holds run/model")


# Links, pipes and devices


def run(capsys, command):
    code = main(command.split())
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured


EMBED = "embed --model model --device cpu --input data/text.txt --output"


@pytest.mark.parametrize(
    "command",
    [
        "train-vocab --data data --size 10 --out",
        EMBED,
        "convert model",
        "export model --format torch",
    ],
)
def test_links_are_followed_by_all_commands(made, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here", symlinks=True))
    Path("disk").mkdir()
    Path("out.npy").symlink_to("between")
    Path("between").symlink_to("disk/out.npy")
    run(capsys, f"{command} out.npy")
    assert Path("out.npy").is_symlink() and Path("between").is_symlink()
    assert [path.name for path in Path("disk").iterdir()] == ["out.npy"]
    assert not [path.name for path in Path().iterdir() if path.name.startswith(".")]
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    code = main([*command.split(), "a"])
    error = capsys.readouterr().err
    assert code == 2 and ("a link that leads in a circle" in error or "must be a .npy file" in error)
    assert error.count("\n") == 1


def test_pipes_and_devices_are_written_into(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "here", symlinks=True))
    os.mkfifo("pipe")
    vocabulary = "train-vocab --data data --size 10 --out"
    for command in (EMBED, vocabulary):
        run(capsys, f"{command} out.npy")
        found = []
        reader = threading.Thread(target=lambda: found.append(Path("pipe").read_bytes()), daemon=True)  # noqa: B023
        reader.start()
        run(capsys, f"{command} pipe")
        reader.join(60)
        assert found[0] == Path("out.npy").read_bytes() and Path("pipe").is_fifo()
    for command in (EMBED, vocabulary):
        run(capsys, f"{command} /dev/null")
        assert main([*command.split(), "/dev/full"]) == 2
        assert capsys.readouterr().err.endswith("No space left on device: '/dev/full'\n")
    assert all(Path(path).is_char_device() for path in ("/dev/null", "/dev/full"))
