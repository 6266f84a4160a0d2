"""The version of the package, and those of what is installed."""

from __future__ import annotations

__version__ = "0.1.0"


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    from importlib import metadata  # takes longer to import than all that the package imports at once

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
