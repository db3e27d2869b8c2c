"""Where an engine's SQLite database lives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from sqlalchemy import Engine


def sqlite_file(engine: Engine) -> Path | None:
    """Return the path of an SQLite database; None for one in memory or of another kind."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or ":memory:" in name:
        return None
    if not name.startswith("file:"):
        return Path(name).absolute()
    if engine.url.query.get("mode") == "memory":
        return None
    return Path(unquote(urlsplit(name).path)).absolute()


def is_in_memory(engine: Engine) -> bool:
    """Tell whether the data is only to be had through the app's own pool."""
    return engine.dialect.name == "sqlite" and sqlite_file(engine) is None


def check_file(path: Path) -> None:
    """Refuse a file that connecting would create, or that SQLite takes for a new database."""
    if not path.exists():
        raise ProbeFailedError("the database file does not exist")
    if path.stat().st_size == 0:
        raise ProbeFailedError("the database file is empty")
