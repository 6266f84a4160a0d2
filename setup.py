"""The C++ extension; everything else is in pyproject.toml. torch is not needed to build."""

from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, naive_recompile
from setuptools import setup

ParallelCompile(needs_recompile=naive_recompile).install()

setup(
    ext_modules=[
        Pybind11Extension(
            "electra_fast._tokenizer",
            sorted(str(path) for path in Path("csrc/tokenizer").glob("*.cpp")),
            include_dirs=["csrc"],
            cxx_std=20,
        )
    ]
)
