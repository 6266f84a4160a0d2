"""What is computed, and by which code: see `registry`."""

from .registry import Impl, choose, explain, obstacle, resolve, select

__all__ = ["Impl", "choose", "explain", "obstacle", "resolve", "select"]
