"""The page of the documentation, made of what the last run found: `python -m tests.preboot.page`.

Verdicts are the same in every run and are compared. How many requests there were, how many failed
without healthmw and some of the operator's words are others each time: the page has those of the
run that it was made of.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.preboot.deploy import Finding
from tests.preboot.scenarios import SCENARIOS, SETTINGS
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOUND = ROOT / "build" / "preboot-simulator.json"
PAGE = ROOT / "docs" / "reference" / "preboot-simulator.md"

_BEGIN, _END = "<!-- begin: {} -->\n", "<!-- end -->"

Key = tuple[str, str]
"""The names of a scenario and of a setting."""


def share(finding: Finding) -> str:
    """Say how many requests failed."""
    return f"{finding.failed or 'none'} of {finding.requests}"


def line(key: Key, finding: Finding) -> str:
    """Return the line of the second table."""
    scenario, setting = key
    said = finding.operator.replace("|", "\\|")
    cells = [scenario, setting, finding.bad_traffic, finding.halted, f"`{said}`"]
    return _row(cells)


def summary(scenario: str, found: Mapping[Key, Finding]) -> str:
    """Return the line of the first table."""
    return _row([scenario, *(share(found[scenario, setting]) for setting in SETTINGS)])


def tables(found: Mapping[Key, Finding]) -> dict[str, str]:
    """Return the tables by their names."""
    parts = {
        "failed": [
            _row(["scenario", *SETTINGS]),
            _rule(1 + len(SETTINGS)),
            *(summary(scenario, found) for scenario in SCENARIOS),
        ],
        "seen": [
            _row(["scenario", "setting", "bad code got traffic", "halted", "the operator saw"]),
            _rule(5),
            *(line(key, found[key]) for key in keys()),
        ],
    }
    both = {name: "".join(f"{one}\n" for one in lines) for name, lines in parts.items()}
    return {"scenarios": scenarios(), **both}


def scenarios() -> str:
    """Return what the scenarios are."""
    return "".join(f"- **{name}**: {one.words}\n" for name, one in SCENARIOS.items())


def keys() -> list[Key]:
    return [(scenario, setting) for scenario in SCENARIOS for setting in SETTINGS]


def page(found: Mapping[Key, Finding]) -> str:
    """Return the page as it is, with the tables of what was found."""
    text = read_page()
    for name, table in tables(found).items():
        head, begin, rest = text.partition(_BEGIN.format(name))
        text = head + begin + table + rest[rest.index(_END) :]
    return text


def read_page() -> str:
    return PAGE.read_text(encoding="utf-8")


def verdict(finding: Finding) -> list[str]:
    """Return what is the same in each run."""
    return [_some(share(finding)), finding.bad_traffic, finding.halted]


def verdicts(text: str) -> dict[Key, list[str]]:
    """Return the verdicts that a page has."""
    head, *rows = _table(text, "failed")
    shares = {
        (scenario, setting): _some(failed)
        for scenario, *cells in rows
        for setting, failed in zip(head[1:], cells, strict=True)
    }
    _, *rows = _table(text, "seen")
    seen = {(row[0], row[1]): [row[2], row[3]] for row in rows}
    return {key: [failed, *seen[key]] for key, failed in shares.items()}


def _some(failed: str) -> str:
    return "none" if failed.startswith("none of ") else "some"


def _table(text: str, name: str) -> list[list[str]]:
    """Return the rows of a table of the page, the head first."""
    lines = text.partition(_BEGIN.format(name))[2].partition(_END)[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [head, *rows]


def write(found: Mapping[Key, Finding]) -> None:
    """Keep what was found."""
    FOUND.parent.mkdir(exist_ok=True)
    kept = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    kept.update({"/".join(key): asdict(finding) for key, finding in found.items()})
    FOUND.write_text(json.dumps(kept, indent=2) + "\n")


def read() -> dict[Key, Finding]:
    kept = json.loads(FOUND.read_text())
    return {key: Finding(**kept["/".join(key)]) for key in keys()}


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return f"|{'---|' * columns}"


if __name__ == "__main__":
    PAGE.write_text(page(read()), encoding="utf-8")
