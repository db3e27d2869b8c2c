"""The soak: faults at random under load, and verdicts that agree with what is known to be true.

`make soak MINUTES=30` makes it a long one; both servers have it at once. A verdict may lag behind a
change as long as its check may take to see it, and a slow machine's patience longer; after that, or
once it has been right, it has to be the truth each time. At the end the process holds no more than
when it had seen each fault once.
"""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.abuse.systems.app import LIMIT
from tests.abuse.systems.faults import FAULTS, Fault
from tests.abuse.systems.stage import CELLS, PATIENCE, Client, Stage
from tests.abuse.systems.test_matrix import INTERFACES, asked, becomes, expected
from tests.programs import do_without
from tests.services.servers import MissingServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from pathlib import Path

MINUTES = float(os.environ.get("MINUTES", "0.5"))

PROMISED = LIMIT + 0.5
"""Seconds until a change is seen: a check's interval or its result's age, and its probe's limit."""
SLACK = 12.0
"""Seconds that a slow machine gets on top."""
GROWTH = 24 * 2**20
"""Bytes by which the memory may differ between two moments at which nothing is the matter."""

# Faults of the process itself hit the load as well as the checks: those have their own test.
CHOSEN = [
    fault for fault in FAULTS.values() if not fault.hurts or fault.hurts in {"names", "clock"}
]


@dataclass(slots=True)
class Truth:
    """What is so, since when; and what was said of it."""

    fault: Fault | None = None
    since: float = 0.0
    turning: bool = False
    """Whether it is about to be something else."""
    lags: list[float] = field(default_factory=list)
    asked: int = 0
    wrong: list[str] = field(default_factory=list)


def watch(stage: Stage, cell: str, truth: Truth, over: threading.Event) -> None:
    """Ask like a balancer, and compare."""
    client = Client(stage.server.port)
    now, seen_since, plain = 0.0, 0.0, True
    while not over.is_set():
        fault, since, began = truth.fault, truth.since, time.monotonic()
        if since != now:
            # What was over before it was seen may still be told: by the run that it held up. Then
            # the first verdict that is right is only the one of before.
            now, plain = since, seen_since == now
        verdict = asked(client, cell)
        wanted = "okay" if fault is None else expected(cell, fault)
        truth.asked += 1
        if verdict.status == wanted and seen_since != since:
            truth.lags.append(time.monotonic() - since)
            seen_since = since
        elif verdict.status != wanted and truth.since == since and not truth.turning:
            late = began - since
            if (plain and seen_since == since) or late > PROMISED + SLACK:
                name = fault.name if fault else "nothing"
                truth.wrong.append(f"{cell}: {verdict} {late:.1f} s into {name}")
        assert client.get("/hello")[::2] == (200, "hello")
        time.sleep(0.02)
    client.close()


def soak(stage: Stage, draw: random.Random, seconds: float) -> Truth:
    truth, over = Truth(), threading.Event()
    chosen = [fault for fault in CHOSEN if fault.check not in stage.without]
    began = time.monotonic()
    watchers = [
        threading.Thread(target=watch, args=(stage, cell, truth, over), daemon=True)
        for cell in CELLS
    ]
    for watcher in watchers:
        watcher.start()
    held = []
    while time.monotonic() - began < seconds:
        fault = draw.choice(chosen)
        truth.turning = True
        with stage.inflicted(fault):
            truth.fault, truth.since, truth.turning = fault, time.monotonic(), False
            over.wait(draw.uniform(1, PROMISED + SLACK + 3))
            truth.turning = True
        truth.fault, truth.since, truth.turning = None, time.monotonic(), False
        for cell in CELLS:
            becomes(stage, cell, "okay", from_="any")
        held.append(stage.held())
        over.wait(draw.uniform(0, 2))
        assert all(watcher.is_alive() for watcher in watchers), "a watcher broke down"
    over.set()
    for watcher in watchers:
        watcher.join(PATIENCE)
    first = held[len(held) // 4]
    last = stage.settled()
    memory = [held[len(held) * part // 8]["memory"] / 2**20 for part in range(8)]
    print(
        f"{stage.interface}: {len(held)} faults, {truth.asked} verdicts, {len(truth.wrong)} wrong; "
        f"right after {sorted(truth.lags)[len(truth.lags) // 2]:.2f} s (median), "
        f"{max(truth.lags):.2f} s at most; held after a quarter {first}, now {last}; "
        f"MiB on the way: {', '.join(f'{one:.1f}' for one in memory)}"
    )
    for name in ("threads", "probing", "files", "tasks", "connections"):
        most = max(one[name] for one in held[: len(held) // 4 + 1])
        assert last[name] <= most + 8, (name, most, last)  # as many as wait for an answer
    assert last["memory"] < first["memory"] + GROWTH
    return truth


def run(interface: str, folder: Path) -> Truth:
    with Stage(interface, folder) as stage:
        for cell in CELLS:
            becomes(stage, cell, "okay", from_="any")
        return soak(stage, random.Random(interface), 60 * MINUTES)


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Truth]]]:
    """Both servers at once: they mostly wait."""
    with ThreadPoolExecutor(len(INTERFACES)) as pool:
        yield {one: pool.submit(run, one, tmp_path_factory.mktemp(one)) for one in INTERFACES}


@pytest.mark.parametrize("interface", INTERFACES)
def test_verdicts_agree_with_the_truth(interface: str, truths: dict[str, Future[Truth]]) -> None:
    try:
        truth = truths[interface].result()
    except MissingServerError as exc:
        do_without(exc)
    assert not truth.wrong, truth.wrong[:10]
    assert truth.asked > 0
