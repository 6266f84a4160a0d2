"""The C++ extension; everything else is in pyproject.toml. torch is not needed to build."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

ParallelCompile().install()


def files(pattern: str) -> list[str]:
    return sorted(str(path) for path in Path("csrc/tokenizer").glob(pattern))


setup(
    ext_modules=[
        Pybind11Extension(
            "electra_fast._tokenizer",
            files("*.cpp"),
            depends=files("*.h") + files("*.inc"),
            include_dirs=["csrc"],
            cxx_std=20,
        )
    ]
)
