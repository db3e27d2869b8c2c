"""Renders what came of the mutants into the page `docs/reference/mutants.md`.

`python -m tests.abuse.mutants_page`; `make mutants` does it at its end. The figures are those of
`mutants.json`, which the run writes; the reasons are those of `mutants_equal.toml`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE / "mutants.json"
EQUAL = HERE / "mutants_equal.toml"
PAGE = HERE.parents[1] / "docs" / "reference" / "mutants.md"

_HEAD = """\
# Mutants

<!-- Rendered by `make mutants` from what lies in tests/abuse: don't edit. -->

Do the tests hold the engine and the breaker in their places? `make mutants` changes them in small
ways, one at a time: a comparison, an `and`, a sum, a number; a condition becomes its opposite, a
line is left out, a function returns nothing. Then it runs the tests that reach the changed line. A
mutant that makes one of them fail, or hang, is *noticed*. One that none notices shows a line that
nothing holds in its place, or it is *equal*: a change that makes no difference which anyone could
see, or is promised. Those are listed below, each with the reason.

| module | mutants | noticed | explained | left | on |
|---|--:|--:|--:|--:|---|
"""


def results() -> dict[str, Any]:
    """Return, by module, what came of its mutants."""
    stored: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return stored


def reasons() -> dict[str, str]:
    """Return, by the mutant's name, why it makes no difference."""
    groups = tomllib.loads(EQUAL.read_text(encoding="utf-8"))["equal"]
    return {name: group["reason"] for group in groups for name in group["mutants"]}


def page(stored: dict[str, Any], why: dict[str, str]) -> str:
    """Return the page."""
    rows, equal, left = "", dict[str, list[str]](), list[str]()
    sums = [0, 0, 0, 0]
    for module, found in sorted(stored.items()):
        survivors = found["survivors"]
        known = [name for name in survivors if name in why]
        for name in known:
            equal.setdefault(why[name], []).append(name)
        left += [name for name in survivors if name not in why]
        counts = [
            found["made"], found["made"] - len(survivors), len(known), len(survivors) - len(known)
        ]  # fmt: skip
        sums = [sum(both) for both in zip(sums, counts, strict=True)]
        rows += _row(f"`{module}`", counts, found["date"])
    text = _HEAD + rows + _row("all", sums, "")
    score = 100 * sums[1] / sums[0]
    text += f"\n{score:.1f} % of them are noticed.\n"
    if left:
        text += "\n## Left\n\nNobody has said yet what these are.\n\n" + _listed(left)
    text += "\n## Not noticed, and why\n"
    for reason, names in equal.items():
        text += f"\n{reason.strip()}\n\n" + _listed(names)
    return text


def _row(name: str, counts: list[int], date: str) -> str:
    return f"| {name} | " + " | ".join(map(str, counts)) + f" | {date} |\n"


def _listed(names: list[str]) -> str:
    lines = []
    for name in names:
        module, scope, what = name.split(" | ", 2)
        place = f"{module}.{scope}" if scope else module
        before, _, after = what.partition(" → ")
        lines.append(f"- `{place}`: `{before}` → `{after}`\n")
    return "".join(lines)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(results(), reasons()), encoding="utf-8")


if __name__ == "__main__":
    main()
