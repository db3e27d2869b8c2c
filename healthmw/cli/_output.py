"""What the commands show while they wait: one living line on a terminal, sparse lines elsewhere.

Progress goes to standard error and the verdict to standard output, so that a script can keep the
verdict alone. Whoever closes the stream early (`| head`) changes nothing in what a command does;
`watch` alone, which has no other end, ends then.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys
import time

from healthmw.cli._text import clean, seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_RED, _GREEN, _YELLOW = "31", "32", "33"
_GOOD = {"OKAY", "PASSED"}
_ODD = {"DEGRADED", "UNKNOWN", "INTERRUPTED"}
_AT_LEAST = 1.0
_AT_ONCE = 2  # what is asked, and the first answer
_HEARTBEAT = 15.0


def emit(text: str, stream: TextIO | None) -> bool:
    """Write `text` and a newline, whatever encoding the stream has and whether or not it's open.

    Python has None for a standard stream that was closed before it started. Returns False when it
    was closed just now.
    """
    return _write(stream, f"{text}\n")


def nobody_reads(stream: TextIO | None) -> bool:
    """Tell whether `stream` is a pipe whose reader has gone: without writing into it."""
    try:
        descriptor = stream.fileno() if stream is not None else -1
        is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        poll = select.poll()
        poll.register(descriptor, 0)  # an error is told in any case
        return is_pipe and bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows has no poll(); what is closed no number
        return False


def on_terminal(stream: TextIO | None) -> bool:
    """Tell whether `stream` is a terminal that can move its cursor."""
    if stream is None or not stream.isatty():
        return False
    return os.environ.get("TERM", "") not in {"", "dumb"}


class Paint:
    """Colours for one stream: on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self, stream: TextIO | None) -> None:
        self._on = on_terminal(stream) and not os.environ.get("NO_COLOR")

    def verdict(self, word: str, width: int = 0) -> str:
        """Bold, and green, yellow or red; with spaces after it up to `width`."""
        colour = _GREEN if word in _GOOD else _YELLOW if word in _ODD else _RED
        return self._in(f"1;{colour}", word) + " " * (width - len(word))

    def dim(self, text: str) -> str:
        """Fainter than the rest."""
        return self._in("2", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text


class Progress:
    """Says on standard error what is going on, and how long it has been.

    With `live_only` only where that is a living line.
    """

    def __init__(self, *, live_only: bool = False) -> None:
        self._stream = sys.stderr
        self._live_only = live_only
        self._live = on_terminal(self._stream)
        self._start = time.monotonic()
        self._now = ""
        self._said = ""
        self._lines = 0
        self._said_at = -_HEARTBEAT

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def line(self, text: str) -> None:
        """Say something that stays."""
        self.clear()
        emit(text, self._stream)

    def show(self, text: str) -> None:
        """Say what is so at the moment.

        On a terminal this overwrites the line; elsewhere it is said when it is new (after the first
        two, at most once a second) and every 15 seconds while it is not.
        """
        self._now = text
        self.tick()

    def tick(self) -> None:
        """Let time go on: call this often."""
        if not self._now or (self._live_only and not self._live):
            return
        now = self.elapsed
        text = f"{seconds(now):>8}  {self._now}"
        if self._live:
            _write(self._stream, f"\r\x1b[2K{clean(text, max(self._width() - 1, 20))}")
            return
        since = now - self._said_at
        new = self._now != self._said and (since >= _AT_LEAST or self._lines < _AT_ONCE)
        if new or since >= _HEARTBEAT:
            self._said, self._said_at = self._now, now
            self._lines += 1
            emit(text, self._stream)

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:  # the terminal was closed
            return 80

    def clear(self) -> None:
        """Wipe the living line away."""
        if self._live:
            _write(self._stream, "\r\x1b[2K")


def _write(stream: TextIO | None, text: str) -> bool:
    if stream is None:
        return True
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except OSError:
        # Nobody listens. What is still in the buffer would be flushed at exit, fail again there
        # and turn the exit status into 120.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return False
    return True
