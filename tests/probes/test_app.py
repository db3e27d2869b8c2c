"""Probes of the app itself: its settings, its warm-up, its event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVarTuple

import anyio
import pytest

from healthmw import Degraded, Health
from healthmw.exceptions import ProbeFailedError
from healthmw.probes import EventLoopProbe, Latch, SettingsProbe
from tests.waiting import PATIENCE, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Ts = TypeVarTuple("Ts")

# Settings


def test_settings_that_are_there_and_can_be_parsed() -> None:
    source: dict[str, Any] = {
        "URL": "postgresql://app:hunter2@db/shop",
        "PORT": "8000",
        "DEBUG": "off",
        "SINCE": "2026-01-01",
        "EXTRA": "[1, 2]",
        "ANSWER": 42,
    }
    SettingsProbe(
        {"URL": str, "PORT": int, "DEBUG": bool, "SINCE": datetime.fromisoformat, "ANSWER": int},
        optional={"EXTRA": json.loads, "MISSING": int},
        source=source,
    )()
    SettingsProbe(["URL", "PORT"], source=source)()


def test_settings_that_are_not_are_all_named_and_no_value_is() -> None:
    source = {"URL": "", "PORT": "hunter2", "DEBUG": "hunter2", "EXTRA": "hunter2"}
    probe = SettingsProbe(
        {"URL": str, "PORT": int, "DEBUG": bool, "KEY": str},
        optional={"EXTRA": json.loads, "OTHER": str},
        source=source,
    )
    with pytest.raises(ProbeFailedError) as info:
        probe()
    assert str(info.value) == (
        "URL is missing; PORT is not a valid int; DEBUG is not a valid bool; KEY is missing;"
        " EXTRA is not a valid loads"
    )
    assert info.value.__cause__ is info.value.__context__ is None
    assert "hunter2" not in repr(probe)
    source |= {"URL": "x", "PORT": "1", "DEBUG": "True", "KEY": "y", "EXTRA": "1"}
    probe()


def test_the_environment_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEALTHMW_TEST_PORT", raising=False)
    probe = SettingsProbe({"HEALTHMW_TEST_PORT": int})
    with pytest.raises(ProbeFailedError, match="HEALTHMW_TEST_PORT is missing"):
        probe()
    monkeypatch.setenv("HEALTHMW_TEST_PORT", "80")
    probe()
    assert repr(probe) == "<SettingsProbe HEALTHMW_TEST_PORT>"
    assert probe.needs == ("HEALTHMW_TEST_PORT",)


def test_an_object_may_have_the_settings() -> None:
    settings = SimpleNamespace(DEBUG=False, ALLOWED_HOSTS=["*"])
    SettingsProbe({"DEBUG": bool, "ALLOWED_HOSTS": list}, source=settings)()
    with pytest.raises(ProbeFailedError, match="SECRET_KEY is missing"):
        SettingsProbe(["SECRET_KEY"], source=settings)()


@pytest.mark.parametrize("empty", [[], (), {}, frozenset(), b""])
def test_what_is_empty_is_missing_of_whatever_kind(empty: object) -> None:
    settings = SimpleNamespace(ALLOWED_HOSTS=empty)
    with pytest.raises(ProbeFailedError, match="ALLOWED_HOSTS is missing"):
        SettingsProbe(["ALLOWED_HOSTS"], source=settings)()
    with pytest.raises(ProbeFailedError, match="ALLOWED_HOSTS is missing"):
        SettingsProbe({"ALLOWED_HOSTS": type(empty)}, source=settings)()
    SettingsProbe((), optional=["ALLOWED_HOSTS"], source=settings)()


@pytest.mark.parametrize(
    ("required", "error"), [({}, ValueError), ("PORT", TypeError), ({"PORT": 5}, TypeError)]
)
def test_bad_settings(required: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="required"):
        SettingsProbe(required)


# Latch


@pytest.mark.anyio
async def test_a_latch_waits_for_all_its_parts() -> None:
    warm = Latch("prices", "model")
    with pytest.raises(ProbeFailedError, match="still to come: prices, model"):
        await warm()
    warm.set("model")
    assert not warm.is_set
    with pytest.raises(ProbeFailedError, match=r"still to come: prices$"):
        await warm()
    thread = threading.Thread(target=warm.set, args=["prices"])
    thread.start()
    thread.join()
    assert warm.is_set
    await warm()
    assert repr(warm) == "Latch('prices', 'model')"


@pytest.mark.anyio
async def test_a_latch_of_one() -> None:
    warm = Latch()
    with pytest.raises(ProbeFailedError, match="not set"):
        await warm()
    warm.set()
    await warm()
    assert repr(warm) == "Latch()"


def test_parts_are_known() -> None:
    with pytest.raises(ValueError, match="part='modle' is not one of this latch: model"):
        Latch("model").set("modle")
    with pytest.raises(ValueError, match=r"part='x' .*: none: call set"):
        Latch().set("x")
    with pytest.raises(ValueError, match="parts must be names"):
        Latch("")


@pytest.mark.anyio
async def test_startup_stays_passed_once_it_is_set() -> None:
    warm = Latch("model")
    health = Health(max_age=0)
    health.add("warm", warm)
    report = await health.run("startup")
    assert not report.ok
    assert report.results["warm"].detail == "still to come: model"
    warm.set("model")
    assert (await health.run("startup")).ok


# Event loop


async def lag(probe: EventLoopProbe) -> tuple[float, str]:
    with anyio.fail_after(PATIENCE):
        found = await probe()
    if isinstance(found, Degraded):
        return float(found.measurements["lag_seconds"]), found.detail
    return float(found["lag_seconds"]), ""


def block(seconds: float) -> None:
    threading.Event().wait(seconds)


@pytest.mark.anyio
async def test_a_loop_that_is_free() -> None:
    probe = EventLoopProbe(degraded_above=PATIENCE)
    assert 0 <= (await lag(probe))[0] < PATIENCE
    await probe.aclose()
    assert repr(probe) == "<EventLoopProbe>"


@pytest.mark.anyio
async def test_what_blocked_it_is_named() -> None:
    probe = EventLoopProbe(degraded_above=0.5)
    await lag(probe)
    block(0.9)  # in this very task
    seconds, words = await lag_of_at_least(probe, 0.5)
    assert seconds < PATIENCE
    assert words.startswith("the event loop was blocked for ")
    assert f"in block() at {__file__}:" in words
    await probe.aclose()


async def lag_of_at_least(probe: EventLoopProbe, seconds: float) -> tuple[float, str]:
    give_up = time.monotonic() + PATIENCE
    while (found := await lag(probe))[0] < seconds:
        assert time.monotonic() < give_up
        await anyio.sleep(0.01)
    return found


@pytest.mark.anyio
async def test_so_is_the_check_that_did() -> None:
    async def careless() -> None:
        block(0.9)

    probe = EventLoopProbe(degraded_above=0.5)
    await lag(probe)
    health = Health()
    health.add("careless", careless, timeout=PATIENCE)
    await health.run()
    _, words = await lag_of_at_least(probe, 0.5)
    assert f"by the check careless in block() at {__file__}:" in words
    await probe.aclose()


@pytest.mark.anyio
async def test_it_fails_where_asked_to_and_forgets_in_time() -> None:
    probe = EventLoopProbe(failed_above=0.5, window=1.5)
    await lag(probe)
    block(0.7)
    give_up = time.monotonic() + PATIENCE
    failed = False
    while not failed:
        try:
            await lag(probe)
        except ProbeFailedError:
            failed = True
        assert time.monotonic() < give_up
        await anyio.sleep(0.01)
    while failed:
        await anyio.sleep(0.01)
        try:
            await lag(probe)
        except ProbeFailedError:
            assert time.monotonic() < give_up
        else:
            failed = False
    await probe.aclose()


def test_the_end_of_a_loop_ends_its_watch() -> None:
    before = threading.active_count()
    for backend in ("asyncio", "trio"):
        anyio.run(EventLoopProbe(degraded_above=PATIENCE), backend=backend)
    until_sync(lambda: threading.active_count() <= before)


def test_a_loop_that_ends_without_a_word_ends_it_too() -> None:
    before = threading.active_count()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(EventLoopProbe(degraded_above=PATIENCE)())
    assert threading.active_count() == before + 1
    loop.close()
    until_sync(lambda: threading.active_count() == before)


def test_a_loop_that_stands_still_is_asked_for_one_sign_of_life_and_no_more() -> None:
    class Loop(asyncio.SelectorEventLoop):
        """Counts how often it is asked, and how often it is looked at."""

        asked = looked_at = 0

        def call_soon_threadsafe(
            self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
        ) -> asyncio.Handle:
            self.asked += 1
            return super().call_soon_threadsafe(callback, *args, context=context)

        def is_closed(self) -> bool:
            self.looked_at += 1
            return super().is_closed()

    loop = Loop()
    probe = EventLoopProbe(degraded_above=PATIENCE)
    loop.run_until_complete(probe())
    asked, looked_at = loop.asked, loop.looked_at
    until_sync(lambda: loop.asked > asked + 1 or loop.looked_at > looked_at + 5)
    assert loop.asked <= asked + 1
    loop.run_until_complete(probe.aclose())
    loop.close()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: EventLoopProbe(window=0), "window=0 must be"),
        (lambda: EventLoopProbe(degraded_above=2, failed_above=1), "degraded_above=2 is more"),
    ],
)
def test_bad_options(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
