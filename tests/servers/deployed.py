"""The options that the apps of the deploy tests give to the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

OPTIONS = ("startup_timeout", "drain_delay")


def options(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return those that the environment sets: `STARTUP_TIMEOUT=30`."""
    return {name: float(environ[name.upper()]) for name in OPTIONS if name.upper() in environ}
