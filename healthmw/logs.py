"""Access logs without the lines of those who poll the health endpoint."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping

__all__ = ("IgnoreHealthChecks",)

# hypercorn leaves `HTTP/` out; Werkzeug writes all but a 200 in colour.
_REQUEST = re.compile(
    r"(?:^|[^A-Za-z]|\x1b\[\d{1,3}m)(?:GET|HEAD) (/[^ ?#]*+)\S*+ (?:HTTP/)?[123]\b", re.ASCII
)


class IgnoreHealthChecks(logging.Filter):
    """Drop the access-log records of requests at `path` and below it.

    For the loggers `uvicorn.access`, `gunicorn.access`, `hypercorn.access`, `aiohttp.access`,
    `werkzeug`, `django.server` and any other that logs the request as `GET /path HTTP/1.1`. `path`
    is one or several, as they stand in the log: behind a proxy that may be `/api/health_check`.

    Only `GET` and `HEAD` are dropped, whatever the answer was: that a check fails, the logger
    `healthmw` says, once. Raises `ValueError` for a path that does not begin with a slash.
    """

    def __init__(self, path: str | Iterable[str] = "/health_check") -> None:
        super().__init__()
        paths = (path,) if isinstance(path, str) else tuple(path)
        for one in paths or ("",):
            if not one.startswith("/") or not one.strip("/"):
                raise ValueError(f"path={one!r} must begin with '/' and name more than that")
        self._paths = frozenset(one.rstrip("/") for one in paths)
        self._below = tuple(f"{one}/" for one in self._paths)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for what is to be dropped."""
        path = _requested(record)
        return path not in self._paths and not path.startswith(self._below)


def _requested(record: logging.LogRecord) -> str:
    """Return the path that a record tells of, or ""."""
    text = ""
    # gunicorn and hypercorn hand over everything by name, whatever their format shows of it.
    if isinstance(record.args, Mapping):
        text = str(record.args.get("r") or "")
    try:
        found = _REQUEST.search(text or record.getMessage())
    except Exception:  # noqa: BLE001 - what does not fit its format: who writes it out says so
        return ""
    return found[1] if found else ""
