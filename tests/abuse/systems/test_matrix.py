"""The fault matrix: a real server, each fault, each kind of check, and what has to hold each time.

Nothing is asserted of how quick the machine is, but that answers come by their deadline, with a
patience of a minute on top, and that the app's own route is not slowed down many times more than
that of the bare app beside it. `HEALTHMW_ABUSE=10` looks ten times as long at each fault. By how
much it is slowed down is measured by `make abuse-table`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from benchmarks._measure import about
from tests.abuse.effort import times
from tests.abuse.systems import faults
from tests.abuse.systems.app import DEADLINE
from tests.abuse.systems.faults import FAULTS, Fault, Slowdown
from tests.abuse.systems.stage import CELLS, PATIENCE, Client, Stage, Verdict
from tests.programs import do_without
from tests.services.servers import MissingServerError

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from concurrent.futures import Future

INTERFACES = ("asgi", "wsgi")
PACE = 0.05
"""Seconds between two polls of a cell."""
ROUNDS = times(200)
"""So often is the app's own route measured."""
GOAL = 1.5
"""So many times as long may the app's own route take on a machine that does nothing else."""
SLOWEST = 20.0
"""So many times as long may the app's own route take, by the median and in all: one that waits for
what hangs takes thousands of times as long, checks that block the loop for 0.3 s each make it 65
times as long in all, and what a busy machine did to it was up to five times as long."""
LATE = 40.0
"""Seconds beyond the deadline that a slow machine gets."""


@pytest.fixture(scope="module")
def rows(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Slowdown]]]:
    """The faults that this run of the tests asks for, on both servers at once: they mostly wait."""
    asked_for = [item.name for item in request.session.items]
    rows: dict[str, Future[Slowdown]] = {}
    try:
        with contextlib.ExitStack() as stack:
            for interface in INTERFACES:
                if not any(f"[{interface}-" in asked for asked in asked_for):
                    continue
                stage = stack.enter_context(Stage(interface, tmp_path_factory.mktemp(interface)))
                pool = ThreadPoolExecutor(1)
                stack.callback(pool.shutdown, cancel_futures=True)
                for name, fault in FAULTS.items():
                    if not any(f"[{interface}-{name}]" in asked for asked in asked_for):
                        continue
                    rows[f"{interface}-{name}"] = pool.submit(run_row, stage, fault)
            yield rows
    except MissingServerError as exc:
        do_without(exc)
    if "HEALTHMW_ABUSE_TABLE" in os.environ:
        write_down({name: row.result() for name, row in rows.items()})


def write_down(slowdowns: dict[str, Slowdown]) -> None:  # pragma: no cover - `make abuse-table`
    found = json.loads(faults.SLOWDOWNS.read_text("utf-8")) if faults.SLOWDOWNS.exists() else {}
    found |= {"about": about(), "rounds": ROUNDS}
    for name, slowdown in slowdowns.items():
        interface, _, fault = name.partition("-")
        found.setdefault(interface, {})[fault] = asdict(slowdown)
    faults.SLOWDOWNS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run_row(stage: Stage, fault: Fault) -> Slowdown:
    if fault.check in stage.without:
        raise MissingServerError(stage.without[fault.check])
    stage.all_cells(lambda cell: becomes(stage, cell, "okay", from_="any"))
    before = stage.settled()
    usual = stage.timed(ROUNDS, lambda cell, over: stays_well(stage, cell, over))
    began = time.monotonic()
    with stage.inflicted(fault):
        # A loop that is blocked answers when it is free again: it is blocked anew each time.
        how = (times(3), "/hurt?block") if fault.hurts == "block" else (ROUNDS, "")
        during = stage.timed(how[0], lambda cell, over: suffers(stage, cell, fault, over), how[1])
    over = time.monotonic()
    stage.all_cells(lambda cell: becomes(stage, cell, "okay", from_=expected(cell, fault)))
    well = time.monotonic()
    gives_back(stage, before)
    slowdown = Slowdown(usual=usual, during=during)
    print(
        f"{stage.interface} {fault.name}: {over - began:.1f} s in it, "
        f"{well - over:.1f} s to recover, {time.monotonic() - well:.1f} s to give back, {slowdown}"
    )
    assert slowdown.by_healthmw < SLOWEST, slowdown
    assert slowdown.in_all < SLOWEST, slowdown
    return slowdown


def expected(cell: str, fault: Fault) -> str:
    return fault.critical if cell.startswith("critical") else fault.minor


def asked(client: Client, cell: str) -> Verdict:
    """Ask once; the answer has to come by its deadline, and agree with itself."""
    began = time.monotonic()
    verdict = client.verdict(cell)
    assert time.monotonic() - began < DEADLINE + LATE
    assert verdict.code == (200 if verdict.status in {"okay", "degraded"} else 503), verdict
    return verdict


def becomes(stage: Stage, cell: str, status: str, *, from_: str) -> None:
    """Ask until the verdict is this one; on the way there it is what it was."""
    give_up = time.monotonic() + PATIENCE
    while (verdict := asked(stage.clients[cell], cell)).status != status:
        assert from_ in {"any", verdict.status}, (from_, verdict)
        assert time.monotonic() < give_up, f"it stays {verdict}, and is not {status}"
        time.sleep(0.02)


def stays_well(stage: Stage, cell: str, over: threading.Event) -> None:
    while not over.wait(PACE):
        assert asked(stage.clients[cell], cell).status == "okay"


def suffers(stage: Stage, cell: str, fault: Fault, over: threading.Event) -> None:
    status = expected(cell, fault)
    becomes(stage, cell, status, from_="okay")
    client = stage.clients[cell]  # a process without files could take no other
    for number in itertools.count():
        if number >= times(3) and over.is_set():
            break
        over.wait(PACE)
        verdict = asked(client, cell)
        assert verdict.status == status, verdict
        assert bool(verdict.amiss) == bool(fault.check), verdict
        for check, reason in verdict.amiss.items():
            assert check in {fault.check, *fault.others}, verdict
            assert reason in {fault.reason or reason, "stuck"}, verdict
        assert client.get("/hello")[::2] == (200, "hello")
    assert stage.server.exit_status is None


def gives_back(stage: Stage, before: dict[str, int]) -> None:
    """Nothing more is held than before; idle threads may take a while to end."""
    give_up = time.monotonic() + PATIENCE
    counted = ("threads", "probing", "files", "tasks", "connections")
    while True:
        now = stage.held()
        assert now["pid"] == before["pid"]
        more = {name: (before[name], now[name]) for name in counted if now[name] > before[name]}
        if not more:
            return
        assert time.monotonic() < give_up, f"more than before: {more}"
        for cell in CELLS:
            stage.clients[cell].verdict(cell)
        time.sleep(0.1)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("interface", INTERFACES)
def test_a_fault_in_each_kind_of_check(
    interface: str, fault: str, rows: dict[str, Future[Slowdown]]
) -> None:
    try:
        rows[f"{interface}-{fault}"].result()
    except MissingServerError as exc:
        do_without(f"not on this machine, or not by this user: {exc}")


def test_the_app_s_own_route_is_as_quick_as_it_was() -> None:
    """As it was measured with nothing in its way; here too much else goes on."""
    for interface in INTERFACES:
        for fault, slowdown in faults.slowdowns(interface).items():
            assert slowdown.by_healthmw <= GOAL, (interface, fault, slowdown)


def test_the_page_is_what_the_tests_expect() -> None:
    assert faults.PAGE.read_text(encoding="utf-8") == faults.page(), "`make abuse-table` writes it"
