"""The C++ extensions; everything else is in pyproject.toml. torch is not needed to build."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

ParallelCompile().install()


def files(*patterns: str) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path("csrc").glob(pattern))


def extension(name: str) -> Pybind11Extension:
    """The extension electra_fast._name, built from all files in csrc/name."""
    return Pybind11Extension(
        f"electra_fast._{name}",
        files(f"{name}/*.cpp"),
        depends=files("*.h", f"{name}/*.h", f"{name}/*.inc"),
        include_dirs=["csrc"],
        cxx_std=20,
    )


setup(ext_modules=[extension("tokenizer"), extension("cpu")])
