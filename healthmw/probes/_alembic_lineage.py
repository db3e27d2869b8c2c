"""Where the revisions in a database stand among those of the code. Pure: no database, no files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the database lacks, and what it has that the code doesn't know."""

    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def compare(needs: Mapping[str, Collection[str]], recorded: Iterable[str]) -> Standing:
    """Compare the code's revisions with the heads that the database has recorded.

    `needs` maps each revision, in the order to name them in, to those that are applied before it:
    what it revises and what it depends on. Alembic records the latest of each line only, and
    replaces it by what is applied on top. So what builds on a recorded revision is not applied. Of
    a revision that neither leads to a recorded one nor builds on it nothing is known: it is
    missing, unless the database has recorded a revision of a newer release, which may have come by
    way of it.
    """
    heads = set(recorded)
    known, unknown = heads & needs.keys(), heads - needs.keys()
    applied = _reach(known, needs)
    suspects = _reach(known, _turned_round(needs)) if unknown else needs.keys()
    missing = (one for one in needs if one in suspects and one not in applied)
    return Standing(missing=tuple(missing), unknown=tuple(sorted(unknown)))


def _reach(start: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """Return `start` and all that can be reached from it."""
    found = set(start)
    to_do = [*found]
    while to_do:
        new = set(edges[to_do.pop()]) - found
        found |= new
        to_do += new
    return found


def _turned_round(edges: Mapping[str, Iterable[str]]) -> Mapping[str, Iterable[str]]:
    turned: dict[str, list[str]] = {one: [] for one in edges}
    for one, others in edges.items():
        for other in others:
            turned[other].append(one)
    return turned
