"""Keeps healthmw's own HTTP requests out of the logs of the libraries that make them.

The client's has whole URLs in it; and what is sent again is said by who sends it, once.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = {"httpx": logging.INFO, "httpx2": logging.INFO, "stamina": logging.WARNING}
"""Up to which level each keeps silent."""

_ours: ContextVar[bool] = ContextVar("healthmw_own_request", default=False)


def _not_ours(record: logging.LogRecord) -> bool:
    return record.levelno > _LOGGERS[record.name] or not _ours.get()


@contextmanager
def unlogged() -> Iterator[None]:
    """Leave no line of httpx2 (or httpx) for each request made in here, nor one for each retry."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_not_ours)  # once: it knows what it has
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
