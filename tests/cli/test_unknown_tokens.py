"""Commands on text that the vocabulary does not know: each tells so in one line."""

import random
import subprocess
import sys
import warnings

import pytest

from electra_fast import embed
from electra_fast.bundled import bundled
from electra_fast.cli.main import main
from electra_fast.inference.embed import load_encoder

TINY = ["--set", "num_hidden_layers=1", "seq_length=16", "max_position_embeddings=16"]
SMALL = ["--max-length", "16", "--epochs", "1", "--device", "cpu", "--retries", "0"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of Chinese and of English for every command."""
    monkeypatch.chdir(tmp_path)
    letters = random.Random(0)
    chinese = ["".join(chr(letters.randrange(0x4E00, 0x9000)) for _ in range(40)) for _ in range(400)]
    english = [f"The {letters.choice(['file', 'list', 'name'])} is a value of the object {n}." for n in range(400)]
    for name, lines in (("chinese", chinese), ("english", english)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        table = "".join(f"{line},{number % 2}\n" for number, line in enumerate(lines))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{table}", encoding="utf-8")
    (tmp_path / "one.txt").write_text("狐狸\n", encoding="utf-8")
    return tmp_path


def told(*argv):
    """The warnings of a command that succeeds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([*map(str, argv)]) == 0
    return [str(warning.message) for warning in caught if "[UNK]" in str(warning.message)]


def test_every_command_tells(folder):
    vocab = ["--vocab", bundled("discriminator")]
    finetune = ["finetune", "--task", "classification", "--text", "text", "--label", "label", *SMALL]
    for name in ("english", "chinese"):
        text = [*vocab, "--data", f"{name}.txt", "--documents-by", "line"]
        out = ["--out", f"{name}-run", "--steps", "1", "--batch-size", "4", "--device", "cpu", *TINY]
        commands = [
            ["prepare", *text, "--out", f"{name}-shards"],
            ["pretrain", "--preset", "tiny", *text, *out],
            ["pretrain", "--preset", "tiny", *vocab, "--data", f"{name}-shards", *out, "--overwrite"],
            [*finetune, "--data", f"{name}.csv", "--out", f"{name}-tuned"],
            ["predict", "--model", f"{name}-tuned/model", "--input", f"{name}.txt", "--output", "out"],
            ["embed", "--input", f"{name}.txt", "--output", "out.npy"],
        ]
        if name == "chinese":
            commands.append(["predict", "--model", "english-tuned/model", "--input", "one.txt", "--output", "out"])
            commands.append(["embed", "--input", "one.txt", "--output", "out.npy"])
        for command in commands:
            assert len(told(*command)) == (name == "chinese"), command


def test_a_split_of_another_language_is_named(folder):
    files = ["--train", "english.csv", "--dev", "chinese.csv", "--out", "tuned"]
    columns = ["--text", "text", "--label", "label", *SMALL]
    (line,) = told("finetune", "--task", "classification", *columns, *files)
    assert "of the tokens of the dev examples of classification are [UNK]" in line


def test_a_warning_is_one_line(folder):
    command = [sys.executable, "-m", "electra_fast", "embed", "--input", "one.txt", "--output", "out.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stderr.splitlines() if "warn" in line.lower()]
    assert line.startswith("electra-fast embed: warning: 100% of the tokens of the texts are [UNK]")


def test_functions_warn_too():
    encoder = load_encoder(bundled("discriminator"), device="cpu")
    with pytest.warns(UserWarning, match=r"of the tokens of the texts are \[UNK\]"):
        embed(["狐狸"], *encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(["the name of the file", ""], *encoder)
