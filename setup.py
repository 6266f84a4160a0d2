"""The C++ extensions, which ninja compiles; everything else is in pyproject.toml. torch is not needed to build."""

import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# One of each folder in csrc with bindings; without csrc the package is Python alone. A file that is for some processors
# is empty for others, by its own #if.
EXTENSIONS = [
    Extension(f"electra_fast._{file.parent.name}", sorted(map(str, file.parent.glob("*.cpp"))), include_dirs=["csrc"])
    for file in sorted(Path("csrc").glob("*/bindings.cpp"))
]
FLAGS = ["-std=c++20", "-fvisibility=hidden", *(["-g0"] if "CFLAGS" not in os.environ else [])]
CLANG_CL_FLAGS = ["/std:c++20", "/EHsc", "/bigobj"]

RULES = """\
builddir = {directory}
rule compile
  command = $call -MMD -MF $out.d
  depfile = $out.d
  deps = gcc
rule compile_by_clang_cl
  command = $call /showIncludes
  deps = msvc
rule link
  command = $call
"""


class NinjaBuild(build_ext):
    """Lets setuptools say how it compiles and links, and ninja do it: what has changed alone, on all cores.

    Objects stay in build/, in a directory for each Python and platform, also where pip builds in an environment that it
    makes anew each time. Where there is no ninja, everything is compiled, on all cores too.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        base = Path(self.get_finalized_command("build").build_base)
        self.build_temp = str(base / Path(self.get_ext_filename("objects")).stem)
        self.force = True  # ninja decides what is up to date

    def build_extensions(self) -> None:
        by_clang_cl = self.compiler.compiler_type == "msvc"  # Microsoft's own does not know the vectors of the kernels
        directory = Path(self.build_temp)
        for extension in self.extensions:
            extension.include_dirs.append(kept_headers(directory))
            extension.extra_compile_args = CLANG_CL_FLAGS if by_clang_cl else FLAGS
        calls: list[list[str]] = []
        self.compiler.call = self.compiler.spawn = lambda call, **_: calls.append(call)  # of newer and older setuptools
        super().build_extensions()
        calls.sort(key=lambda call: not re.search(r"(bindings|kernels)\w*\.cpp", " ".join(call)))  # these take longest
        if by_clang_cl:
            calls = [["clang-cl", *call[1:]] if is_compilation(call) else call for call in calls]
        scripts = sysconfig.get_path("scripts")  # not on the path where an environment is not activated
        ninja = shutil.which("ninja", path=scripts) or shutil.which("ninja")
        try:
            run_by_ninja(ninja, calls, directory) if ninja else run_all(calls)
        except subprocess.CalledProcessError as error:
            raise CompileError(str(error)) from None


def kept_headers(directory: Path) -> str:
    """A copy of pybind11's headers: pip has them in another place each time, and to ninja all calls would be new."""
    import pybind11  # not above: a source distribution, and a package without csrc, are made without it

    headers = directory / f"pybind11-{pybind11.__version__}"
    if not headers.exists():
        incomplete = headers.with_suffix(".part")
        shutil.copytree(pybind11.get_include(), incomplete, dirs_exist_ok=True)
        incomplete.rename(headers)
    return str(headers)


def is_compilation(call: list[str]) -> bool:
    return any(word.endswith(".cpp") for word in call)


def run_by_ninja(ninja: str, calls: list[list[str]], directory: Path) -> None:
    def path(name: str) -> str:
        return re.sub(r"([$: ])", r"$\1", name)

    text = RULES.format(directory=path(str(directory)))
    for call in calls:
        rule = "link" if not is_compilation(call) else "compile_by_clang_cl" if call[0] == "clang-cl" else "compile"
        output = re.search(r"(?:^-o\n|^/Fo|^/OUT:)(.+)", "\n".join(call), re.MULTILINE)[1]
        inputs = [word.removeprefix("/Tp") for word in call if word.endswith((".cpp", ".o", ".obj"))]
        sources = " ".join(path(name) for name in inputs if name.removeprefix("/Fo") != output)
        line = (subprocess.list2cmdline if os.name == "nt" else shlex.join)(call).replace("$", "$$")
        text += f"build {path(output)}: {rule} {sources}\n  call = {line}\n"
    (directory / "build.ninja").write_text(text, encoding="utf-8")
    subprocess.run([ninja, "-f", directory / "build.ninja"], check=True)


def run_all(calls: list[list[str]]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(subprocess.check_call, filter(is_compilation, calls)))
    for call in calls:
        if not is_compilation(call):
            subprocess.check_call(call)


setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": NinjaBuild})
