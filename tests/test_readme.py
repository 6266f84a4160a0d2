"""The README and docs/ are true: their Python runs, their commands and options exist, their links lead somewhere."""

import importlib
import io
import re
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from electra_fast import ElectraConfig, ElectraForPreTraining, ElectraTokenizer
from electra_fast.cli.main import COMMANDS, main
from electra_fast.ops.registry import OPS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
README = PAGES["README.md"]
BLOCKS = {
    f"{name}-{number}": block
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
}
# A command is a line of its own or between backticks, and may be continued after a backslash.
CALLS = {
    " ".join(call.split())
    for text in PAGES.values()
    for line in text.replace("\\\n", " ").splitlines()
    for call in re.findall(r"(?:`|^ {4}.*?)(?:electra-fast|-m electra_fast) +([^`#]+)", line)
}
FACES = {
    "electra_fast",
    "electra_fast.bundled",
    "electra_fast.conversion",
    "electra_fast.export",
    "electra_fast.finetuning",
    "electra_fast.integrations.ray",
    "electra_fast.integrations.sentence_transformers",
    "electra_fast.integrations.spark",
    "electra_fast.integrations.transformers",
    "electra_fast.pretraining",
}


def command_of(call: str) -> str:
    """The subcommand of a call, with what follows `bench`."""
    words = call.split()
    return " ".join(words[: 2 if words[0] == "bench" else 1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A directory that stands where the pages have the Hub's google/electra-small-discriminator."""
    directory = tmp_path_factory.mktemp("checkpoint")
    words = "the quick brown fox fake over lazy dog a short one".split()
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    ElectraTokenizer(vocab).save_pretrained(directory)
    ElectraForPreTraining(ElectraConfig(vocab_size=len(vocab), num_hidden_layers=1)).save_pretrained(directory)
    return directory


# What the pages show


# Those of recipes.md need libraries of their own: tests/integrations/test_recipe_pages.py runs them.
RUN_HERE = {name: block for name, block in BLOCKS.items() if not name.startswith("recipes.md")}


@pytest.mark.parametrize("block", RUN_HERE.values(), ids=RUN_HERE)
def test_python_blocks_run(block, checkpoint, tmp_path, monkeypatch):
    needed = {
        "FlaxElectra": "jax",
        "TFElectra": "tensorflow",
        "import keras_hub": "keras_hub",
        "import ray": "ray",
        "from pyspark": "pyspark",
    }
    for words, package in needed.items():
        if words in block:
            pytest.importorskip(package, reason=f"{package} is not installed in this environment")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)  # by default Spark's workers are the path's python3
    exec(block.replace("google/electra-small-discriminator", str(checkpoint)), {})


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_python_blocks_import_faces_only(block):
    imports = re.findall(r"^from (electra_fast[\w.]*) import (.*?)(?: *#.*)?$", block, flags=re.MULTILINE)
    assert {module for module, _ in imports} <= FACES
    for module, names in imports:
        face = importlib.import_module(module)
        public = {*getattr(face, "__all__", dir(face)), *getattr(face, "_HOME", ())}
        assert set(names.split(", ")) <= public


def test_the_pages_have_what_is_tested():
    assert {name.rpartition("-")[0] for name in BLOCKS} == set(PAGES) - {"benchmarks.md", "install.md"}
    assert {call.split()[0] for call in CALLS} == set(COMMANDS)


@pytest.mark.parametrize("command", sorted({command_of(call) for call in CALLS}))
def test_options_exist(command, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out
    options = {word for call in CALLS if command_of(call) == command for word in call.split() if word.startswith("--")}
    assert {option for option in options if option not in shown} == set()


def test_make_targets_exist():
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "Makefile", *ROOT.glob("tests/*.mk")))
    targets = re.findall(r"^([a-z-]+):", rules, flags=re.MULTILINE)
    named = [name for text in PAGES.values() for name in re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE)]
    assert re.findall(r"^ {4}make (\w+)", README, re.MULTILINE)[:2] == ["demo", "test"]
    assert set(named) <= set(targets)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = folder / (path or name)
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """The headings of a page as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_ops_has_every_op_and_every_kernel():
    named = set(re.findall(r"`(\w+)`", PAGES["ops.md"]))
    kernels = {path.stem for path in ROOT.glob("kernels/electra_triton/*.py")} - {"__init__"}
    assert set(OPS) | kernels <= named


# The README


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120] == []
    assert [line for line in lines if line.startswith("|") and line.count("|") > 6] == []
    assert re.search(r"\d+\.\d+", "\n".join(lines[:15]))


def test_its_first_figures_are_those_of_its_table():
    first, _, rest = README.partition("\n## ")
    figures = re.findall(r"(\d+\.\d+) times as fast", " ".join(first.split()))
    assert len(figures) == 2
    assert [figure for figure in figures if f"{figure} x" not in rest] == []


def test_its_example_prints_what_is_shown():
    code, shown = re.search(r"```python\n(.*?print\([^\n]*  # ([^\n]*))\n```", README, flags=re.DOTALL).groups()
    with redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == f"{shown}\n"


def test_its_command_prints_what_is_shown(capsys):
    text, shown = re.search(r'^    \$ \S+ detect "(.*?)"\n((?: {4}.+\n)+)', README, flags=re.MULTILINE).groups()
    assert main(["detect", text]) == 0
    assert capsys.readouterr().out == re.sub(r"^ {4}", "", shown, flags=re.MULTILINE)


def test_it_lists_the_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = re.search(r"\| extra \|.*?\n\n", README, flags=re.DOTALL)[0]
    names = [name for line in table.strip().splitlines() for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(names) == sorted(project["optional-dependencies"])


def test_its_folders_exist():
    tree = re.search(r"## Where things are\n\n(.*?)\n\n", README, flags=re.DOTALL)[1]
    for line in tree.splitlines():
        inside = ROOT / "electra_fast" if line.startswith(" " * 6) else ROOT
        for folder in re.findall(r"(\w+)/", line.strip().partition("  ")[0]):
            assert (inside / folder).is_dir(), folder
