"""The app's SQLAlchemy engine, as the probes that take one see it and show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._addresses import show_address
from healthmw.exceptions import MissingExtraError

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine


def sync_engine(
    who: str, engine: Engine | AsyncEngine, *, takes: str = "an Engine or AsyncEngine"
) -> tuple[Engine, bool]:
    """Return the sync side of `engine`, and whether it has an async one.

    Raises `TypeError` for what is no engine, and `MissingExtraError`, for `who`.
    """
    try:
        from sqlalchemy import Engine

        if isinstance(engine, Engine):
            return engine, False
        from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet, which not everyone has
    except ImportError as exc:
        raise MissingExtraError(who, extra="sqlalchemy") from exc
    if isinstance(engine, AsyncEngine):
        return engine.sync_engine, True
    raise TypeError(f"engine must be {takes}, not {type(engine).__name__}")


def show_engine(engine: Engine) -> str:
    """Return dialect and driver, address and database of `engine`, without user and password."""
    url = engine.url
    host = url.host or ""
    if host and url.port:
        host = show_address(host, url.port)
    return f"{url.drivername} {host}{'/' if host else ''}{url.database or ''}".rstrip()
