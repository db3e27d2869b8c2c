"""A probe of MongoDB."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anyio

from healthmw._driver import check_timeout, require_asyncio
from healthmw._held import PerProcess
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import pymongo

    from healthmw._probe import Outcome

# Of the probe's time, what the driver may use: a server that refuses is asked again until then, and
# why it refuses is to be told before the check itself loses patience.
_DRIVERS_SHARE = 0.9

_STEP, _LONG = 0.5, 1.5
"""By how much the driver may be late when it has looked for a server in vain, as it looks again and
again in steps; and from how much time on to be there before that: in less, no server might be
found. In seconds.
"""


class MongoProbe:
    """Ask MongoDB's primary for `hello`.

    `target` is the app's own `pymongo.MongoClient` or `AsyncMongoClient`, or a URL (`mongodb://`,
    `mongodb+srv://`).

    A pass proves that the client finds the primary of its replica set (or its one server, or a
    mongos), that this accepts the client's login, and that it answers and says that it takes
    writes. With `role="any"` the nearest member will do, and it need not take writes.

    The app's own client is asked through its own pool: a second one would bring two more threads
    and connections for each server, by which pymongo watches it. Where the pool gives no connection
    in time, and the client's watch sees the primary well, the outcome is degraded. An
    `AsyncMongoClient` belongs to the asyncio loop that the app runs it on. For a URL the probe has
    a sync client with one connection beside the watching ones, which is asked in a thread, on
    asyncio and trio, and closed by `aclose`.

    `timeout` (seconds) is for all of it: choosing the server, connecting, TLS, login, the answer.
    The check's own timeout counts where it is shorter. Measures `latency_seconds`. Raises
    `ProbeFailedError`.
    """

    def __init__(
        self,
        target: str | pymongo.MongoClient[Any] | pymongo.AsyncMongoClient[Any],
        *,
        role: Literal["primary", "any"] = "primary",
        timeout: float = 2.0,
    ) -> None:
        try:
            from pymongo import AsyncMongoClient, MongoClient, ReadPreference
        except ImportError as exc:
            raise MissingExtraError("MongoProbe", extra="pymongo") from exc
        if role not in {"primary", "any"}:
            raise ValueError(f"role must be 'primary' or 'any', not {role!r}")
        if isinstance(target, str):
            self._shown = _check_url(target)
            self._url = target
        elif isinstance(target, MongoClient | AsyncMongoClient):
            seeds = target.topology_description.server_descriptions()
            self._shown = ",".join(f"{host}:{port}" for host, port in seeds)
        else:
            raise TypeError(
                "target must be a MongoClient, an AsyncMongoClient or a URL,"
                f" not {type(target).__name__}"
            )
        self.is_async: bool = isinstance(target, AsyncMongoClient)
        self._app: Any = None if isinstance(target, str) else target
        self._own = PerProcess(self._make)
        self._primary = role == "primary"
        self._preference = ReadPreference.PRIMARY if self._primary else ReadPreference.NEAREST
        self._timeout = check_timeout(timeout)

    def __repr__(self) -> str:
        return f"<MongoProbe {self._shown}>"

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Ask once: at once for a sync client or a URL, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Close the probe's own client, if it has one; the next run makes another."""
        client = self._own.pop()
        if client is not None:
            client.close()

    def _run_sync(self) -> Outcome:
        import pymongo

        started = time.monotonic()
        client = self._app or self._own.get()
        ask = partial(client.admin.command, "hello", read_preference=self._preference)
        try:
            try:
                with pymongo.timeout(self._limit(client, started)):
                    answer = ask()
            except pymongo.errors.AutoReconnect as exc:
                if not _may_have_died(exc):
                    raise
                with pymongo.timeout(self._limit(client, started)):
                    answer = ask()
        except pymongo.errors.PyMongoError as exc:
            return self._explain(client, exc, started)
        return self._judge(answer, started)

    async def _run_async(self) -> Outcome:
        require_asyncio("AsyncMongoClient", instead="pass a MongoClient or a URL on trio")
        import pymongo

        started = time.monotonic()
        ask = partial(self._app.admin.command, "hello", read_preference=self._preference)
        try:
            with anyio.fail_after(self._timeout):
                try:
                    with pymongo.timeout(self._limit(self._app, started)):
                        answer = await ask()
                except pymongo.errors.AutoReconnect as exc:
                    if not _may_have_died(exc):
                        raise
                    with pymongo.timeout(self._limit(self._app, started)):
                        answer = await ask()
        except pymongo.errors.PyMongoError as exc:
            return self._explain(self._app, exc, started)
        except TimeoutError as exc:
            raise self._none(self._app) from exc
        return self._judge(answer, started)

    def _limit(self, client: Any, started: float) -> float:
        """Return what the driver may take of the time that is left, in seconds."""
        left = max(0.001, started + self._timeout * _DRIVERS_SHARE - time.monotonic())
        if left < _LONG or self._watched_well(client):
            return left
        return left - _STEP

    def _judge(self, answer: Mapping[str, Any], started: float) -> Outcome:
        if self._primary and not (answer.get("isWritablePrimary") or answer.get("ismaster")):
            raise ProbeFailedError("the server that answers is no primary")
        return {"latency_seconds": time.monotonic() - started}

    def _explain(self, client: Any, exc: Exception, started: float) -> Outcome:
        """Raise the driver's failure in few words, unless it is the app's pool that is full."""
        from pymongo import errors

        if isinstance(exc, errors.WaitQueueTimeoutError) and self._watched_well(client):
            measured = {"latency_seconds": time.monotonic() - started}
            return Degraded("the app's pool gave no connection in time", measured)
        if isinstance(exc, errors.ServerSelectionTimeoutError):
            raise self._none(client) from exc
        if isinstance(exc, errors.PyMongoError) and exc.timeout:
            raise self._late() from exc
        raise ProbeFailedError(
            f"{type(exc).__name__}: {str(exc).partition(', full error')[0]}"
        ) from exc

    def _none(self, client: Any) -> ProbeFailedError:
        """Return why there was no server to ask in time, or that the time is up."""
        text = "" if self._watched_well(client) else _why_none(client)
        return ProbeFailedError(text) if text else self._late()

    def _watched_well(self, client: Any) -> bool:
        seen = client.topology_description
        return bool(seen.has_writable_server() if self._primary else seen.has_readable_server())

    def _late(self) -> ProbeTimeoutError:
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")

    def _make(self) -> pymongo.MongoClient[Any]:
        import pymongo

        return pymongo.MongoClient(self._url, maxPoolSize=1, connect=False)


