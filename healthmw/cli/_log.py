"""The tail of what a server writes: all of it is read, and little is kept."""

from __future__ import annotations

import os
import re
import threading
from typing import NamedTuple

_CHUNK = 64 * 1024
_KEPT = 256 * 1024


class Excerpt(NamedTuple):
    """What is worth showing of a log."""

    lines: list[bytes]
    total: int
    """How many lines were written in all."""
    own: int
    """How many of those that were kept speak of healthmw's own requests, and aren't shown."""


class LogTail:
    """The write end of a pipe, and a thread that drains it, so the writer never waits for us.

    At most 512 KiB are kept, however much is written. `self._lock` guards what is kept: the
    thread writes it, the owner reads it.
    """

    def __init__(self) -> None:
        self._source, self.sink = os.pipe()
        self._lock = threading.Lock()
        self._kept = bytearray()
        self._lines = 0
        self._dropped = 0
        self._mark: int | None = None
        self._thread = threading.Thread(target=self._drain, name="healthmw-log", daemon=True)

    def start(self) -> None:
        """Close our copy of the write end, now that the server has its own, and begin to read."""
        os.close(self.sink)
        self._thread.start()

    def discard(self) -> None:
        """Close both ends: there is no server."""
        os.close(self.sink)
        os.close(self._source)

    def mark(self) -> None:
        """Remember that all so far was written before the server was asked to stop."""
        with self._lock:
            self._mark = self._dropped + len(self._kept)

    def excerpt(self, count: int, *, path: str, wait: float = 1.0) -> Excerpt:
        """Return at most `count` lines: the last before the mark, and then what comes after it.

        A server has much to say when it is stopped, and little of it tells why it wasn't well. Nor
        do the lines of its access log for `path`, which our own requests brought about.

        Waits up to `wait` seconds for the end of the log, which comes when all writers have ended.
        """
        self._thread.join(wait)
        with self._lock:
            text = bytes(self._kept)
            at = len(text) if self._mark is None else max(self._mark - self._dropped, 0)
            total = self._lines + (not text.endswith(b"\n") and bool(text))
        before, after = text[:at].splitlines(), text[at:].splitlines()
        # "GET /path HTTP/1.1" with most servers, "GET /path 1.1" with hypercorn, "GET /path" with
        # daphne.
        asked = rb'"GET ' + re.escape(path.encode()) + rb'(?:\?[^ "]*)?'
        own = re.compile(asked + rb'(?: (?:HTTP/)?1\.[01])?"')
        theirs = [line for line in before if not own.search(line)]
        closing = [line for line in after if not own.search(line)]
        shown = theirs[-count:] + closing[: max(count - len(theirs), 0)]
        return Excerpt(
            lines=shown,
            total=total,
            own=len(before) + len(after) - len(theirs) - len(closing),
        )

    def _drain(self) -> None:
        while chunk := os.read(self._source, _CHUNK):
            with self._lock:
                self._kept += chunk
                self._lines += chunk.count(b"\n")
                if len(self._kept) > 2 * _KEPT:
                    self._dropped += len(self._kept) - _KEPT
                    del self._kept[:-_KEPT]
        os.close(self._source)
