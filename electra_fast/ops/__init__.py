"""The ops that models compute, and the choice of the code that serves them: see `registry`."""

from .registry import Impl, Ops, choose, explain, obstacle, resolve, select

__all__ = ["Impl", "Ops", "choose", "explain", "obstacle", "resolve", "select"]