def _may_have_died(exc: pymongo.errors.AutoReconnect) -> bool:
    """Tell whether a pooled connection may have failed for having died since its last use."""
    from pymongo import errors

    return not exc.timeout and not isinstance(exc, errors.ServerSelectionTimeoutError)


def _why_none(client: Any) -> str:
    """Return what keeps the known servers from being chosen, as the client's watch sees it."""
    found = []
    for (host, port), server in client.topology_description.server_descriptions().items():
        why = str(server.error or "").partition(" (configured timeouts")[0]
        if not server.error or getattr(server.error, "timeout", False):
            why = "" if server.server_type_name == "Unknown" else server.server_type_name
        if why:
            found.append(why if f"{host}:{port}" in why else f"{host}:{port}: {why}")
    return "no server will do: " + "; ".join(found) if found else ""


def _check_url(url: str) -> str:
    """Return the servers that `url` names, without looking anything up."""
    from pymongo import errors
    from pymongo.uri_parser import parse_uri

    scheme, mark, rest = url.partition("://")
    hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    with suppress(errors.PyMongoError, ValueError):
        if mark and scheme == "mongodb+srv" and hosts and ":" not in hosts:
            return hosts
        nodes = parse_uri(url)["nodelist"] if scheme == "mongodb" else []
        if nodes:
            return ",".join(f"{host}:{port}" if port else host for host, port in nodes)
    # Without the driver's own words: they may quote the part that it took for the port.
    raise ValueError(
        "target must be a URL like mongodb://user:password@host:27017,host:27017/?replicaSet=..."
        " or mongodb+srv://user:password@host; special characters in the password percent-encoded"
    )
