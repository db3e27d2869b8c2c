"""Where jitter comes from: not from the app's own random numbers, nor alike in each process."""

from __future__ import annotations

import os
import random

import pytest

from healthmw import CircuitBreaker, Health
from healthmw.testing import ScriptedProbe
from tests.programs import run_program
from tests.waiting import until


@pytest.mark.anyio
async def test_an_apps_own_random_numbers_are_left_alone() -> None:
    random.seed(42)
    before = random.getstate()
    search = ScriptedProbe()
    breaker = CircuitBreaker(consecutive_failures=1)
    health = Health()
    health.add("payments", ScriptedProbe(ConnectionError()), breaker=breaker)
    health.add("search", search, interval=0.01)
    async with health:
        await health.run()
        await until(lambda: search.calls > 2)
    assert breaker.retry_after
    assert random.getstate() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_processes_that_were_seeded_alike_or_forked_from_one_try_again_at_different_times() -> None:
    waits = run_program(
        """
import random
waits = []
for _ in range(8):
    reader, writer = os.pipe()
    if os.fork() == 0:
        random.seed(42)
        breaker = CircuitBreaker(consecutive_failures=1, jitter=0.5, clock=lambda: 0.0)
        breaker.try_acquire().failure()
        os.write(writer, repr(breaker.retry_after).encode())
        os._exit(0)
    os.close(writer)
    waits.append(os.read(reader, 100).decode())
    os.wait()
print(len(set(waits)))
"""
    )
    assert waits == "8\n"
