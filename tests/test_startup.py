from __future__ import annotations

import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from healthmw import Health
from healthmw.asgi import HealthApp, HealthMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from healthmw.asgi import ASGIApp

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
NEVER = 3600.0


class Database:
    """A probe that fails until it is told to pass. It counts its runs, and tells of each."""

    def __init__(self) -> None:
        self.up = False
        self.runs = 0
        self.ran = anyio.Event()

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs == 3:
            self.ran.set()
        if not self.up:
            raise ConnectionError("password=hunter2")


class Server:
    """What a server does with the lifespan of an app."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.told = anyio.Event()
        self._to_app, self._received = anyio.create_memory_object_stream[Any](2)

    async def receive(self) -> Any:
        return await self._received.receive()

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.told.set()

    async def live(self, app: Any) -> None:
        """Start `app`; have it stop once it has said whether it started."""
        with anyio.fail_after(PATIENCE), self._to_app, self._received:
            async with anyio.create_task_group() as group:
                group.start_soon(app, {"type": "lifespan", "state": {}}, self.receive, self.send)
                await self._to_app.send({"type": "lifespan.startup"})
                await self.told.wait()
                if self.kinds == ["lifespan.startup.complete"]:
                    await self._to_app.send({"type": "lifespan.shutdown"})

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]


def living(log: list[str]) -> ASGIApp:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        log.append("app starts")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        log.append("app stops")
        await send({"type": "lifespan.shutdown.complete"})

    return app


@pytest.mark.parametrize("interval", [None, 3600])
@pytest.mark.parametrize("alone", [False, True])
async def test_an_app_has_not_started_before_its_checks_pass(
    interval: float | None, *, alone: bool
) -> None:
    health, database, server = Health(max_age=NEVER), Database(), Server()
    health.add("database", database, interval=interval)
    log: list[str] = []
    app: ASGIApp = (
        HealthApp(health, startup_timeout=NEVER)
        if alone
        else HealthMiddleware(living(log), health, startup_timeout=NEVER)
    )

    async with anyio.create_task_group() as group:
        group.start_soon(server.live, app)
        with anyio.fail_after(PATIENCE):
            await database.ran.wait()
        assert server.sent == []
        database.up = True

    assert server.kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert log == ([] if alone else ["app starts", "app stops"])


class Lifeless:
    """An app that knows of no lifespan: it raises, or does nothing. Servers go on without one."""

    def __init__(self, *, raises: bool) -> None:
        self.error = ValueError("no lifespan: password=hunter2") if raises else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_without_a_lifespan_is_held_back_as_well(*, raises: bool) -> None:
    health, database, lifeless = Health(), Database(), Lifeless(raises=raises)
    health.add("database", database)
    app = HealthMiddleware(lifeless, health, startup_timeout=NEVER)
    ended: list[Exception | None] = []

    async def no_message(*said: Any) -> Any:
        pytest.fail(f"there is nothing to say or to hear: {said}")

    async def serve() -> None:
        try:
            await app({"type": "lifespan"}, no_message, no_message)
            ended.append(None)
        except ValueError as exc:
            ended.append(exc)

    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        with anyio.fail_after(PATIENCE):
            await database.ran.wait()
        assert not ended
        database.up = True
    assert ended == [lifeless.error]


@pytest.mark.parametrize("raises", [True, False])
async def test_an_app_without_a_lifespan_that_is_not_ready_fails_to_start(
    caplog: pytest.LogCaptureFixture, *, raises: bool
) -> None:
    health, server = Health(), Server()
    health.add("database", Database())
    lifeless = Lifeless(raises=raises)
    await server.live(HealthMiddleware(lifeless, health, startup_timeout=0.05))
    (message,) = server.sent
    assert message["message"].startswith("healthmw: not ready to start after 0.05 s: database (")
    # It may have been the app's own failure.
    assert ("ValueError: no lifespan: password=***" in caplog.text) is raises
    assert "hunter2" not in caplog.text


async def test_an_app_that_takes_a_lifespan_for_a_request_has_none_either() -> None:
    health = Health()
    health.add("database", Database())
    told: list[str] = []
    receive: Any = anyio.sleep_forever

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        assert message["type"].startswith("lifespan."), "as uvicorn has it"
        told.append(message["type"])

    app = HealthMiddleware(hello, health, startup_timeout=0.05)
    await app({"type": "lifespan"}, receive, send)
    assert told == ["lifespan.startup.failed"]


@pytest.mark.parametrize("raises", [True, False])
async def test_what_is_wrong_with_its_groups_is_found_out_without_a_lifespan_too(
    *, raises: bool
) -> None:
    health, server = Health(), Server()
    health.add("database", lambda: None)
    health.group("mine", checks=["databsae"])
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="group 'mine' names 'databsae'")):
        await server.live(HealthMiddleware(Lifeless(raises=raises), health, startup_timeout=NEVER))
    assert server.kinds == ["lifespan.startup.failed"]


async def test_an_app_that_has_said_that_it_failed_may_raise_besides() -> None:
    health, database, server = Health(), Database(), Server()
    health.add("database", database)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no licence"})
        raise LookupError("no licence")

    with pytest.RaisesGroup(LookupError):
        await server.live(HealthMiddleware(app, health, startup_timeout=NEVER))
    assert server.kinds == ["lifespan.startup.failed"]
    assert database.runs == 0


async def test_without_the_option_nobody_waits() -> None:
    health, database, server = Health(), Database(), Server()
    health.add("database", database)
    await server.live(HealthMiddleware(living([]), health))
    assert server.kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert database.runs == 0


@pytest.mark.parametrize("alone", [False, True])
async def test_an_app_that_is_not_ready_in_time_fails_to_start_and_says_why(*, alone: bool) -> None:
    health, server = Health(), Server()
    health.add("database", Database())
    health.add("mail", Database(), critical=False)
    health.add("disk", lambda: None)
    log: list[str] = []
    app: ASGIApp = (
        HealthApp(health, startup_timeout=0.5)
        if alone
        else HealthMiddleware(living(log), health, startup_timeout=0.5)
    )

    await server.live(app)

    (message,) = server.sent
    assert message == {
        "type": "lifespan.startup.failed",
        "message": "healthmw: not ready to start after 0.5 s: database (failed)",
    }
    assert log == ([] if alone else ["app starts", "app stops"]), "it closes what it opened"


async def test_a_check_that_hangs_does_not_hold_up_the_end() -> None:
    health, server = Health(), Server()
    health.add("database", anyio.sleep_forever, timeout=NEVER)

    await server.live(HealthMiddleware(living([]), health, startup_timeout=0.05))

    (message,) = server.sent
    assert message["message"].endswith("database (timeout)")


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that the server's own handlers were called for."""
    monkeypatch.delitem(sys.modules, "gunicorn.arbiter", raising=False)
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _frame: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_ends_the_wait(number: signal.Signals, handled: list[int]) -> None:
    health, server, began = Health(), Server(), anyio.Event()
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]

    @health.probe("database", timeout=NEVER)
    async def database() -> None:
        began.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(server.live, HealthMiddleware(living([]), health, startup_timeout=NEVER))
        await began.wait()
        signal.raise_signal(number)

    (message,) = server.sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"] == f"healthmw: stopped by {number.name} before it was ready to start"
    assert handled == [number], "the server hears of it, too"
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == handlers


