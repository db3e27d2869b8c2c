"""What a probe has come back with, as listeners, logs and the app's own code get to see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._frozen import FrozenDict
from healthmw._model import NOTHING_MEASURED, Reason
from healthmw._scrub import scrub, scrub_exception, scrub_traceback, scrub_value
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from healthmw._model import Measurement

_TEXT_KEPT = 200
_WHOLE = 2**63


def kept(measured: Mapping[str, Measurement]) -> Mapping[str, Measurement]:
    """Return what was measured without secrets, and each of it as what any reader can show."""
    if not measured:
        return NOTHING_MEASURED
    return FrozenDict({scrub(name): _kept_value(name, value) for name, value in measured.items()})


def _kept_value(name: str, value: Measurement) -> Measurement:
    if isinstance(value, str):
        return scrub_value(name, value)[:_TEXT_KEPT]
    if isinstance(value, bool):
        return value
    if isinstance(value, int):  # of more digits than Python writes there is not even a repr
        plain = int.__pos__(value)  # what a class of the user's own writes is its own affair
        return plain if -_WHOLE <= plain < _WHOLE else "out of range"
    return float.__pos__(value)


def told(error: BaseException) -> tuple[Reason, str, str]:
    """Return what to say of an error that a probe ended with, and its traceback for the log."""
    detail = scrub_exception(error)
    if isinstance(error, ProbeFailedError):
        # It says what is wrong: its name and its place add nothing.
        late = isinstance(error, ProbeTimeoutError)
        reason = Reason.TIMEOUT if late else Reason.FAILED
        return reason, detail.removeprefix(f"{type(error).__name__}: "), ""
    failure = scrub_traceback(error.with_traceback(_theirs(error.__traceback__)))
    return Reason.FAILED, detail, failure


def _theirs(traceback: TracebackType | None) -> TracebackType | None:
    """Return `traceback` from where the probe begins: how it was called is of no interest."""
    ours = f"{__package__}._"
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__", "").startswith(
        ours
    ):
        traceback = traceback.tb_next
    return traceback
