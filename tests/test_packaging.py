"""What is in a source distribution and in a wheel, and what pip may install beside them."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


def build(kind, tree, target):
    """Builds by pyproject.toml's backend in a process of its own, as pip does."""
    run = subprocess.run([sys.executable, "-c", BUILD, kind, target], cwd=tree, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A source distribution of a copy of the tree, unpacked."""
    folder = tmp_path_factory.mktemp("packaging")
    left_out = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    shutil.copytree(ROOT, folder / "tree", symlinks=True, ignore=shutil.ignore_patterns(".git", *left_out))
    build("build_sdist", folder / "tree", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "source", filter="data")
    (directory,) = (folder / "source").iterdir()
    return directory


def test_a_source_distribution_builds_everything_and_has_no_tests(source):
    names = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("tests")} == set()
    for folder in ("csrc", "docs", "electra_fast/bundled_model", "kernels/electra_triton"):
        ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name for name in ours - names if not re.search(r"__pycache__|kernels/.*\.md", name)} == set()
    assert names >= {"setup.py", "pyproject.toml", "README.md", "LICENSE", "benchmarks/measure.py"}


def test_a_wheel_without_csrc_is_for_every_platform_and_has_each_file_once(source, tmp_path):
    shutil.copytree(source, tmp_path / "source", ignore=shutil.ignore_patterns("csrc"))
    build("build_wheel", tmp_path / "source", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    folders = {name.partition("/")[0] for name in contents}
    assert folders == {"electra_fast", f"electra_fast-{PROJECT['version']}.dist-info"}
    bundled = [name for name in contents if "/bundled_model/" in name and not name.endswith("tokenizer_config.json")]
    assert len({contents[name] for name in bundled}) == len(bundled) > 5
    for name in ("py.typed", "kernels/linear.py", "benchmarks/measure.py", "bundled_model/generator/vocab.txt"):
        assert f"electra_fast/{name}" in contents
    assert not [name for name in contents if name.endswith((".cpp", ".h", ".so", ".jsonl", ".pyc"))]


def test_every_requirement_has_a_lower_bound():
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    requirements = [line for group in groups.values() for line in group if not line.startswith("electra_fast[")]
    assert [line for line in requirements if ">=" not in line] == []
