"""The status page: one document that needs nothing else, for people.

What is red comes first and says so in words. It works without JavaScript, and its policy forbids
any. All that comes from outside goes through `_text`.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from healthmw._model import Reason, Status
from healthmw._sparkline import in_short, sparkline
from healthmw._view import Level, worst_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from healthmw._breaker_state import BreakerSnapshot
    from healthmw._history import History
    from healthmw._model import Report, Result
    from healthmw._view import Facts, View

__all__ = ("CONTENT_TYPE", "REFRESH_SECONDS", "SECURITY_POLICY", "render")

CONTENT_TYPE = "text/html; charset=utf-8"
REFRESH_SECONDS = 5

_STYLE = files("healthmw.render").joinpath("status_page.css").read_text(encoding="utf-8").strip()
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()

SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_NAMED = 8
_CHANGES_SHOWN = 8
_TITLES = {
    Status.FAILED: "Failed",
    Status.UNKNOWN: "Unknown",
    Status.DEGRADED: "Degraded",
    Status.OKAY: "Passing",
}
_ICONS = {
    Status.OKAY: '<circle cx="8" cy="8" r="8"/><path class="ink" d="m4 8.5 2.8 2.8L12 5.5"/>',
    Status.DEGRADED: '<path d="M8 .5 16 15H0z"/><path class="ink" d="M8 6v3.2m0 3.2v.1"/>',
    Status.UNKNOWN: (
        '<rect width="16" height="16" rx="4"/>'
        '<path class="ink" d="M5.5 6a2.5 2.5 0 1 1 3.7 2.2Q8 8.9 8 10M8 12v1"/>'
    ),
    Status.FAILED: (
        '<path d="M4.7 0h6.6L16 4.7v6.6L11.3 16H4.7L0 11.3V4.7z"/>'
        '<path class="ink" d="m4.8 4.8 6.4 6.4m0-6.4-6.4 6.4"/>'
    ),
}
_FAVICONS = {
    Status.OKAY: "%3Ccircle cx='8' cy='8' r='7' fill='%231a7f37'/%3E",
    Status.DEGRADED: "%3Cpath d='M8 1 15 15H1z' fill='%23b87503'/%3E",
    Status.UNKNOWN: "%3Crect x='1' y='1' width='14' height='14' rx='4' fill='%236b5ca5'/%3E",
    Status.FAILED: "%3Cpath d='M5 1h6l4 4v6l-4 4H5l-4-4V5z' fill='%23c62828'/%3E",
}


def render(view: View, *, paused: bool = False) -> str:
    """Return the page for `view`. That it refreshes itself is up to the `Refresh` header."""
    report = view.report
    verdict = _verdict(report)
    name = f" - {view.about.service}" if view.about.service and view.level != "summary" else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="robots" content="noindex">\n'
        f"<title>{_text(verdict)}: {_text(report.group)}{_text(name)}</title>\n"
        '<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='
        f"'http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E{_FAVICONS[report.status]}"
        '%3C/svg%3E">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{_header(view, verdict)}<main>\n{_sections(view)}</main>\n"
        f"{_footer(view, paused=paused)}</body>\n</html>\n"
    )


def _verdict(report: Report) -> str:
    """Say what the text format says, and the status where that says more."""
    word = "OKAY" if report.ok else "FAILED"
    if report.status is (Status.OKAY if report.ok else Status.FAILED):
        return word
    return f"{word}, {report.status}"


def _header(view: View, verdict: str) -> str:
    report, about = view.report, view.about
    facts = [("Group", _text(report.group))]
    if report.release is not None:
        facts.append(("Release", f"<code>{_text(report.release)}</code>"))
    if view.level is not Level.SUMMARY:
        if about.service:
            facts.insert(0, ("Service", _text(about.service)))
        if about.version:
            facts.append(("Version", _text(about.version)))
    if view.instance:
        facts.append(("Process", _text(view.instance)))
    facts.append(("As of", _time(view.at)))
    links = _links(about.links)
    if links and view.level is not Level.SUMMARY:
        facts.append(("Links", links))
    lead = "" if view.level is Level.SUMMARY else f"<p class=lead>{_lead(view)}</p>\n"
    about_it = (
        f"<p class=about>{_text(about.description)}</p>\n"
        if about.description and view.level is not Level.SUMMARY
        else ""
    )
    return (
        f'<header class="verdict {report.status}">\n'
        f"<h1>{_icon(report.status)}{_text(verdict)}</h1>\n"
        f"{lead}{about_it}{_list(facts)}</header>\n"
    )


def _links(links: Mapping[str, str]) -> str:
    return ", ".join(
        f'<a href="{_text(url)}">{_text(relation)}</a>'
        for relation, url in links.items()
        if url.lower().startswith(("https://", "http://"))  # what else a click may do, who knows
    )


def _lead(view: View) -> str:
    """Say in one sentence what is amiss, with links to it."""
    report = view.report
    if report.reason is Reason.DRAINING:
        return "Draining: this process is about to stop and wants no new traffic."
    if report.reason is Reason.NO_CHECKS:
        return "No check is registered, so nothing is known."
    amiss = [r for r in worst_first(list(report.results.values())) if r.status > Status.OKAY]
    total = view.checks
    if not amiss:
        if not total:
            return "The process answers; no check is in this group."
        return f"All {total} checks pass." if total > 1 else "The check passes."
    named = [
        f'<a href="#{_anchor(r)}">{_text(r.name)}</a> '
        f"({_words(r.reason.value)}{'' if r.critical else ', not critical'})"
        for r in amiss[:_NAMED]
    ]
    if len(amiss) > _NAMED:
        named.append(f"and {len(amiss) - _NAMED} more")
    count = f"{len(amiss)} of {total} checks" if total > 1 else "The check"
    verb = "need" if len(amiss) > 1 else "needs"
    return f"{count} {verb} attention: {', '.join(named)}."


def _sections(view: View) -> str:
    results = worst_first(list(view.report.results.values()))
    sections = []
    for status in sorted(Status, key=lambda s: -s.severity):
        chosen = [r for r in results if r.status is status]
        if chosen:
            checks = "".join(_check(r, view.facts.get(r.name)) for r in chosen)
            sections.append(
                f'<section class="{status}" aria-labelledby="is-{status}">\n'
                f'<h2 id="is-{status}">{_TITLES[status]} <span>{len(chosen)}</span></h2>\n'
                f"<ul>\n{checks}</ul>\n</section>\n"
            )
    if view.omitted:
        sections.append(f"<p>{view.omitted} more checks are not shown; the worst are.</p>\n")
    return "".join(sections)


def _check(result: Result, facts: Facts | None) -> str:
    tags = "" if result.critical else " <span class=tag>not critical</span>"
    head = (
        f"<div class=head>{_icon(result.status)}<h3>{_text(result.name)}</h3>"
        f"<span class=word>{result.status.capitalize()}</span>{tags}"
    )
    if facts is None:
        body = f"</div>{_why(result)}"
    elif result.status is Status.OKAY:
        body = (
            f"</div>{_why(result)}<details><summary>{sparkline(facts.history.recent)}"
            f"{_took(result, facts.history)}</summary>{_about(result, facts)}</details>"
        )
    else:
        body = f"{sparkline(facts.history.recent)}</div>{_why(result)}{_about(result, facts)}"
    return f'<li id="{_anchor(result)}">{head}{body}</li>\n'


def _why(result: Result) -> str:
    """Say why the check is what it is, where that is more than its status."""
    reason = "" if result.reason.value == result.status.value else _words(result.reason.value)
    parts = [f"<b>{_text(part)}</b>" for part in (reason.capitalize(),) if part]
    parts += [_text(part) for part in (result.detail,) if part]
    return f"<p class=why>{': '.join(parts)}</p>" if parts else ""


def _took(result: Result, past: History) -> str:
    took = in_short(result.duration) if result.duration else "no run"
    age = "" if past.age is None else f", {_ago(past.age)}"
    return f"{took}{age}"


def _about(result: Result, facts: Facts) -> str:
    past = facts.history
    rows: list[tuple[str, str]] = []
    if facts.description:
        rows.append(("What", _text(facts.description)))
    if past.unchanged is not None and past.status is result.status:
        lasts = in_short(past.unchanged) if past.unchanged >= 1 else "less than a second"
        rows.append((f"{result.status.capitalize()} for", lasts))
    if past.age is not None:
        rows.append(("Last result", f"{_ago(past.age)}, took {in_short(result.duration)}"))
    if result.raw is not result.status:
        rows.append(("Last run by itself", _text(result.raw.value)))
    rows.append(("Runs", f"{past.runs}, {sum(past.failures.values()) or 'none'} not passing"))
    if facts.breaker is not None:
        rows.append(("Circuit", _text(_circuit(facts.breaker))))
    if facts.groups:
        rows.append(("Groups", _text(", ".join(facts.groups))))
    for name, value in result.measurements.items():
        rows.append((_text(_words(name)), _text(value)))
    if past.changes:
        flaps = f", {past.flaps} up or down in the last hour" if past.flaps > 1 else ""
        rows.append(("Changes", f"{past.changed}{flaps}{_changes(past)}"))
    return _list(rows)


def _changes(past: History) -> str:
    items = []
    for change in reversed(past.changes[-_CHANGES_SHOWN:]):
        says_more = change.reason.value != change.new.value
        reason = f" ({_words(change.reason.value)})" if says_more else ""
        items.append(f"<li>{_time(change.when)} {change.old} to <b>{change.new}</b>{reason}</li>")
    return f"<ol>{''.join(items)}</ol>"


def _circuit(breaker: BreakerSnapshot) -> str:
    words = _words(breaker.state.value)
    if breaker.retry_after:
        words += f", next trial in {in_short(breaker.retry_after)}"
    if breaker.opened_count:
        words += f", opened {_times(breaker.opened_count)}"
    if breaker.rejected:
        words += f", refused a call {_times(breaker.rejected)}"
    return words


def _footer(view: View, *, paused: bool) -> str:
    if paused:
        refresh = 'Updates are paused. <a href="?format=html">Resume</a>'
    else:
        refresh = (
            f"Updates itself every {REFRESH_SECONDS} seconds. "
            '<a href="?format=html&amp;refresh=0">Pause</a>'
        )
    withheld = (
        ""
        if view.level is Level.FULL
        else "<p>Messages, times and history are for authorised callers.</p>\n"
    )
    return f"<footer>\n<p>{refresh}</p>\n{withheld}</footer>\n"


def _list(rows: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and HTML."""
    items = "".join(f"<div><dt>{term}</dt> <dd>{html}</dd></div>" for term, html in rows)
    return f"<dl>{items}</dl>\n"


def _icon(status: Status) -> str:
    return f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{_ICONS[status]}</svg>'


def _time(when: datetime) -> str:
    return (
        f'<time datetime="{when.isoformat(timespec="seconds")}">'
        f"{when:%Y-%m-%d} <b>{when:%H:%M:%S}</b> UTC</time>"
    )


def _ago(seconds: float) -> str:
    if seconds < 1:
        return "now"
    return f"{seconds:.0f} s ago" if seconds < 119.5 else f"{in_short(seconds)} ago"


def _anchor(result: Result) -> str:
    return f"check-{_text(result.name)}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _words(code: str) -> str:
    return code.replace("_", " ")


def _text(value: object) -> str:
    return escape(str(value))
