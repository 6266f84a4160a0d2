"""The structure of the project as DESIGN.md describes it: who may import whom, where things are, how long files may be.

Imports inside functions and for type checkers count like all others. The tests run none of the package's code.
"""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "electra_fast.kernels": ROOT / "kernels" / "electra_triton",
    "electra_fast.benchmarks": ROOT / "benchmarks",
    "electra_fast": ROOT / "electra_fast",
}
NOT_PACKAGED = ROOT / "benchmarks" / "suite"
MAX_LINES = 450
# Folders of tests that do not mirror a folder of electra_fast.
OTHER_TESTS = {"kernels", "benchmarks", "bundled"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package and its file; a package's is its __init__.py."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            if not path.is_relative_to(NOT_PACKAGED):
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


def imports(module: str) -> set[str]:
    """The modules that a module imports, by full name, ours and others'."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in modules() or _is_extension(whole) else base)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found - {module}


def _is_extension(name: str) -> bool:
    return name.startswith("electra_fast._") and name.count(".") == 1


def room(module: str) -> str:
    """The folder or file at the package's root that a module is in: what has a floor."""
    if module == "electra_fast":
        return "__init__"
    return module.split(".")[1]


def floors() -> dict[str, int]:
    """The table of DESIGN.md."""
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "DESIGN.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_whole_package_is_read():
    assert {room(module) for module in modules()} == set(floors())
    assert "electra_fast.ops.registry" in imports("electra_fast.ops")
    assert "electra_fast.model.modeling" in imports("electra_fast")
    assert "electra_fast._cpu" in imports("electra_fast.ops.cpu")
    assert len(modules()) > 200


def test_no_circle():
    graph = {module: imports(module) & set(modules()) for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_no_import_runs_upwards():
    floor = floors()
    upwards = [
        f"{module} (floor {floor[room(module)]}) imports {other} (floor {floor[room(other)]})"
        for module in modules()
        for other in imports(module) & set(modules())
        if floor[room(other)] > floor[room(module)]
    ]
    assert upwards == []


def test_no_circle_of_folders():
    """On one floor, too: a folder may import its neighbour, which then does not import it."""
    graph = {name: set() for name in floors()}
    for module in modules():
        graph[room(module)] |= {room(other) for other in imports(module) & set(modules())} - {room(module)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of folders: {' -> '.join(error.args[1])}")


def test_transformers_is_imported_by_integrations_alone():
    """And by benchmarks, where it is one of the peers."""
    others = [
        module
        for module in modules()
        if any(name.partition(".")[0] == "transformers" for name in imports(module))
        and room(module) not in ("integrations", "benchmarks")
    ]
    assert others == []


def test_no_file_is_long():
    suffixes = (".py", ".cpp", ".h", ".inc", ".cu")
    generated = "unicode_tables.inc"
    folders = [ROOT / name for name in ("electra_fast", "kernels", "benchmarks", "csrc", "tests")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in suffixes and path.name != generated
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_every_folder_is_packaged():
    """pyproject.toml lists the packages by hand."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {module.rpartition(".")[0] for module, path in modules().items() if path.name != "__init__.py"}
    assert set(listed) == folders


def test_few_files_stand_at_the_root():
    assert len(list((ROOT / "electra_fast").glob("*.py"))) <= 8


def test_tests_are_in_the_folders_of_the_code():
    folders = {
        str(path.parent.relative_to(ROOT / "tests"))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.parent != ROOT / "tests"
    }
    missing = {name for name in folders - OTHER_TESTS if not (ROOT / "electra_fast" / name / "__init__.py").exists()}
    assert missing == set()
    at_the_root = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    others = {"architecture", "disk_links", "examples", "imports", "json_files", "packaging", "readme"}
    assert at_the_root - others <= set(floors())
