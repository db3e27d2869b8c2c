"""What is worth a notice, and how it gets there."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from healthmw._model import Status
from healthmw._options import flag, seconds, text, visible
from healthmw._quiet import unlogged
from healthmw._scrub import outlived
from healthmw._view import printable
from healthmw.exceptions import HealthError, MissingExtraError

try:
    import httpx2
    import stamina
except ImportError as exc:
    raise MissingExtraError("healthmw.webhooks", extra="webhooks") from exc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from healthmw._listeners import StatusChange

_ATTEMPTS = 35  # with pauses of 1, 2, 4, ... and then 60 seconds: half an hour
_LONGEST_PAUSE = 60.0  # seconds
_LINE_SHOWN = 500

_logger = logging.getLogger("healthmw")


class WebhookError(HealthError):
    """A notice could not be delivered. The message has no part of the URL but its host."""


class _RefusedError(WebhookError):
    """The service refused it for now."""

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Notifier(ABC):
    """Decides what is worth a notice, and sends it until it has arrived.

    One notice for each problem, and one when it is over. What goes on for another reason, or with
    `degraded` changes between DEGRADED and FAILED, is the same problem; but one that nobody could
    be told of is told of when it changes. A first good result, and draining, are no news. Called on
    a listener's thread, one event at a time.
    """

    def __init__(
        self, url: str, *, service: str, degraded: bool = False, timeout: float = 10.0
    ) -> None:
        self._url = visible("url", url)
        self._host = _host_of(url)
        self._service = text("service", service)
        if not service:
            raise ValueError("service must name the app, as people will read it")
        self._worst_well = Status.OKAY if flag("degraded", degraded) else Status.DEGRADED
        self._timeout = seconds("timeout", timeout)
        self._problems: dict[str, bool] = {}
        """The checks with a problem that is not over, and whether its notice has arrived."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._host} for {self._service}>"

    def __call__(self, event: StatusChange, /) -> None:
        """Send a notice if the event is worth one. Raises `WebhookError` when it doesn't arrive."""
        if event.check is None:
            return
        if event.new > self._worst_well:
            if not self._problems.get(event.check):
                self._problems[event.check] = False
                self._deliver(event, resolved=False)
                self._problems[event.check] = True
        elif self._problems.pop(event.check, None) is not None:
            # Even where no problem was heard of: it may have arrived, and the answer been lost.
            self._deliver(event, resolved=True)

    def _deliver(self, event: StatusChange, *, resolved: bool) -> None:
        url, headers, body = self.request(event, resolved=resolved)
        content = json.dumps(body, ensure_ascii=False).encode()
        failures = 0

        def again(error: Exception) -> bool | float:
            nonlocal failures
            failures += 1
            pause = _pause(error, failures)
            if pause and failures == 1:
                said = self._said(error)
                with outlived():
                    _logger.warning("notice of %s: %s; it is sent again", event.check, said)
            return pause

        try:
            with unlogged(), httpx2.Client(timeout=self._timeout) as client:
                for attempt in stamina.retry_context(
                    on=again,
                    attempts=_ATTEMPTS,
                    timeout=None,
                    wait_initial=1.0,
                    wait_max=_LONGEST_PAUSE,
                ):
                    with attempt:
                        self._send(client, url, headers, content)
        except (httpx2.HTTPError, _RefusedError) as exc:
            raise WebhookError(self._said(exc)) from None

    def _said(self, error: Exception) -> str:
        """Say what went wrong without a client's words: they may have the URL, mostly a secret."""
        if isinstance(error, WebhookError):
            return str(error)
        return f"{self._host} can't be reached: {type(error).__name__}"

    def _send(
        self, client: httpx2.Client, url: str, headers: Mapping[str, str], content: bytes
    ) -> None:
        answer = client.post(url, content=content, headers=self.signed(headers, content))
        if answer.is_success:
            return
        message = f"{self._host} answered {answer.status_code}"
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _RefusedError(message, retry_after=_seconds(answer.headers.get("Retry-After")))
        raise WebhookError(message)

    def signed(self, headers: Mapping[str, str], content: bytes) -> Mapping[str, str]:
        """Return the headers of one attempt."""
        del content  # for those that sign it
        return {"Content-Type": "application/json", **headers}

    @abstractmethod
    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        """Return URL, headers and JSON body of the notice."""

    def headline(self, event: StatusChange, *, resolved: bool) -> str:
        """Say in one line which check is what."""
        what = "is well again" if resolved else f"is {event.new} ({event.reason})"
        return f"{self._service}: check {event.check} {what}"

    def key(self, event: StatusChange) -> str:
        """Name the problem alike in all processes, so that a service can tell it is one."""
        return f"healthmw/{self._service}/{event.check}"


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in {"http", "https"} and parts.port != 0
        host = parts.hostname if known else None
    except ValueError:
        host = None
    if not host:
        raise ValueError("url must be an http:// or https:// URL with a host, and a port if any")
    return host


def _pause(error: Exception, failures: int) -> bool | float:
    """Tell whether to try again; in seconds, if later than it would be by itself."""
    if isinstance(error, _RefusedError):
        wanted = min(error.retry_after or 0.0, _LONGEST_PAUSE)
        return wanted if wanted > 2.0**failures else True
    return isinstance(error, httpx2.TransportError)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


def facts(event: StatusChange) -> dict[str, str]:
    """Return what a person wants to know next, for formats that have a place for it."""
    found = {"ready": str(event.report.status), "process": event.instance}
    if event.release is not None:
        found["release"] = event.release
    if event.detail:
        found["detail"] = printable(event.detail, _LINE_SHOWN)
    return found
