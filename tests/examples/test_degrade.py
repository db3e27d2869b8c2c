"""An outage of the payments service, short, as customers of the examples see it."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from benchmarks._outage import METHODS, PAGE, QUICK, Outage, phases, run
from benchmarks.degrade import failures

if TYPE_CHECKING:
    from pathlib import Path

DOWNSTREAM_TIMEOUT = 1.0  # seconds, of the examples' own client
FALLBACK = '["invoice"]'


@pytest.fixture(params=["fastapi", "flask"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Outage:
    return run(request.param, tmp_path, plan=QUICK)


def test_customers_are_served_while_a_service_hangs_and_dies_and_comes_back(
    outage: Outage,
) -> None:
    assert failures(outage) == []
    by_phase = dict(phases(outage))
    empty = [name for name, replies in by_phase.items() if not replies]
    assert set(empty) <= {"back, open"}  # it may be noticed that soon
    assert all(reply.status == 200 for reply in outage.replies)

    # Every phase was what it is taken for. On a machine that is busy, `max_concurrent=` may refuse
    # a few while all is well.
    offers = {
        name: Counter("".join(reply.body.split()) for reply in replies if reply.path == METHODS)
        for name, replies in by_phase.items()
    }
    for name in ("healthy", "recovered"):
        assert offers[name].most_common(1)[0][0] == '["card","paypal","invoice"]'
    for name in ("paused, open", "killed, open"):
        assert set(offers[name]) == {FALLBACK}
    for name in ("paused, open", "killed, open"):
        said = {reply.health for reply in by_phase[name] if reply.path == PAGE}
        assert said == {"degraded"}
    assert outage.trials_that_failed >= 1  # there was something that a customer could have met

    # While it is asked, the service is waited for; once the circuit is open, it is not.
    waited = [reply.took for reply in by_phase["paused, closed"] if reply.path == METHODS]
    assert max(waited) >= DOWNSTREAM_TIMEOUT
    for path in (METHODS, PAGE):
        took = [reply.took for reply in by_phase["paused, open"] if reply.path == path]
        assert statistics.quantiles(took, n=8)[-1] < DOWNSTREAM_TIMEOUT / 2
