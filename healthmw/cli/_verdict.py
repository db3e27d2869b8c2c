"""What several observations come to: an exit status, and JSON."""

from __future__ import annotations

import contextlib

from healthmw.cli._exit import COULD_NOT_TELL, NOT_WELL, WELL, CouldNotTell
from healthmw.cli._output import emit
from healthmw.cli._text import without_credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TextIO

    from healthmw.cli._target import Observation, Target


def exit_status(seen: Iterable[Observation]) -> int:
    """Return 0 when all are well; else 1 when one is known not to be; else 2."""
    bad = [one for one in seen if not one.well]
    if not bad:
        return WELL
    return NOT_WELL if any(one.reached for one in bad) else COULD_NOT_TELL


def as_json(seen: Iterable[tuple[Target, Observation]], code: int) -> dict[str, Any]:
    """Return what was seen for `json.dumps`; the documentation lists the keys."""
    return {
        "exit_status": code,
        "targets": [
            {
                "target": target.name,
                "verdict": one.word.lower(),
                "reason": one.text,
                "seconds": round(one.seconds, 3),
                "answer": one.as_json(),
                **({} if one.report is None else {"report": one.report}),
            }
            for target, one in seen
        ],
    }


@contextlib.contextmanager
def unknown_as_json(stream: TextIO | None, *, wanted: bool) -> Iterator[None]:
    """Where the block could not tell, say so on `stream` as JSON, too, if that is `wanted`."""
    try:
        yield
    except CouldNotTell as exc:
        if wanted:
            import json

            reason = without_credentials(str(exc))
            found = {"verdict": "unknown", "exit_status": COULD_NOT_TELL, "reason": reason}
            emit(json.dumps(found), stream)
        raise
