"""A log of the user's that breaks down."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def broken_log() -> Iterator[None]:
    """Have whoever logs anything in healthmw's name get a `ZeroDivisionError`."""

    def broken(_record: logging.LogRecord) -> bool:
        raise ZeroDivisionError("a filter of the user's own")

    logger = logging.getLogger("healthmw")
    logger.addFilter(broken)
    try:
        yield
    finally:
        logger.removeFilter(broken)