@pytest.mark.usefixtures("handled")
async def test_a_handler_that_is_set_meanwhile_stays() -> None:
    health, server = Health(), Server()
    health.add("it", lambda: None)

    def new(_number: int, _frame: object) -> None: ...

    @health.probe("sets-it")
    async def sets_it() -> None:
        signal.signal(signal.SIGTERM, new)

    await server.live(HealthMiddleware(living([]), health, startup_timeout=PATIENCE))
    assert signal.getsignal(signal.SIGTERM) is new


@pytest.mark.usefixtures("handled")
async def test_gunicorn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends as a whole for a worker that it stops before that has started."""
    monkeypatch.setitem(sys.modules, "gunicorn.arbiter", ModuleType("gunicorn.arbiter"))
    health, server, handler, seen = Health(), Server(), signal.getsignal(signal.SIGTERM), []

    @health.probe("it")
    async def it() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    await server.live(HealthMiddleware(living([]), health, startup_timeout=PATIENCE))
    assert seen == [handler]


async def test_a_gate_in_another_thread_sets_no_handlers() -> None:
    async def start() -> list[str]:
        health, server = Health(), Server()
        health.add("it", lambda: None)
        await server.live(HealthMiddleware(living([]), health, startup_timeout=PATIENCE))
        return server.kinds

    kinds = await anyio.to_thread.run_sync(anyio.run, start)
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize(
    ("asked", "max_age", "told"),
    [
        ("startup", 0, None),
        ("late", 60, None),
        ("late", 0, "not ready to start after 0.5 s: what has passed is too long ago to count"),
    ],
)
async def test_what_counts_meanwhile_is_what_the_next_reader_would_be_told(
    asked: str, max_age: float, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two rounds somebody else asks: for all of it, or for the check that has failed."""
    health, server, early, late = Health(max_age=max_age), Server(), Database(), Database()
    health.add("early", early)
    health.add("late", late)
    early.up = True

    async def pause(_seconds: float) -> None:
        monkeypatch.undo()
        late.up = True
        assert (await health.run(asked, fresh=True)).ok
        await anyio.sleep_forever()

    monkeypatch.setattr("healthmw._startup.anyio.sleep", pause)
    await server.live(HealthMiddleware(living([]), health, startup_timeout=0.5))

    assert health.last("startup").ok
    if told is None:
        assert server.kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    else:
        message = f"healthmw: {told}"
        assert server.sent == [{"type": "lifespan.startup.failed", "message": message}]


