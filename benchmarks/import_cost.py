"""What `import healthmw` costs over `import anyio`, which it can't do without; and its modules.

Each import is made by an interpreter of its own, which tells the processor's time that it took; all
of it has been compiled before, as pip does when it installs a package. Rounds are interleaved, and
the first candidate is measured twice, as its own control. The limit that the project has set itself
is 5 ms for `import healthmw`. An app has anyio not only imported, but at work with its event loop:
over that, `Health` itself is measured.

    python -m benchmarks.import_cost [--quick] [--json FILE]
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks._measure import CONTROL, Results, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
import time
began = time.process_time_ns()
{code}
print(time.process_time_ns() - began)
"""

BASE = "import anyio"
OVER_ANYIO = {
    BASE: BASE,
    "import healthmw": f"{BASE}, healthmw",
}
AT_WORK = f"{BASE}\nanyio.run(anyio.sleep, 0)"
OVER_LOOP = {
    "anyio.run(...)": AT_WORK,
    "anyio.run(...), Health": f"{AT_WORK}\nfrom healthmw import Health",
}
# The glue over what an app that uses it has imported already.
GLUE = {
    "asgi": AT_WORK,
    "wsgi": AT_WORK,
    "starlette": f"{BASE}, starlette.applications",
    "fastapi": f"{BASE}, fastapi",
    "flask": f"{BASE}, flask",
}


def milliseconds(code: str) -> Callable[[], float]:
    """Return a candidate: what running `code` takes in a new interpreter."""

    def measure() -> float:
        command = [sys.executable, "-c", PROGRAM.format(code=code)]
        return int(subprocess.run(command, check=True, capture_output=True).stdout) / 1e6

    return measure


MEMORY = """
{code}
import gc, re
gc.collect()
with open("/proc/self/smaps_rollup") as file:
    print(re.search(r"^Private_Dirty: +([0-9]+) kB", file.read(), re.MULTILINE)[1])
"""
_CHECKS = """
health = Health()
for name in ("database", "cache", "disk"):
    health.add(name, lambda: None)
"""
MOUNTED = {
    "ASGI": f"""
from healthmw import Health
from healthmw.asgi import HealthMiddleware
{_CHECKS}
app = HealthMiddleware(lambda scope, receive, send: None, health)
""",
    "WSGI": f"""
from healthmw import Health
from healthmw.wsgi import HealthMiddleware
{_CHECKS}
app = HealthMiddleware(lambda environ, start_response: [], health)
""",
}
# Of what healthmw needs of the standard library, an app's framework has loaded most.
FRAMEWORKS = {
    "ASGI": ("FastAPI", f"{AT_WORK}\nimport fastapi"),
    "WSGI": ("Flask", f"{AT_WORK}\nimport flask"),
}


def kibibytes(code: str) -> Callable[[], float]:
    """Return a candidate: the memory that is a new interpreter's own after it has run `code`."""

    def measure() -> float:
        command = [sys.executable, "-c", MEMORY.format(code=code)]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    return measure


def main() -> None:
    results = Results("What importing healthmw costs.")
    rounds = results.rounds(30)
    for title, candidates in {"import anyio": OVER_ANYIO, "anyio at work": OVER_LOOP}.items():
        samples = take_turns(
            {name: milliseconds(code) for name, code in candidates.items()}, rounds=rounds
        )
        first = next(iter(candidates))
        results.table(
            f"milliseconds of processor time, over {title}",
            [
                {"": name, "median": samples.median(name), "added": samples.added(name, to=first)}
                for name in (first, CONTROL, *list(candidates)[1:])
            ],
        )
    rows = []
    for module, before in GLUE.items():
        core = f"{before}\nfrom healthmw import Health"
        ours = f"{core}\nimport healthmw.{module}"
        turns = take_turns({"core": milliseconds(core), "ours": milliseconds(ours)}, rounds=rounds)
        rows.append(
            {
                "": f"import healthmw.{module}",
                "added": turns.added("ours", to="core"),
                "control": turns.added(CONTROL, to="core"),
            }
        )
    results.table("milliseconds over the framework and `Health`", rows)
    rows = []
    for interface, mounted in MOUNTED.items():
        framework, loaded = FRAMEWORKS[interface]
        for where, before in {"": AT_WORK, f", in an app of {framework}": loaded}.items():
            turns = take_turns(
                {"before": kibibytes(before), "mounted": kibibytes(f"{before}\n{mounted}")},
                rounds=results.rounds(9),
            )
            rows.append(
                {
                    "": f"{interface}, mounted, three checks{where}",
                    "MiB": turns.added("mounted", to="before") / 1024,
                    "control, MiB": turns.added(CONTROL, to="before") / 1024,
                }
            )
    results.table("resident memory over anyio at work", rows)
    results.finish()


if __name__ == "__main__":
    main()
