"""Which format a request asks for, and what else it asks of the answer: `Accept` and the query."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qsl

_ACCEPT_READ = 1024
_RANGES_READ = 32
_QUERY_READ = 2048
_FIELDS_READ = 64


class Format(StrEnum):
    """In what form to answer."""

    TEXT = "text"
    VERBOSE = "verbose"
    JSON = "json"
    HTML = "html"
    HTML_PAUSED = "html-paused"
    PROMETHEUS = "prometheus"
    OPENMETRICS = "openmetrics"
    OPENMETRICS_0 = "openmetrics-0"
    """The same under the name of its draft, which old Prometheus servers ask for."""


_BY_NAME = {
    "text": Format.TEXT,
    "json": Format.JSON,
    "health+json": Format.JSON,
    "html": Format.HTML,
    "prometheus": Format.PROMETHEUS,
    "openmetrics": Format.OPENMETRICS,
}
_KNOWN = ", ".join(_BY_NAME)

# By media type and version, the best first where a client has no preference. What has a version is
# never meant by a wildcard: it is for those who know of it.
_OFFERS: tuple[tuple[str, str, str, Format], ...] = (
    ("text", "plain", "", Format.TEXT),
    ("text", "html", "", Format.HTML),
    ("application", "health+json", "", Format.JSON),
    ("application", "json", "", Format.JSON),
    ("application", "openmetrics-text", "1.0.0", Format.OPENMETRICS),
    ("application", "openmetrics-text", "0.0.1", Format.OPENMETRICS_0),
    ("text", "plain", "0.0.4", Format.PROMETHEUS),
)


class _Range(NamedTuple):
    type: str
    subtype: str
    version: str
    quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a request asks of its answer."""

    format: Format = Format.TEXT
    only: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    fresh: bool = False
    wrong: str = ""
    """What is wrong with the request, in our words; empty where nothing is."""

    @property
    def plain(self) -> bool:
        """Whether all that is asked for is a form; all else is for the authorised."""
        return not (self.fresh or self.only or self.exclude or self.wrong)


def wishes_of(query: str, accept: str) -> Wishes:
    """Return the wishes in a raw query string and an `Accept` header."""
    if len(query) > _QUERY_READ or query.count("&") >= _FIELDS_READ:
        # What is too long to be read is ignored; but a filter must never be, or read by half.
        if "only=" in query or "exclude=" in query:
            return Wishes(wrong="The query is too long")
        query = ""
    names: dict[str, set[str]] = {"only": set(), "exclude": set()}
    last: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in names:
            names[key].update(value.split(","))
        else:
            last[key] = value
    verbose = _is_on(last.get("verbose", "0"))
    if "format" in last:
        form = _BY_NAME.get(last["format"].replace(" ", "+"))  # a plus that nobody has encoded
        if form is None:
            return Wishes(wrong=f"There is no such format, only {_KNOWN}")
    else:
        form = Format.TEXT if verbose else negotiated(accept)
    if form is Format.TEXT and verbose:
        form = Format.VERBOSE
    elif form is Format.HTML and not _is_on(last.get("refresh", "1")):
        form = Format.HTML_PAUSED
    return Wishes(
        format=form,
        only=frozenset(names["only"]),
        exclude=frozenset(names["exclude"]),
        fresh=_is_on(last.get("fresh", "0")),
    )


def negotiated(accept: str) -> Format:
    """Return the format that `accept` likes best; text where it likes none, or any as much.

    Between equals, what is named wins over what a wildcard takes in, then what is named first.
    """
    best, chosen = (0.0, 0, 0, 0), Format.TEXT
    ranges = _ranges(accept)
    for order, offer in enumerate(_OFFERS):
        fits = [
            (fit, -position, one.quality)
            for position, one in enumerate(ranges)
            if (fit := _fit(one, offer))
        ]
        fit, position, quality = max(fits, default=(0, 0, 0.0))
        rank = (quality, fit, position, -order)
        if quality > 0 and rank > best:
            best, chosen = rank, offer[3]
    return chosen


def _ranges(accept: str) -> list[_Range]:
    if len(accept) > _ACCEPT_READ:
        accept = accept[:_ACCEPT_READ].rpartition(",")[0]
    return [_range(part) for part in accept.split(",", _RANGES_READ)[:_RANGES_READ]]


def _range(part: str) -> _Range:
    media, *parameters = part.lower().split(";")
    kind, _, subtype = media.strip().partition("/")
    given = dict(pair.strip().partition("=")[::2] for pair in parameters)
    try:
        quality = min(max(float(given.get("q", "1")), 0.0), 1.0)
    except ValueError:
        quality = 0.0
    return _Range(kind, subtype, given.get("version", "").strip('"'), quality)


def _fit(one: _Range, offer: tuple[str, str, str, Format]) -> int:
    """Return how closely a range names an offer: 0 for not at all."""
    kind, subtype, version, _ = offer
    if (one.type, one.subtype) == (kind, subtype):
        if one.version == version:
            return 4
        return 3 if version == "1.0.0" and not one.version else 0
    if version:
        return 0
    if one.subtype == "*":
        return {kind: 2, "*": 1}.get(one.type, 0)
    return 0


def _is_on(value: str) -> bool:
    return value.lower() not in {"0", "false", "no", "off"}
