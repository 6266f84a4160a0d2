"""The version of this package, and those of installed distributions."""

from __future__ import annotations

__version__ = "0.1.0"


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    from importlib import metadata  # importing it takes longer than importing electra_fast

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
