"""What the commands look at: a target has a name, and can be observed once, within a time limit.

Those that are run in this process, without a server, are in `_in_process.py`.
"""

from __future__ import annotations

import functools
import time
from urllib.parse import quote

from healthmw.cli import _text
from healthmw.cli._exit import CouldNotTell
from healthmw.cli._http import BODY_LIMIT, Answer, Endpoint, NoAnswer, get

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Any, Protocol

    from healthmw.cli._http import Headers

    class Target(Protocol):
        """Anything that can be observed."""

        @property
        def name(self) -> str:
            """What to call it on the screen: no credentials in it."""

        def observe(self, timeout: float) -> Observation:
            """Look once, for at most `timeout` seconds. Raises nothing but bugs."""


DEFAULT_PATH = "/health_check"
_BODY_IN_JSON = 4096
_LONGEST_RELEASE = 128  # the limit of `Health(release=)`; what is cut equals no release
SUCCESS = range(200, 300)
REDIRECT = range(300, 400)


class Observation:
    """What one look at a target showed."""

    __slots__ = (
        "answer",
        "health",
        "lines",
        "listening",
        "reached",
        "release",
        "report",
        "seconds",
        "text",
        "well",
    )

    def __init__(
        self,
        *,
        well: bool,
        text: str,
        seconds: float,
        reached: bool = True,
        listening: bool = True,
        answer: Answer | None = None,
        health: str | None = None,
        release: str | None = None,
        lines: Sequence[str] = (),
        report: dict[str, Any] | None = None,
    ) -> None:
        self.well = well
        self.reached = reached
        """False when nothing could be asked, so nothing is known."""
        self.listening = listening
        """False when there was no connection at all."""
        self.text = text
        """What was seen, in one line."""
        self.seconds = seconds
        self.answer = answer
        self.health = health or _header(answer, "Health-Status")
        """`okay`, `degraded`, ... as the answer's header or the report says; None without one."""
        self.release = release or _header(answer, "Health-Release", _LONGEST_RELEASE)
        self.lines = lines
        """One for each check, where those can be seen."""
        self.report = report
        """The same for `json.dumps`; None where they can't."""

    @property
    def word(self) -> str:
        """`OKAY`, `DEGRADED`, `FAILED`, or `UNKNOWN` where nothing was reached."""
        if not self.reached:
            return "UNKNOWN"
        if not self.well:
            return "FAILED"
        return "DEGRADED" if self.health == "degraded" else "OKAY"

    def as_json(self) -> dict[str, Any] | None:
        """Return the answer for `json.dumps`, or None where there was none."""
        if self.answer is None:
            return None
        return {
            "status": self.answer.status,
            "body": self.answer.body[:_BODY_IN_JSON].decode("utf-8", "replace"),
            "health": self.health,
            "release": self.release,
        }


class Question:
    """What to ask and what counts as well: shared by all targets of one command."""

    __slots__ = ("expect", "group", "headers", "statuses", "strict")

    accept = "text/plain, */*;q=0.1"
    body_limit = BODY_LIMIT

    def __init__(
        self,
        *,
        expect: bytes | None = b"OKAY",
        strict: bool = False,
        group: str | None = None,
        headers: Headers = (),
        statuses: range = SUCCESS,
    ) -> None:
        self.statuses = statuses
        self.expect = expect
        """The whole body, byte for byte; None: any body will do."""
        self.strict = strict
        """Whether `Health-Status: degraded` is not well."""
        self.group = group
        self.headers = headers

    def observed(self, answer: Answer, *, seconds: float) -> Observation:
        """Return what `answer` shows; it took `seconds`."""
        fault = self.fault(answer)
        return Observation(
            well=fault is None,
            text=fault or _praise(answer),
            seconds=seconds,
            answer=answer,
        )

    def fault(self, answer: Answer) -> str | None:
        """Say what is wrong with `answer`, or return None when nothing is."""
        if answer.status not in self.statuses:
            return _refusal(answer)
        if self.expect is not None and answer.body != self.expect:
            if answer.cut:
                return f"{answer.status}, but the body is longer than {self.body_limit:,} bytes"
            return (
                f"{answer.status}, but the body is {_text.quoted(answer.body)}"
                f" and not exactly {_text.quoted(self.expect)}"
            )
        if self.strict and _header(answer, "Health-Status") == "degraded":
            return f"{answer.status} {_text.first_line(answer.body)}, but degraded"
        return None


class HTTPTarget:
    """A path of an HTTP server."""

    def __init__(self, endpoint: Endpoint, path: str, question: Question) -> None:
        self._endpoint = endpoint
        self._path = grouped(path, question.group)
        self._question = question

    @property
    def path(self) -> str:
        """The path that is asked for, without the query."""
        return self._path.partition("?")[0]

    @property
    def name(self) -> str:
        """The URL without what may be secret: user, password and query."""
        if self._endpoint.unix_socket is not None:
            return f"unix:{self._endpoint.unix_socket}:{self.path}"
        scheme = "https" if self._endpoint.tls else "http"
        return f"{scheme}://{self._endpoint.authority}{self.path}"

    def observe(self, timeout: float) -> Observation:
        """Ask once; `timeout` in seconds."""
        start = time.monotonic()
        try:
            answer = get(
                self._endpoint,
                self._path,
                headers=[("Accept", self._question.accept), *self._question.headers],
                timeout=timeout,
                body_limit=self._question.body_limit,
            )
        except NoAnswer as exc:
            return Observation(
                well=False,
                reached=exc.reached,
                listening=exc.listening,
                text=str(exc),
                seconds=time.monotonic() - start,
            )
        return self._question.observed(answer, seconds=time.monotonic() - start)


def escaped(path: str) -> str:
    """Return `path` with all escaped that can't stand in a request line, and without a fragment."""
    return quote(path.partition("#")[0], safe="!$%&'()*+,/:;=?@[]~", errors="surrogateescape")


def grouped(path: str, group: str | None) -> str:
    """Return the path of `group` below `path`: `/health_check/release`."""
    if group is None:
        return path
    path, mark, query = path.partition("?")
    return f"{path.rstrip('/')}/{group}{mark}{query}"


@functools.cache
def tls_context(*, cacert: str | None, insecure: bool) -> ssl.SSLContext:
    """Return a TLS context that trusts the system's CAs, or those in `cacert`, or anyone."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ValueError) as exc:
        raise CouldNotTell(
            f"--cacert {cacert}: no certificates can be read from it ({exc})"
        ) from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _header(answer: Answer | None, name: str, width: int = 80) -> str | None:
    value = answer.headers.get(name) if answer is not None else None
    return None if value is None else _text.clean(str(value), width)


def _refusal(answer: Answer) -> str:
    if answer.status in REDIRECT:
        where = (_header(answer, "Location") or "nowhere").partition("?")[0]
        where = _text.without_credentials(where)
        return f"{answer.status}, a redirect to {where}: redirects are not followed"
    kind = answer.headers.get_content_type()
    said = _text.first_line(answer.body) if kind == "text/plain" else ""
    return f"{answer.status} {said or _text.clean(answer.phrase)}".rstrip()


def _praise(answer: Answer) -> str:
    said = f"{answer.status} {_text.first_line(answer.body, 40)}".rstrip()
    return f"{said} (degraded)" if _header(answer, "Health-Status") == "degraded" else said
