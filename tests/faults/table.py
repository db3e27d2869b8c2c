"""Runs rows of the fault table and writes them down: `python -m tests.faults.table [NAME...]`.

What was found goes to `build/fault-table.json` with all numbers, and what a user is to know to the
page `docs/reference/fault-table.md`: verdicts and reasons, which are the same in every run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.subject import Fault, subjects
from tests.services.servers import MissingServerError

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "fault-table.md"
RESULT = ROOT / "build" / "fault-table.json"
MISSING = 77
"""The exit code of a trial whose server's program is not installed."""

SIDE_BY_SIDE = 8
"""How many rows run at once: they mostly wait."""

_LIMIT = 600  # seconds until a row counts as hung
_NONE = "–"  # noqa: RUF001 - a dash, as print has it
_MARK = "<!-- rows -->"

_HEAD = f"""\
# The fault table

<!-- Written by `make fault-table` from a run of tests/faults, which compares it: don't edit. -->

What each probe that talks to a server says when something befalls that server. Every cell was seen
on a real server process, through a `Health`, for a hundred rounds. In each of them, in every run of
the tests:

- every answer came in time, also where the server said nothing;
- after the hundred rounds no more connections, threads and files were open than before;
- the probe passed again once the fault was over, in the same process;
- no log line, message or `repr` showed the password.

`okay`, `failed` and `timeout` are the reasons: `okay` is a pass, the other two are failures. A dash
has its reason below the table.

| fault | what happens |
|---|---|
| well | nothing |
| refused | nobody listens on the port |
| wrong password | the server does not take the password |
| SIGSTOP | the server's processes are frozen: the kernel accepts, nobody answers |
| killed | the server's processes are killed; started again after the hundred rounds |
| restarted | between two rounds the server restarts, or its connections are cut as by that |
| never answers | connections are accepted, and what is sent is swallowed |
| garbage | each answer is replaced by bytes of no protocol |
| reset | the connection is reset in the middle of the answers, each time a bit later |
| slow drip | answers arrive byte by byte, each within the time limit, all of them not |
| DNS failure | the host's name does not resolve |
| limit reached | the server has all the connections that it takes |
| TLS expired | the server's certificate is out of date |
| TLS wrong host | the server's certificate is for another host |

## What the probes say

| probe | {" | ".join(Fault)} |
|---|{"---|" * len(Fault)}
"""

_WITHOUT = """
## Probes without a row

"""
_LOCAL = "looks at the process or the machine it runs on, and talks to no server"
_POOL = "looks at the app's pool, and talks to no server"
_UDP = "asks by UDP, in whose way the table has no proxy"
NO_ROW = {
    "ClockProbe": _UDP,
    "DNSProbe": _UDP,
    "DirectoryProbe": _LOCAL,
    "DiskProbe": _LOCAL,
    "EventLoopProbe": _LOCAL,
    "FileDescriptorProbe": _LOCAL,
    "HeartbeatProbe": _LOCAL,
    "LoadProbe": _LOCAL,
    "MemoryProbe": _LOCAL,
    "PsycopgPoolProbe": _POOL,
    "SQLAlchemyPoolProbe": _POOL,
    "SettingsProbe": _LOCAL,
}
"""The probes that are in no row, each with the reason, which the page shows."""

_REASONS = """
## Cells that can't be, and recoveries that can't be seen

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a trial found out about one subject."""

    name: str
    found: dict[str, Any]
    said: str
    """What the trial told whoever watches."""

    @property
    def well(self) -> bool:
        """Whether nothing is amiss."""
        return not (self.found["amiss"] or self.found["secrets"] or self.found["complaints"])

    @property
    def line(self) -> str:
        """The row of the table."""
        return f"| {self.name} | {' | '.join(_shown(c) for c in self.found['cells'].values())} |"

    @property
    def reasons(self) -> list[str]:
        """The reasons why cells, or parts of them, are empty."""
        whys: dict[str, list[str]] = {}
        for fault, cell in self.found["cells"].items():
            if cell["none"]:
                whys.setdefault(cell["none"], []).append(fault)
            elif cell["recovered"].startswith("("):
                whys.setdefault(cell["recovered"][1:-1], []).append(f"{fault}, recovery")
        return [f"- {self.name}: {'; '.join(cells)}: {why}." for why, cells in whys.items()]


class TrialFailedError(Exception):
    """A trial broke down, beyond a cell that is not well."""


def run_row(name: str) -> Row:
    """Run one subject's trial. Raises `MissingServerError` or `TrialFailedError`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults.trial", name],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=False,
    )
    if done.returncode == MISSING:
        raise MissingServerError(done.stdout.strip())
    if done.returncode:
        raise TrialFailedError(f"{name}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return Row(name=name, found=json.loads(done.stdout), said=done.stderr)


def write_result(rows: list[Row]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([row.found for row in rows], indent=1), encoding="utf-8")


def committed() -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return the rows of the page by name, and the reasons given for each."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    table = "\n".join(lines).partition("|---|" + "---|" * len(Fault) + "\n")[2]
    body = table.partition(_WITHOUT)[0].splitlines()
    rows = {line[2:].partition(" | ")[0]: line for line in body if line.startswith("| ")}
    reasons: dict[str, list[str]] = {name: [] for name in rows}
    for line in body:
        if line.startswith("- "):
            reasons[line[2:].partition(": ")[0]].append(line)
    return rows, reasons


def page(rows: dict[str, str], reasons: dict[str, list[str]]) -> str:
    """Return the page with these rows."""
    names = [name for name in subjects() if name in rows]
    table = "".join(f"{rows[name]}\n" for name in names)
    whys = "".join(f"{why}\n" for name in names for why in reasons[name])
    without: dict[str, list[str]] = {}
    for name, why in NO_ROW.items():
        without.setdefault(why, []).append(f"`{name}`")
    rest = "".join(f"- {', '.join(names)}: {why}.\n" for why, names in sorted(without.items()))
    return f"{_HEAD}{table}{_REASONS}{whys}{_WITHOUT}{rest}"


def _shown(cell: dict[str, Any]) -> str:
    if cell["none"]:
        return _NONE
    return str(cell["reason"]) or "error"


def chosen(words: list[str]) -> list[str]:
    """Return the subjects whose names hold one of `words`; all, without any."""
    return [
        name
        for name in subjects()
        if not words or any(word.lower() in name.replace("`", "").lower() for word in words)
    ]


def main(words: list[str]) -> int:
    """Run rows and write them down; return how many are not well."""
    names = chosen(words)
    rows: list[Row] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for coming in as_completed([pool.submit(_run_and_show, name) for name in names]):
            row = coming.result()
            if row is not None:
                rows.append(row)
                lines, reasons = committed()
                lines[row.name], reasons[row.name] = row.line, row.reasons
                PAGE.write_text(page(lines, reasons), encoding="utf-8")
    write_result(rows)
    return len(names) - sum(row.well for row in rows)


def _run_and_show(name: str) -> Row | None:
    began = time.monotonic()
    try:
        row = run_row(name)
    except (MissingServerError, TrialFailedError) as exc:
        print(f"\n{name}: {exc}", flush=True)
        return None
    said = f"{row.said}{row.found['secrets'] or ''}{row.found['complaints'] or ''}"
    print(f"\n{name}: {time.monotonic() - began:.0f} s\n{said}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
