"""What may serve as a probe, and what its return values mean."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, Mock

import pytest

from healthmw import Degraded, Health, Reason, Result, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

pytestmark = pytest.mark.anyio


async def outcome(probe: Any) -> Result:
    health = Health()
    health.add("it", probe)
    return (await health.run("it")).results["it"]


class Client:
    """A client as apps have it: with methods of both kinds."""

    def __init__(self) -> None:
        self.asked = 0

    def ping(self) -> str:
        self.asked += 1
        return "PONG"

    async def ping_async(self) -> str:
        return self.ping()

    def __call__(self) -> None:
        self.ping()

    def close(self) -> None:
        raise AssertionError("a client is the app's own to close")


class AsyncClient(Client):
    async def __call__(self) -> None:  # type: ignore[override]
        self.ping()


async def wants_an_argument(client: Client) -> None:
    client.ping()


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.ping,
        lambda client: client.ping_async,
        lambda client: lambda: client.ping(),  # noqa: PLW0108 - a lambda is what is tested
        lambda client: lambda: client.ping_async(),  # noqa: PLW0108 - the same
        lambda client: functools.partial(wants_an_argument, client),
        lambda client: functools.partial(functools.partial(Client.ping, client)),
        lambda client: client,
        AsyncClient.__call__.__get__,
    ],
    ids=[
        "bound method",
        "async bound method",
        "lambda",
        "lambda of an async call",
        "partial of an async function",
        "partial of a partial",
        "instance",
        "async __call__",
    ],
)
async def test_any_callable_is_a_probe(make: Callable[[Client], Any]) -> None:
    client = Client()
    result = await outcome(make(client))
    assert (result.status, result.reason) == (Status.OKAY, Reason.OKAY)
    assert client.asked == 1


async def test_an_instance_with_an_async_call_is_a_probe() -> None:
    client = AsyncClient()
    assert (await outcome(client)).ok
    assert client.asked == 1


@pytest.mark.parametrize("make", [Mock, AsyncMock])
async def test_mocks_serve_in_users_tests(make: Callable[..., Any]) -> None:
    assert (await outcome(make(return_value=None))).ok
    result = await outcome(make(side_effect=ConnectionError("refused")))
    assert result.detail == "ConnectionError: refused"


async def test_a_builtin_without_a_signature_is_taken_on_trust() -> None:
    assert (await outcome(time.time)).ok
    result = await outcome(iter)  # wants an argument, and doesn't say so
    assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
    assert "TypeError" in result.detail


@pytest.mark.parametrize("declared", [True, False])
async def test_a_probe_may_say_where_it_is_to_be_called(declared: bool) -> None:
    threads: list[int] = []

    async def rest() -> None:
        threads.append(threading.get_ident())

    def probe() -> Awaitable[None]:  # it looks sync, and its call might need the event loop
        threads.append(threading.get_ident())
        return rest()

    probe.is_async = declared  # type: ignore[attr-defined]
    assert (await outcome(probe)).ok
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [declared, True]


def sync_generator() -> Iterator[None]:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (None, "probe must be a callable without arguments, not NoneType"),
        ("database", "not str"),
        (Client, r"probe is the class Client: pass an instance, Client\(\.\.\.\)"),
        (wants_an_argument, "missing a required argument: 'client'.*functools.partial"),
        (sync_generator, "probe is a generator function, which a call does not run"),
        (async_generator, "probe is a generator function, which a call does not run"),
        (
            functools.partial(async_generator),
            "probe is a generator function, which a call does not run",
        ),
    ],
)
def test_what_is_no_probe_is_refused_at_registration(probe: Any, message: str) -> None:
    health = Health()
    with pytest.raises(TypeError, match=message):
        health.add("it", probe)
    assert "it" not in health


def test_a_coroutine_in_place_of_its_function_is_refused() -> None:
    health = Health()
    with pytest.raises(TypeError, match="called already: pass the function, uncalled"):
        health.add("it", Client().ping_async())  # type: ignore[arg-type]


def returning(value: Any) -> list[Any]:
    """Return a sync and an async probe that return `value`."""

    async def probe() -> Any:
        return value

    return [lambda: value, probe]


both = pytest.mark.parametrize("kind", [0, 1], ids=["sync", "async"])


@both
@pytest.mark.parametrize(
    "value", [None, True, 0, "", "PONG", [], (), (True, "ok"), (0, 3), object()], ids=repr
)
async def test_other_values_mean_nothing(value: object, kind: int) -> None:
    result = await outcome(returning(value)[kind])
    assert (result.status, result.reason, result.detail) == (Status.OKAY, Reason.OKAY, "")
    assert result.measurements == {}


@both
async def test_false_is_a_failure(kind: int) -> None:
    result = await outcome(returning(False)[kind])
    assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
    assert result.detail == "the probe returned False"


@both
async def test_so_is_a_tuple_that_begins_with_false(kind: int) -> None:
    result = await outcome(returning((False, "no postgresql://bob:hunter2@db"))[kind])
    assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
    assert result.detail == "the probe returned (False, 'no postgresql://bob:***@db')"


@both
@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (Degraded(), ""),
        (Degraded("lagging"), "lagging"),
        (Degraded, ""),
        (Degraded(None), ""),  # type: ignore[arg-type]
        (Degraded(OSError("reset")), "reset"),  # type: ignore[arg-type]
        (Degraded(404), "404"),  # type: ignore[arg-type]
        (
            Degraded("postgresql://bob:hunter2@db/app is slow"),
            "postgresql://bob:***@db/app is slow",
        ),
    ],
)
async def test_degraded_is_degraded_whatever_it_says(value: object, detail: str, kind: int) -> None:
    result = await outcome(returning(value)[kind])
    assert (result.status, result.reason) == (Status.DEGRADED, Reason.DEGRADED)
    assert result.detail == detail


@both
async def test_measurements_are_kept(kind: int) -> None:
    for value, status in (
        (OrderedDict(used_bytes=5, share=0.5, role="replica", full=False), Status.OKAY),
        (
            Degraded("x", {"used_bytes": 5, "share": 0.5, "role": "replica", "full": False}),
            Status.DEGRADED,
        ),
    ):
        result = await outcome(returning(value)[kind])
        assert result.status is status
        assert result.measurements == {
            "used_bytes": 5,
            "share": 0.5,
            "role": "replica",
            "full": False,
        }


async def test_measurements_are_bounded_and_plain() -> None:
    measured: dict[Any, Any] = {
        1: "its name is no text",
        "object": object(),
        "nested": {"a": 1},
        "nothing": None,
        "n" * 500: "v" * 500,
    }
    result = await outcome(lambda: measured | {f"m{i}": i for i in range(100)})
    assert len(result.measurements) == 64
    assert result.measurements["n" * 200] == "v" * 200
    assert {"object", "nested", "nothing"}.isdisjoint(result.measurements)
    assert result.measurements["m62"] == 62


@both
async def test_a_mapping_that_can_not_be_read_is_a_failure(kind: int) -> None:
    class Broken(OrderedDict[str, int]):
        def items(self) -> Any:
            raise ZeroDivisionError("broken")

    for value in (Broken(a=1), Degraded("x", Broken(a=1)), Degraded("x", None)):  # type: ignore[arg-type]
        result = await outcome(returning(value)[kind])
        assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)


async def test_a_call_that_nobody_awaited_is_a_failure() -> None:
    client = Client()

    async def forgot_to_await() -> Any:
        return client.ping_async()

    result = await outcome(forgot_to_await)
    assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
    assert "await" in result.detail
    assert client.asked == 0


async def test_a_generator_that_nobody_ran_is_a_failure() -> None:
    for probe in (lambda: sync_generator(), lambda: async_generator()):  # noqa: PLW0108 - as above
        result = await outcome(probe)
        assert (result.status, result.reason) == (Status.FAILED, Reason.FAILED)
        assert "generator" in result.detail


async def test_is_async_that_is_no_bool_is_not_its_word() -> None:
    assert (await outcome(SimpleProbe())).ok


class SimpleProbe(SimpleNamespace):
    is_async = "perhaps"

    def __call__(self) -> None: ...
