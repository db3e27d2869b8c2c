"""The endpoint without I/O: a request in, a response out. The transports and views share it."""

from __future__ import annotations

import logging
import math
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from healthmw._answers import answer
from healthmw._facts import view
from healthmw._gate import Gate, Standing
from healthmw._health import Health
from healthmw._model import Reason
from healthmw._negotiate import Format, Wishes, wishes_of
from healthmw._options import WrongTypeError, text
from healthmw._reports import Asked
from healthmw._request import as_text
from healthmw._response import Response, plain
from healthmw._scrub import outlived, scrub_exception
from healthmw._uwsgi import require_threads
from healthmw._view import Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from healthmw._model import Report
    from healthmw._reports import Held
    from healthmw._request import Request, Words
    from healthmw.access import Authorizer, Caller

logger = logging.getLogger("healthmw")

_METHODS = ("GET", "HEAD")
_GUESSES = {Standing.WRONG, Standing.THROTTLED}
_THROTTLED_FOR = "6"

# What shows ages and counts is made anew after so many seconds, whether or not a check has run.
_LASTS = 1.0

_REMEMBERED = 256
_REMEMBERED_LENGTH = 512

# RFC 3986's path, but for '%': what stands as it is in an URL, and the same in ASGI and WSGI.
_PLAIN_PATH = re.compile(r"(?:/[\w.~!$&'()*+,;=:@-]+)+", re.ASCII)


class _Plan(NamedTuple):
    """What is to be run and shown."""

    name: str
    wishes: Wishes
    level: Level
    only: frozenset[str] | None


class _Place:
    """Where one answer is kept. What it has is replaced in one piece: other threads may look."""

    __slots__ = ("plan", "prepared", "ready")

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.prepared: tuple[Report, Response, float] | None = None
        """A report, the answer that was made of it, and until when that may be sent for it."""
        self.ready: tuple[str, Held, float, Response] | None = None
        """A group, what is held of it, and an answer that may be sent meanwhile: until then."""


