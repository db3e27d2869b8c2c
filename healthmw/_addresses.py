"""Addresses of servers: names are looked up where they can hang without harm, and then tried."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from healthmw._driver import call_soon_threadsafe
from healthmw.exceptions import ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import SocketStream

_HEAD_START = 0.25
"""How long, in seconds, an address is tried before the next one of the same host is tried too."""

_lookups: dict[tuple[int, str], Future[Any]] = {}


async def look_up(host: str | None) -> None:
    """See that the name `host` resolves, in a daemon thread, before an async client resolves it.

    asyncio resolves names in the app's default executor. A resolver that hangs would fill that with
    threads that no cancellation ends, one a run. Here it holds one thread for a name, and the
    client does not get to run. Raises `ProbeFailedError` for a name that does not resolve.
    """
    if host and not _is_address(host):
        await _resolved(host)


async def resolve(host: str) -> list[str]:
    """Return the addresses of `host`, as `look_up` finds them."""
    return [*dict.fromkeys(str(found[4][0]) for found in await _resolved(host))]


async def connect(host: str, port: int) -> SocketStream:
    """Connect by TCP to a host whose name is resolved as by `look_up`, and never by the loop.

    Its addresses are tried as anyio tries them: the next one when the one before it has failed, or
    after a moment. Raises `ProbeFailedError` for a name that does not resolve, and `OSError`.
    """
    addresses = [host] if _is_address(host) else await resolve(host)
    if len(addresses) == 1:
        return await _connect_tcp(addresses[0], port)
    streams: list[SocketStream] = []
    errors: list[OSError] = []

    async def attempt(address: str, over: anyio.Event) -> None:
        try:
            stream = await _connect_tcp(address, port)
        except OSError as exc:
            errors.append(exc)
        else:
            streams.append(stream)
            tasks.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                over = anyio.Event()
                tasks.start_soon(attempt, address, over)
                with anyio.move_on_after(_HEAD_START):
                    await over.wait()
        if not streams:
            raise OSError("no address could be connected to") from errors[0]
        return streams.pop()
    finally:  # those that came too late, and all of them where nobody waits any more
        for stream in streams:
            await anyio.aclose_forcefully(stream)


async def _connect_tcp(address: str, port: int) -> SocketStream:
    stream = await anyio.connect_tcp(address, port)
    # Where nobody listens, the system may have given it the very port that it is to connect to.
    ours, theirs = (
        stream.extra(attribute, None)  # noqa: S610 - not Django's `extra`
        for attribute in (SocketAttribute.local_address, SocketAttribute.remote_address)
    )
    if ours == theirs:
        await anyio.aclose_forcefully(stream)
        raise ConnectionRefusedError("nobody listens there: it was connected to itself")
    return stream


async def _resolved(host: str) -> Any:
    key = os.getpid(), host
    ours: Future[Any] = Future()
    future = _lookups.setdefault(key, ours)  # in one step: another thread's loop may ask as well
    if future is ours:
        try:
            threading.Thread(target=_resolve, args=(key, future), daemon=True).start()
        except Exception as exc:  # noqa: BLE001 - raised by the look-up, to all who wait for it
            _lookups.pop(key, None)
            future.set_exception(exc)
    answered = anyio.Event()
    call_soon = call_soon_threadsafe()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            call_soon(answered.set)

    future.add_done_callback(tell)
    await answered.wait()
    try:
        return future.result()
    except (OSError, ValueError) as exc:
        raise ProbeFailedError(f"can't resolve {host}: {exc}") from exc


async def look_up_any(hosts: Sequence[str | None]) -> None:
    """See that one of these names resolves, for a client that tries them one after another."""
    for number, host in enumerate(hosts, 1):
        try:
            await look_up(host)
        except ProbeFailedError:
            if number == len(hosts):
                raise
        else:
            return


def _resolve(key: tuple[int, str], future: Future[Any]) -> None:
    try:
        found = socket.getaddrinfo(key[1], None)
    except BaseException as exc:  # noqa: BLE001 - raised by the look-up, to all who wait for it
        _lookups.pop(key, None)
        future.set_exception(exc)
    else:
        _lookups.pop(key, None)
        future.set_result(found)


def _is_address(host: str) -> bool:
    """Tell whether there is nothing to resolve: an IP address, or a Unix socket's path."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith("/")
    return True


def show_address(host: str, port: int) -> str:
    """Return `host:port` as a URL has it, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
