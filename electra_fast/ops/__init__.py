"""What is computed, and by which code: see `registry`."""

from .registry import Impl, Ops, choose, explain, obstacle, resolve, select

__all__ = ["Impl", "Ops", "choose", "explain", "obstacle", "resolve", "select"]
