"""Draining, in this process: what a server's own handler of SIGTERM gets to see, and when."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from healthmw import Health, Status, asgi, wsgi
from tests.broken_log import broken_log
from tests.transports import ask_wsgi
from tests.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DELAY = 0.3


class Recorder:
    """A server's handler."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, float, threading.Thread]] = []

    def __call__(self, number: int, frame: object) -> None:
        self.calls.append((number, time.monotonic(), threading.current_thread()))


@pytest.fixture
def server() -> Iterator[Recorder]:
    recorder = Recorder()
    before = signal.signal(signal.SIGTERM, recorder)
    yield recorder
    signal.signal(signal.SIGTERM, before)


def hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def well() -> Health:
    health = Health()
    health.add("it", lambda: None)
    return health


def term() -> float:
    began = time.monotonic()
    os.kill(os.getpid(), signal.SIGTERM)
    return began


def in_child(check: Callable[[], bool]) -> bool:
    """Return what `check` finds in a child; False when it raises there. The child ends here."""
    child = os.fork()
    if not child:
        found = False
        try:
            found = check()
        finally:
            os._exit(0 if found else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("alone", [False, True])
def test_the_servers_handler_is_called_after_the_delay(server: Recorder, *, alone: bool) -> None:
    health = well()
    app: Any = (
        wsgi.HealthApp(health, drain_delay=DELAY)
        if alone
        else wsgi.HealthMiddleware(hello, health, drain_delay=DELAY)
    )
    assert ask_wsgi(app, path="/health_check").body == b"OKAY"

    began = term()

    until_sync(lambda: health.draining)
    assert ask_wsgi(app, path="/health_check").body == b"FAILED: draining"
    assert ask_wsgi(app, path="/health_check/live").body == b"OKAY"
    until_sync(lambda: server.calls)
    ((number, called, thread),) = server.calls
    assert number == signal.SIGTERM
    assert called - began >= DELAY
    assert thread is threading.main_thread()
    term()
    until_sync(lambda: len(server.calls) == 2)  # from now on it is the server's alone


def test_no_delay_is_a_delay_too(server: Recorder) -> None:
    health = well()
    app = wsgi.HealthMiddleware(hello, health, drain_delay=0)
    term()
    until_sync(lambda: server.calls)
    assert ask_wsgi(app, path="/health_check").body == b"FAILED: draining"


def test_without_the_option_the_handler_is_left_alone(server: Recorder) -> None:
    wsgi.HealthMiddleware(hello, well())
    assert signal.getsignal(signal.SIGTERM) is server


def test_a_server_under_trial_does_not_drain(
    server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEALTHMW_SMOKE", "1")
    wsgi.HealthMiddleware(hello, well(), drain_delay=3600)
    assert signal.getsignal(signal.SIGTERM) is server


def test_where_the_server_has_no_handler_the_process_ends_as_ever() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before is signal.SIG_DFL
    app = wsgi.HealthMiddleware(hello, well(), drain_delay=DELAY)
    ask_wsgi(app, path="/health_check")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_first_request_will_do_where_the_handler_was_set_later() -> None:
    health = well()
    app = wsgi.HealthMiddleware(hello, health, drain_delay=DELAY)

    def serves_and_drains() -> bool:
        server = Recorder()
        signal.signal(signal.SIGTERM, server)
        ask_wsgi(app, path="/health_check")
        term()
        until_sync(lambda: server.calls)
        return health.draining

    # As where the app was made before a fork: nothing that stands is of this process.
    assert in_child(serves_and_drains)


def test_where_there_was_no_thread_to_be_had_the_first_request_tries_again(
    server: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    health = well()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        app = wsgi.HealthMiddleware(hello, health, drain_delay=DELAY)
    ask_wsgi(app, path="/health_check")
    term()
    until_sync(lambda: server.calls)
    assert health.draining


def test_another_thread_can_do_nothing(server: Recorder) -> None:
    app = wsgi.HealthMiddleware

    thread = threading.Thread(target=app, args=(hello, well()), kwargs={"drain_delay": DELAY})
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is server


def test_a_child_that_the_app_forks_ends_at_once(server: Recorder) -> None:
    kept = wsgi.HealthMiddleware(hello, well(), drain_delay=DELAY)

    def ends_at_once() -> bool:
        term()
        until_sync(lambda: server.calls)
        return not kept.health.draining

    assert in_child(ends_at_once)


def test_one_server_after_another_in_one_process(server: Recorder) -> None:
    first = wsgi.HealthMiddleware(hello, well(), drain_delay=DELAY)
    replaced = signal.getsignal(signal.SIGTERM)
    assert callable(replaced)
    later = Recorder()
    signal.signal(signal.SIGTERM, later)
    second = wsgi.HealthMiddleware(hello, well(), drain_delay=DELAY)

    term()
    until_sync(lambda: later.calls)
    assert (first.health.draining, second.health.draining) == (True, True)
    assert server.calls == []

    replaced(signal.SIGTERM, None)  # as one does who had kept it, to call it in turn
    assert len(server.calls) == 1


class Broken(Health):
    def drain(self) -> None:
        raise RuntimeError("can't tell redis://:hunter2@cache")


def test_whatever_happens_the_server_gets_its_signal(
    server: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    kept = wsgi.HealthMiddleware(hello, Broken(), drain_delay=DELAY)
    term()
    until_sync(lambda: server.calls)
    assert "draining failed" in caplog.text
    assert "redis://:***@cache" in caplog.text
    assert "hunter2" not in caplog.text
    assert kept.health.draining is False


def test_one_that_can_not_drain_keeps_no_other_from_it(server: Recorder) -> None:
    healths = well(), Broken(), well()
    kept = [wsgi.HealthMiddleware(hello, health, drain_delay=DELAY) for health in healths]
    began = term()
    until_sync(lambda: server.calls)
    assert [app.health.draining for app in kept] == [True, False, True]
    assert server.calls[0][1] - began >= DELAY


def test_a_log_that_breaks_down_keeps_no_signal_from_the_server(
    server: Recorder, breakdowns: list[BaseException]
) -> None:
    health, heard = well(), list[Status]()
    health.subscribe(lambda event: heard.append(event.new))
    kept = [
        wsgi.HealthMiddleware(hello, one, drain_delay=DELAY) for one in (Broken(), health, well())
    ]
    with broken_log():
        began = term()
        until_sync(lambda: server.calls)
        assert server.calls[0][1] - began >= DELAY
        assert [app.health.draining for app in kept] == [False, True, True]
        until_sync(lambda: heard == [Status.FAILED])
    assert {type(told) for told in breakdowns} == {ZeroDivisionError}
    breakdowns.clear()


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (float("inf"), ValueError), ("5", TypeError)]
)
@pytest.mark.parametrize("module", [asgi, wsgi])
def test_the_delay_is_a_time(module: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^drain_delay"):
        module.HealthMiddleware(hello, Health(), drain_delay=value)
    with pytest.raises(error, match=r"^drain_delay"):
        module.HealthApp(Health(), drain_delay=value)


async def start(health: Health) -> asyncio.Task[None]:
    """Begin the life of an app, as a server does."""
    started = asyncio.Event()
    first = True

    async def receive() -> Any:
        nonlocal first
        if not first:
            await asyncio.Event().wait()
        first = False
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        started.set()

    app = asgi.HealthApp(health, drain_delay=DELAY)
    life = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    await started.wait()
    return life


async def end(life: asyncio.Task[None]) -> None:
    life.cancel()
    await asyncio.wait([life])


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_a_loop_hears_is_put_off_too(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        loop, health, calls = asyncio.get_running_loop(), well(), list[float]()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: calls.append(time.monotonic()))
        life = await start(health)

        began = term()

        await until(lambda: health.draining)
        await until(lambda: calls)
        assert calls[0] - began >= DELAY
        await end(life)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
        runner.run(main())  # a second server in the same process, on the same loop


def test_a_server_that_means_something_else_by_int_is_not_told_int(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        loop, health, terms = asyncio.get_running_loop(), well(), list[int]()
        loop.add_signal_handler(signal.SIGTERM, lambda: terms.append(1))
        life = await start(health)
        term()
        await until(lambda: terms)
        assert not health.draining
        await end(life)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert "drain_delay has no effect here" in caplog.text
