"""Which release this is."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def package_version() -> str:
    """The installed distribution's version; "0+source" when run from a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastface")
    except PackageNotFoundError:
        return "0+source"
