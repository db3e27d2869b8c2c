"""What a type checker must make of guards. It is checked, and never run.

An unneeded `type: ignore` is an error, so each says that its line does not type-check.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager
from typing import Any, assert_type

from healthmw import CircuitBreaker, Health
from healthmw._guard import Guard

breaker = CircuitBreaker()
plain = Guard(name="payments", breaker=breaker)


# Without a fallback a function stays what it is


@plain
def charge(order: int, *, by: str = "card") -> bytes:
    return f"{order}{by}".encode()


@plain
async def charge_async(order: int) -> bytes:
    return charge(order)


@plain
def untyped_result(order: int) -> Any:
    return charge(order)


@plain
def items(count: int) -> Iterator[int]:
    yield count


class Client:
    @plain
    def get(self, path: str) -> bytes:
        return path.encode()


assert_type(charge(1, by="cash"), bytes)
assert_type(Client().get("/"), bytes)
assert_type(items(3), Iterator[int])
charge("1")  # type: ignore[arg-type]
charge(1, with_="cash")  # type: ignore[call-arg]
untyped_result("1")  # type: ignore[arg-type]


async def awaits() -> None:
    await charge_async()  # type: ignore[call-arg]
    assert_type(await charge_async(1), bytes)


# With a fallback, its type is one of the two that may come back


@Guard(name="payments", fallback=None)
def or_none(order: int) -> bytes:
    return charge(order)


def later(order: int) -> str:
    return f"{order} later"


@Guard(name="payments", fallback=later)
def or_text(order: int) -> bytes:
    return charge(order)


async def charge_later(order: int) -> float:
    return order


@Guard(name="payments", fallback=charge_later)
async def or_async(order: int) -> bytes:
    return charge(order)


@Guard(name="payments", fallback=b"")
async def or_value(order: int) -> bytes:
    return charge(order)


@Guard(name="payments", fallback=[1, 2])
def numbers(count: int) -> Generator[int, None, str]:
    yield count
    return "end"


@Guard(name="payments", fallback=())
def no_numbers(count: int) -> Iterator[int]:
    yield count


@Guard(name="payments", fallback=())
async def no_async_numbers(count: int) -> AsyncIterator[int]:
    yield count


@asynccontextmanager
@Guard(name="payments", fallback=[None])
async def connection(name: str) -> AsyncGenerator[bytes]:
    yield name.encode()


@Guard(name="payments", fallback=[1, 2])
async def async_numbers(count: int) -> AsyncGenerator[int, None]:
    yield count


async def other_numbers(count: int) -> AsyncIterator[int]:
    yield count


@Guard(name="payments", fallback=other_numbers)
async def iterated(count: int) -> AsyncIterator[int]:
    yield count


assert_type(or_none(1), bytes | None)
assert_type(or_text(1), bytes | str)
assert_type(numbers(1), Generator[int, None, str])
assert_type(no_numbers(1), Iterator[int])
assert_type(no_async_numbers(1), AsyncIterator[int])
assert_type(async_numbers(1), AsyncGenerator[int, None])
assert_type(iterated(1), AsyncIterator[int])
certain: bytes = or_none(1)  # type: ignore[assignment]
or_none("1")  # type: ignore[arg-type]


async def awaits_fallbacks() -> None:
    async with connection("payments") as connected:
        assert_type(connected, bytes | None)
    assert_type(await or_async(1), bytes | float)
    assert_type(await or_value(1), bytes)


# A block has no fallback


async def blocks() -> None:
    with plain as call:
        assert_type(call.failure(), None)
    async with plain:
        pass
    with Guard(name="payments", fallback=None):  # type: ignore[misc]
        pass


# Options


Guard()  # type: ignore[call-overload]
Guard(name="payments", retries=3)  # type: ignore[call-overload]
Guard(name="payments", fallback_on="never")  # type: ignore[call-overload]
CircuitBreaker(3)  # type: ignore[call-arg]
CircuitBreaker(consecutive_failure=3)  # type: ignore[call-arg]
CircuitBreaker(is_failure=lambda exc: isinstance(exc, OSError), ignore=(KeyError, ValueError))
CircuitBreaker(ignore="KeyError")  # type: ignore[arg-type]


# A check's guard is typed as any other


def ping() -> None: ...


payments = Health().add("payments", ping, critical=False, breaker=breaker)


@payments.guard()
def checked(order: int) -> bytes:
    return charge(order)


@payments.guard(fallback=charge_later, timeout=1.0)
async def checked_async(order: int) -> bytes:
    return charge(order)


@payments.guard(fallback=None)
def checked_or_none(order: int) -> bytes:
    return charge(order)


assert_type(checked(1), bytes)
assert_type(checked_or_none(1), bytes | None)
checked("1")  # type: ignore[arg-type]
payments.guard(retries=3)  # type: ignore[call-overload]


async def awaits_checked() -> None:
    assert_type(await checked_async(1), bytes | float)
    with payments.guard():
        pass
    with payments.guard(fallback=None):  # type: ignore[misc]
        pass
