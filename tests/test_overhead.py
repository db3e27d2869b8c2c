"""What healthmw costs, in function calls: they are the same on a busy machine, and on a fast one.

Beside what is written by hand for the same purpose, and with wide margins. How much that is in time
is measured by `make bench`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any, Self

import pytest

from benchmarks._in_process import (
    AsgiByHand,
    WsgiByHand,
    asgi_app,
    serve_asgi,
    serve_wsgi,
    wsgi_app,
)
from healthmw import CircuitBreaker, Health, asgi, wsgi

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = "/health_check"
ELSEWHERE = "/orders/7"
INTERFACES: dict[str, tuple[Any, Any, Any, Any]] = {
    "asgi": (serve_asgi, asgi_app, AsgiByHand, asgi.HealthMiddleware),
    "wsgi": (serve_wsgi, wsgi_app, WsgiByHand, wsgi.HealthMiddleware),
}
both = pytest.mark.parametrize("interface", INTERFACES)


class Calls:
    """Counts the functions called in this thread, in Python and in C, inside of a block."""

    def __init__(self) -> None:
        self.counted = 0

    def __enter__(self) -> Self:
        gc.disable()  # who is told of a collection is called, too
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        gc.enable()

    def _count(self, _frame: object, event: str, _arg: object) -> None:
        self.counted += event in {"call", "c_call"}


def calls(run: Callable[[], object]) -> int:
    with Calls() as calls:
        run()
    return calls.counted


def calls_each(run: Callable[[int], object]) -> float:
    """Return the calls of one of many, once whatever happens only once has happened."""
    run(5)
    return (calls(lambda: run(110)) - calls(lambda: run(10))) / 100


def health_of(number: int, **options: Any) -> Health:
    async def well() -> None:
        await asyncio.sleep(0)

    health = Health(**options)
    for n in range(number):
        health.add(f"check_{n}", well)
    return health


@both
def test_a_request_that_passes_through_costs_little_more_than_by_hand(interface: str) -> None:
    serve, app, by_hand, middleware = INTERFACES[interface]
    bare = calls_each(serve(app, ELSEWHERE))
    least = calls_each(serve(by_hand(app, PATH), ELSEWHERE)) - bare
    ours = calls_each(serve(middleware(app, health_of(10)), ELSEWHERE)) - bare
    assert least >= 1
    assert ours <= least + 2  # the app's two messages are looked at, and no more


@both
def test_an_answer_from_memory_costs_the_same_whatever_is_behind_it(interface: str) -> None:
    serve, app, by_hand, middleware = INTERFACES[interface]
    least = calls_each(serve(by_hand(app, PATH), PATH))
    found = []
    for number in (1, 100):
        health = health_of(number, max_age=3600)
        health.run_sync()
        found.append(calls_each(serve(middleware(app, health), PATH)) - least)
    assert found[0] == found[1]
    assert found[0] <= 35


def shared(health: Health, callers: int) -> float:
    """Return the calls of each of so many callers who find nothing that may be served."""
    app = asgi.HealthMiddleware(asgi_app, health)
    scope = {
        "type": "http",
        "method": "GET",
        "path": PATH,
        "query_string": b"",
        "headers": [(b"accept", b"*/*")],
    }
    statuses = []
    nothing: Any = None

    async def send(message: Any) -> None:
        if "status" in message:
            statuses.append(message["status"])

    async def ask() -> None:
        await app(dict(scope), nothing, send)

    async def main() -> int:
        await asyncio.gather(*(ask() for _ in range(callers)))
        loop = asyncio.get_running_loop()
        begun = [loop.create_task(ask()) for _ in range(callers)]
        with Calls() as calls:  # whatever the loop does meanwhile
            await asyncio.gather(*begun)
        return calls.counted

    counted = asyncio.run(main())
    assert statuses == [200] * 2 * callers
    return counted / callers


def test_those_who_wait_for_the_same_runs_share_the_answer() -> None:
    one, many = (shared(health_of(3, max_age=0), callers) for callers in (1, 50))
    # One reads what is asked for, runs the checks and renders what they find; the others wait.
    assert many < one / 2


def test_what_a_check_costs_does_not_grow_with_their_number() -> None:
    few, many = (shared(health_of(number, max_age=0), 1) / number for number in (30, 300))
    assert many < few * 1.5


def test_a_closed_guard_costs_a_handful_of_calls() -> None:
    health = Health()
    check = health.add("it", lambda: None, breaker=CircuitBreaker())

    def call() -> None:
        """Be guarded."""

    guarded = check.guard()(call)

    def run(function: Callable[[], None], times: int) -> None:
        for _ in range(times):
            function()

    added = calls_each(lambda n: run(guarded, n)) - calls_each(lambda n: run(call, n))
    assert added <= 6
