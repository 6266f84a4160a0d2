"""Versions of what is installed."""

from __future__ import annotations

from importlib import metadata


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