async def test_no_check_can_pass_so_nobody_waits_for_it() -> None:
    server = Server()
    await server.live(HealthMiddleware(living([]), Health(), startup_timeout=NEVER))
    (message,) = server.sent
    assert message["message"] == "healthmw: not ready to start: no check is registered"


def unclean(words: str) -> ASGIApp:
    """Return an app that starts, and raises as it cleans up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError(words)

    return app


async def test_an_app_that_fails_to_clean_up_has_failed_to_start_all_the_same() -> None:
    """A server that sees an exception alone may take it that the app knows no lifespan."""
    health, server = Health(), Server()
    health.add("database", Database())

    app = unclean("the pool is in use")
    await server.live(HealthMiddleware(app, health, startup_timeout=0.05))

    assert server.kinds == ["lifespan.startup.failed"]


async def test_what_the_app_raises_as_it_cleans_up_is_logged_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health, server = Health(), Server()
    health.add("database", Database())

    app = unclean("can't leave postgresql://shop:hunter2@db/shop")
    await server.live(HealthMiddleware(app, health, startup_timeout=0.05))

    assert "the app raised while it closed what it had opened" in caplog.text
    assert "postgresql://shop:***@db/shop" in caplog.text
    assert "hunter2" not in caplog.text


async def test_that_it_failed_to_start_is_the_last_that_a_server_hears() -> None:
    """One that takes it for the end of the app's life must not find it still busy (hypercorn)."""
    health, server, log = Health(), Server(), list[str]()
    health.add("database", Database())
    await server.live(HealthMiddleware(living(log), health, startup_timeout=0.05))
    assert log[-1] == "app stops"
    assert server.kinds == ["lifespan.startup.failed"]


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("5", TypeError), (True, TypeError)]
)
async def test_the_timeout_is_a_time(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^startup_timeout"):
        HealthMiddleware(living([]), Health(), startup_timeout=value)
    with pytest.raises(error, match=r"^startup_timeout"):
        HealthApp(Health(), startup_timeout=value)
