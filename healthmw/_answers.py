"""A view in each of the formats: body, status code, and the headers that go with them."""

from __future__ import annotations

import math
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from healthmw._negotiate import Format
from healthmw._view import Level
from healthmw.render import health_json, openmetrics, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._view import View

Headers = tuple[tuple[str, str], ...]

_TIMINGS = 20


def _verbose(view: View) -> str:
    return text.render_verbose(view.report, details=view.level is Level.FULL)


class _Renderer(NamedTuple):
    content_type: str
    render: Callable[[View], str]


_RENDERERS = {
    Format.TEXT: _Renderer(text.CONTENT_TYPE, lambda view: text.render(view.report)),
    Format.VERBOSE: _Renderer(text.CONTENT_TYPE, _verbose),
    Format.JSON: _Renderer(health_json.CONTENT_TYPE, health_json.render),
    Format.PROMETHEUS: _Renderer(
        openmetrics.CONTENT_TYPE_PROMETHEUS,
        lambda view: openmetrics.render(view, openmetrics=False),
    ),
    Format.OPENMETRICS: _Renderer(
        openmetrics.CONTENT_TYPE, lambda view: openmetrics.render(view, openmetrics=True)
    ),
    Format.OPENMETRICS_0: _Renderer(
        openmetrics.CONTENT_TYPE_DRAFT, lambda view: openmetrics.render(view, openmetrics=True)
    ),
}
_METRICS = {Format.PROMETHEUS, Format.OPENMETRICS, Format.OPENMETRICS_0}
_PAGES = {Format.HTML, Format.HTML_PAUSED}


def _renderer(form: Format) -> _Renderer:
    if form not in _PAGES:
        return _RENDERERS[form]
    # Loaded when somebody looks: it has as much to import as all the rest of the endpoint.
    from healthmw.render import html

    return _Renderer(html.CONTENT_TYPE, partial(html.render, paused=form is Format.HTML_PAUSED))


def answer(view: View, form: Format) -> tuple[int, Headers, bytes]:
    """Return status code, headers and body."""
    report = view.report
    renderer = _renderer(form)
    body = renderer.render(view).encode("utf-8", "replace")
    # A scraper drops what doesn't come with 200, and with it the news that something is wrong.
    status = 200 if form in _METRICS else report.code
    headers = [
        ("Content-Type", renderer.content_type),
        ("Content-Length", str(len(body))),
        *GENERAL,
        ("Health-Status", report.status.value),
    ]
    if report.release is not None:
        headers.append(("Health-Release", report.release))
    if status >= 400 and (seconds := _retry_after(view)):
        headers.append(("Retry-After", seconds))
    if view.level is Level.FULL and (timing := _timing(view)):
        headers.append(("Server-Timing", timing))
    if form is not Format.TEXT:  # of which every word is a name of ours, and nothing to sniff at
        headers.append(("X-Content-Type-Options", "nosniff"))
    if form in _PAGES:
        from healthmw.render import html

        headers += [
            ("Content-Security-Policy", html.SECURITY_POLICY),
            ("Referrer-Policy", "no-referrer"),
        ]
    if form is Format.HTML:
        headers.append(("Refresh", str(html.REFRESH_SECONDS)))
    if form is Format.JSON and status == 200:
        headers.append(("ETag", f'"{blake2b(body, digest_size=12).hexdigest()}"'))
    return status, tuple(headers), body


GENERAL: Headers = (
    ("Cache-Control", "no-store"),
    ("Vary", "Accept"),
)
"""What every answer of the endpoint has."""


def _retry_after(view: View) -> str:
    """Return when the first open circuit that is at fault is tried again, in whole seconds."""
    report = view.report
    waits = [one.retry_after for one in report.at_fault if one.retry_after is not None]
    return str(max(1, math.ceil(min(waits)))) if waits and report.reason is None else ""


def _timing(view: View) -> str:
    ran = [result for result in view.report.results.values() if result.duration]
    ran.sort(key=lambda result: -result.duration)
    return ", ".join(f"{r.name};dur={r.duration * 1000:.1f}" for r in ran[:_TIMINGS])