class Endpoint:
    """Answers requests at one path and below it; with `sync`, by `answer_sync` alone."""

    def __init__(
        self,
        health: Health,
        path: str,
        *,
        show: str = "names",
        authorize: Authorizer | Iterable[Authorizer] | None = None,
        sync: bool = False,
    ) -> None:
        if not isinstance(health, Health):
            raise WrongTypeError(f"health must be a Health, not {type(health).__name__}")
        self.health = health
        self._reports = health._reports  # noqa: SLF001 - the same house, and the shortest way
        self._clock = health.clock
        self.path = _checked(path)
        self.gate = Gate(show=show, authorize=authorize, clock=health.clock)
        self._below = self.path + "/"
        if sync:
            require_threads()
        if sync and self.gate.is_async:
            raise WrongTypeError("authorize must not be async: there is no event loop to wait on")
        self._lamed = False  # whether it is known that background checks can't be started
        self._misnamed = False  # whether it is known that a group names nothing
        # There is one place for each answer; and it is found by what was asked, word by word, for
        # many words ask for the same.
        self._places: dict[tuple[str, str, Format, Level], _Place] = {}
        self._asked: dict[Level, dict[Words, _Place]] = {level: {} for level in Level}
        self._asked_by_all = self._asked[self.gate.level] if self.gate.open else {}

    def rest_of(self, path: str, root_path: str = "") -> str | None:
        """Return what follows the endpoint's own path in `path`, or None for a path not its own."""
        if root_path:
            path = _below(path, root_path)
        if path == self.path:
            return ""
        return path[len(self.path) :] if path.startswith(self._below) else None

    def mounted_rest_of(self, path: str, root_path: str = "") -> str:
        """Return the same for an endpoint that has the whole of `path` to itself."""
        rest = self.rest_of(path, root_path)
        return _below(path, root_path) if rest is None else rest

    def prepared(self, words: Words, if_none_match: bytes | str) -> Response | None:
        """Return an answer that is ready to be sent, if there is one and nobody has to be asked."""
        place = self._asked_by_all.get(words)
        return None if place is None else self._kept(place, if_none_match)

    def _kept(self, place: _Place, if_none_match: bytes | str) -> Response | None:
        """Return the answer that is kept in `place`, if it holds for what is known now."""
        if place.ready is None:
            return None
        group, held, until, response = place.ready
        if self._reports.held.get(group) is not held or self._clock() >= until:
            return None
        return response.conditional(as_text(if_none_match)) if if_none_match else response

    async def answer(
        self, request: Request, caller: Callable[[], Caller], *, aside: bool = False
    ) -> Response:
        """Return the answer to `caller`, who is only asked for where callers are judged.

        For what `prepared()` has no answer to. Probes run on this event loop, unless `aside`: then
        where the app's own clients live.
        """
        health = self.health
        deadline = health.deadline
        place = self._asked_by_all.get(request[:4])
        if place is None:
            if self.gate.is_async:
                began = time.monotonic()
                standing = await self.gate.standing_async(caller(), deadline / 2)
                # One that blocks the loop may take longer; the checks have the other half.
                deadline -= min(time.monotonic() - began, deadline / 2)
            else:
                standing = self._standing(caller)
            sought = self._sought(request, standing)
            if isinstance(sought, Response):
                return sought
            place = sought
        plan = place.plan
        shared = plan.only is None and not plan.wishes.fresh
        joined = self._reports.join(plan.name, deadline) if shared else None
        if joined is not None:
            report = await joined
        else:
            asked = Asked(plan.name, deadline, fresh=plan.wishes.fresh, only=plan.only)
            if aside:
                report = await health._run_aside(asked)  # noqa: SLF001 - the same house
            else:
                self._start()
                report = await health._run(asked)  # noqa: SLF001 - the same house
        return self._response(request, place, report)

    def answer_sync(self, request: Request, caller: Callable[[], Caller]) -> Response:
        """Do the same in a thread that has no event loop."""
        place = self._sought(request, self._standing(caller))
        if isinstance(place, Response):
            return place
        plan = place.plan
        self._start()
        report = self.health.run_sync(plan.name, fresh=plan.wishes.fresh, only=plan.only)
        return self._response(request, place, report)

    def _standing(self, caller: Callable[[], Caller]) -> Standing:
        return Standing.ANONYMOUS if self.gate.open else self.gate.standing(caller())

    def _start(self) -> None:
        """Start what runs in the background; where that can't be, answer all the same."""
        try:
            self.health.start()
        except (OSError, RuntimeError, MemoryError) as exc:  # no file, thread or memory to be had
            if not self._lamed:
                with outlived():
                    logger.warning("background checks can't be started: %s", scrub_exception(exc))
            self._lamed = True
        else:
            self._lamed = False

    def _made_of(self, report: Report, place: _Place) -> Response | None:
        """Return the answer in `place`, if that was made of `report` and is not too old."""
        if place.prepared is None:
            return None
        made_of, response, until = place.prepared
        return None if made_of is not report or self._clock() >= until else response

    def _sought(self, request: Request, standing: Standing) -> _Place | Response:
        """Return what is to be run and shown, or an answer that needs nothing to be run."""
        if standing not in _GUESSES:
            place = self._asked[self._level(standing)].get(request[:4])
            if place is not None:  # the same words ask for the same
                return self._kept(place, request.if_none_match) or place
        plan = self._judged(request, standing)
        if isinstance(plan, Response):
            return plan.without_body() if request.method == "HEAD" else plan
        if not plan.wishes.plain:
            return _Place(plan)  # no two are alike
        place = self._place(request, plan)
        return self._kept(place, request.if_none_match) or place

    def _judged(self, request: Request, standing: Standing) -> _Plan | Response:
        if request.method not in _METHODS:
            return plain(405, "Method not allowed\n", ("Allow", ", ".join(_METHODS)))
        name = request.rest[1:].removesuffix("/") or "ready"
        wishes = wishes_of(as_text(request.query), as_text(request.accept))
        is_group = name in self.health.groups
        level = self._level(standing)
        if standing in _GUESSES:
            # A balancer whose token is out of date must not take the app for dead.
            bare = name == "live" or (wishes.format is Format.TEXT and not request.query)
            if not (is_group and bare):
                return self._refused(standing)
            level = Level.SUMMARY
        if not is_group and (level is Level.SUMMARY or name not in self.health):
            return plain(404, "No check or group has this name\n")
        if wishes.plain:
            return _Plan(name, wishes, level, None)
        return self._granted(name, wishes, standing)

    def _granted(self, name: str, wishes: Wishes, standing: Standing) -> _Plan | Response:
        """Return what is to be run for wishes that not all may have."""
        if wishes.wrong:
            return plain(400, f"{wishes.wrong}\n")
        if standing is not Standing.AUTHORISED:
            return self._refused(standing)
        if not wishes.only | wishes.exclude:
            return _Plan(name, wishes, Level.FULL, None)
        members = self.health.members(name)
        only = frozenset(wishes.only or members) - wishes.exclude
        if not only or not (wishes.only | wishes.exclude).issubset(members):
            return plain(404, "only= and exclude= must name checks of this group, and leave some\n")
        return _Plan(name, wishes, Level.FULL, only)

    def _response(self, request: Request, place: _Place, report: Report) -> Response:
        # Whoever has waited for the same runs has the same report.
        response = self._made_of(report, place) or self._make(request, place, report)
        self._make_ready(place, report)
        wanted = request.if_none_match
        return response.conditional(as_text(wanted)) if wanted else response

    def _make(self, request: Request, place: _Place, report: Report) -> Response:
        plan = place.plan
        form = plan.wishes.format
        if report.reason is Reason.NO_CHECKS:
            self._tell_of_groups()
        response = self._said_before(place, report)
        if response is None:
            status, headers, body = answer(view(self.health, report, plan.level), form)
            response = Response(status, headers, body)
            if request.method == "HEAD":
                response = response.without_body()
        until = math.inf if form is Format.TEXT else self._clock() + _LASTS
        place.prepared = report, response, until
        return response

    def _tell_of_groups(self) -> None:
        """Log, once, which group names nothing: not everywhere is there a start-up to refuse."""
        try:
            self.health.validate()
        except ValueError as exc:
            if not self._misnamed:
                with outlived():
                    logger.error("%s", exc)  # noqa: TRY400 - nothing has broken down
            self._misnamed = True

    def _make_ready(self, place: _Place, report: Report) -> None:
        """Let what `place` holds be sent to whoever asks, for as long as `report` is held."""
        group, prepared = place.plan.name, place.prepared
        held = self._reports.held.get(group)
        if prepared is not None and held is not None and prepared[0] is report is held.report:
            _, response, until = prepared
            place.ready = group, held, min(held.until, until), response

    @staticmethod
    def _said_before(place: _Place, report: Report) -> Response | None:
        """Return the last answer if `report` makes the same: of a pass, text tells nothing else."""
        plan = place.plan
        tells_no_more = plan.wishes.format is Format.TEXT and plan.level is not Level.FULL
        if place.prepared is None or not report.ok or not tells_no_more:
            return None
        before, response, _ = place.prepared
        alike = (before.status, before.code) == (report.status, report.code)
        return response if alike else None

    def _place(self, request: Request, plan: _Plan) -> _Place:
        """Return the place of an answer, to be found by whoever asks in the same words."""
        method, rest, query, accept, _ = request
        asked = self._asked[plan.level]
        place = asked.get((method, rest, query, accept))
        if place is not None:
            return place
        place = self._places.setdefault(
            (method, plan.name, plan.wishes.format, plan.level), _Place(plan)
        )
        if len(rest) + len(query) + len(accept) <= _REMEMBERED_LENGTH:
            if len(asked) >= _REMEMBERED:
                asked.clear()  # somebody makes them up; it costs a moment to read them again
            asked[method, rest, query, accept] = place
        return place

    def _level(self, standing: Standing) -> Level:
        return Level.FULL if standing is Standing.AUTHORISED else self.gate.level

    def _refused(self, standing: Standing) -> Response:
        if standing is Standing.THROTTLED:
            return plain(429, "Too many requests\n", ("Retry-After", _THROTTLED_FOR))
        if self.gate.challenge:
            return plain(401, "Unauthorized\n", ("WWW-Authenticate", self.gate.challenge))
        return plain(403, "Forbidden\n")


def _below(path: str, root_path: str) -> str:
    """Return `path` relative to where the app is mounted."""
    if not root_path:
        return path
    # Servers of before ASGI's clarification leave `root_path` out of `path`. A slash at its end may
    # be the beginning of what follows, or one too many.
    for root in (root_path, root_path.rstrip("/")):
        if path == root or path.startswith(f"{root}/"):
            return path[len(root) :]
    return path


def _checked(path: object) -> str:
    """Return `path` without a trailing slash. Raises `ValueError` for what is no absolute path."""
    path = text("path", path)
    if not path.startswith("/"):
        raise ValueError(f"path={path!r} must begin with '/': write path={'/' + path!r}")
    stripped = path.rstrip("/")
    if not stripped:
        raise ValueError(f"path={path!r} would take the whole app's place; name one of its own")
    if not _PLAIN_PATH.fullmatch(stripped):
        raise ValueError(
            f"path={path!r} must be a plain path: ASCII, without '?', '#', '%', '//' or spaces"
        )
    return stripped
