"""A group: a named set of checks, with a path and status codes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from healthmw._model import Status
from healthmw._options import WrongTypeError

if TYPE_CHECKING:
    from healthmw._check import Check

DEFAULT_CODES: Mapping[Status, int] = {
    Status.OKAY: 200,
    Status.DEGRADED: 200,
    Status.UNKNOWN: 503,
    Status.FAILED: 503,
}

_WITHOUT_BODY = (204, 205)  # RFC 9110, sections 15.3.5 and 15.3.6

RELEASE_ONLY = frozenset({"release"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A named set of checks and what each verdict on them answers."""

    name: str
    codes: Mapping[Status, int]
    checks: frozenset[str] = frozenset()
    """Members named with the group; a check can also name the group itself (`groups=`)."""

    def has(self, check: Check) -> bool:
        """Tell whether `check` is a member."""
        match self.name:
            case "release":
                return True
            case "ready" | "startup":
                return check.groups != RELEASE_ONLY
            case _:
                return self.name in check.groups or check.name in self.checks


def merged_codes(
    base: Mapping[Status, int], changes: Mapping[Status, int] | Mapping[str, int] | None
) -> Mapping[Status, int]:
    """Return `base` with a user's partial map laid over it.

    Raises `ValueError` for what is no status or no code, for a pass where nothing is known or
    something failed (body and code would disagree), and for a code that can't have a body.
    """
    if not isinstance(changes, Mapping | None):
        raise WrongTypeError(f"codes must map statuses to HTTP status codes, not {changes!r}")
    codes = dict(base)
    for key, code in (changes or {}).items():
        try:
            status = Status(key)
        except ValueError:
            known = ", ".join(repr(str(s)) for s in Status)
            raise ValueError(f"codes: {key!r} is no status; there are {known}") from None
        if isinstance(code, bool) or not isinstance(code, int):
            raise WrongTypeError(f"codes[{status}] must be an HTTP status code, not {code!r}")
        if code in _WITHOUT_BODY:
            raise ValueError(f"codes[{status}]={code}: that answer has no body, and ours says OKAY")
        passes, fails = 200 <= code < 300, 400 <= code < 600
        if status is Status.OKAY and not passes:
            raise ValueError(f"codes[{status}]={code}: a pass needs a code from 200 to 299")
        if status > Status.DEGRADED and not fails:
            raise ValueError(f"codes[{status}]={code}: a failure needs a code from 400 to 599")
        if not passes and not fails:
            raise ValueError(f"codes[{status}]={code} must be from 200 to 299 or from 400 to 599")
        codes[status] = code
    return codes
