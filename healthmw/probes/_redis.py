"""A probe of Redis, or of what speaks its protocol (Valkey, KeyDB, Dragonfly)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import anyio

from healthmw._addresses import look_up_any
from healthmw._driver import check_timeout, require_asyncio, time_limit
from healthmw._held import PerLoop, PerProcess
from healthmw._options import number
from healthmw._probe import Degraded
from healthmw._redis_clients import OwnClients, origin_of
from healthmw.exceptions import MissingExtraError, ProbeTimeoutError
from healthmw.probes._redis_talk import Questions, ask_by_sentinel, ask_cluster
from healthmw.probes._redis_url import origin_of_url

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import redis
    import redis.asyncio
    import redis.asyncio.cluster
    import redis.cluster

    from healthmw._probe import Outcome
    from healthmw.probes._redis_talk import Command, Finding, Talk


class RedisProbe:
    """Write to Redis, read it back and compare, over one connection that is kept between runs.

    `target` is the app's own client, sync or async: a `Redis`, one that a `Sentinel` made
    (`master_for`, `slave_for`), or a `RedisCluster`; or a URL (`redis://`, `rediss://`, `unix://`,
    `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB`, `redis+cluster://HOST:PORT,HOST:PORT`, and
    these two with `rediss+`). The connection is the probe's own, made as the client makes its own:
    same address, credentials and TLS. So the app's pool is neither waited for nor used up, and an
    async client may serve the app on one event loop and the probe on another.

    What a pass proves:

    - `mode="roundtrip"` (default, but for `role="replica"`): a key of the probe's own was written,
      read back, compared and deleted. So the login was accepted and the server takes writes: it is
      no read-only replica, and has memory left.
    - `mode="ping"`: the server accepted the login and answered `PING`.
    - Of a cluster: its state is `ok`, all slots are served, and each primary passed the above, over
      one connection to each. Replicas are not asked.
    - By Sentinel: the same of the server that Sentinel names. Sentinel is asked when a connection
      is opened, so after a failover at the latest.
    - `role="primary"` or `"replica"`: the server says that it is one. A replica that has lost its
      primary is degraded. Not for a cluster.

    Degraded, by the server's own numbers, with

    - `max_memory`: more than this share (0 to 1) of `maxmemory` is in use. Of use where nothing may
      be evicted: a cache that evicts is always full.
    - `max_evictions`: more keys than this were evicted a second since the run before.

    `timeout` (seconds) is for all of it: connecting, TLS, login, the answers. The check's own
    timeout counts where it is shorter.

    A sync client is asked in a thread, on asyncio and trio. An async client or a URL needs asyncio,
    because redis-py does: on trio pass a sync client. Measures `latency_seconds` and, where asked
    for, `role`, `primary_silent_seconds`, `memory_used_bytes`, `memory_limit_bytes` and
    `evictions_per_second`; of a cluster the sums, and `primaries`. Raises redis-py's own
    exceptions, or `ProbeFailedError`.
    """

    def __init__(
        self,
        target: str
        | redis.Redis
        | redis.asyncio.Redis
        | redis.cluster.RedisCluster
        | redis.asyncio.cluster.RedisCluster,
        *,
        mode: Literal["ping", "roundtrip"] | None = None,
        role: Literal["primary", "replica"] | None = None,
        max_memory: float | None = None,
        max_evictions: float | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import redis  # noqa: F401 - only to see that it is there
        except ImportError as exc:
            raise MissingExtraError("RedisProbe", extra="redis") from exc
        self._timeout = check_timeout(timeout)
        origin = origin_of_url(target) if isinstance(target, str) else origin_of(target)
        if origin is None:
            raise TypeError(
                "target must be a redis.Redis, a redis.asyncio.Redis, a RedisCluster or a URL,"
                f" not {type(target).__name__}"
            )
        if mode not in {None, "ping", "roundtrip"}:
            raise ValueError(f"mode must be 'ping' or 'roundtrip', not {mode!r}")
        if role not in {None, "primary", "replica"}:
            raise ValueError(f"role must be 'primary' or 'replica', not {role!r}")
        if role == "replica" and mode == "roundtrip":
            raise ValueError("mode='roundtrip' writes, which a role='replica' does not allow")
        if role is not None and origin.nodes:
            raise ValueError("role is for a single server: of a cluster, all primaries are asked")
        if max_memory is not None and not 0 < number("max_memory", max_memory) <= 1:
            raise ValueError(f"max_memory must be a share above 0, up to 1, not {max_memory!r}")
        if max_evictions is not None and not number("max_evictions", max_evictions) >= 0:
            raise ValueError(f"max_evictions must be a number from 0, not {max_evictions!r}")
        self.is_async: bool = origin.is_async
        self._origin = origin
        self._questions = Questions(
            roundtrip=mode == "roundtrip" or (mode is None and role != "replica"),
            role=role,
            max_memory=max_memory,
            max_evictions=max_evictions,
        )
        self._sync = PerProcess(self._make)
        self._async = PerLoop(self._make, OwnClients.adisconnect)

    def __repr__(self) -> str:
        return f"<RedisProbe {self._origin}>"

    def __call__(self) -> Outcome | Awaitable[Outcome]:
        """Ask once: at once for a sync client, else by a coroutine."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Close the probe's connections; the next run opens others."""
        own = self._sync.pop()
        if own is not None:
            own.disconnect()
        if self.is_async:
            await self._async.aclose()

    def _make(self) -> OwnClients:
        return OwnClients(self._origin, self._timeout)

    def _talk(self, own: OwnClients) -> Talk:
        if self._origin.nodes:
            return ask_cluster(own, self._origin.remap, self._questions)
        if self._origin.sentinel is not None:
            return ask_by_sentinel(own, self._questions)
        return self._questions.ask(own.get())

    def _run_sync(self) -> Outcome:
        from redis.exceptions import TimeoutError as SilenceError

        started = time.monotonic()
        until = started + self._timeout
        own = self._sync.get()
        if not own.lock.acquire(timeout=self._timeout):
            raise self._late()
        try:
            # The socket's own timeout counts anew with each byte that arrives; this one does not.
            with time_limit(max(0.0, until - time.monotonic()), own.disconnect):
                try:
                    finding = self._converse(own, until)
                except BaseException:
                    own.disconnect()  # a new connection may find the server that has taken over
                    raise
        except (TimeoutError, SilenceError) as exc:
            raise self._late() from exc
        finally:
            own.release()
            own.lock.release()
        return self._outcome(finding, time.monotonic() - started)

    def _converse(self, own: OwnClients, until: float) -> Finding:
        talk = self._talk(own)
        try:
            client, commands = next(talk)
            while True:
                if time.monotonic() > until:
                    raise TimeoutError
                try:
                    answers = own.ask(client, _fill(client, commands).execute, until)
                except Exception as exc:  # noqa: BLE001 - the talk decides
                    client, commands = talk.throw(exc)
                else:
                    client, commands = talk.send(answers)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # a Finding, by the type of Talk

    async def _run_async(self) -> Outcome:
        require_asyncio("redis.asyncio", instead="pass a sync redis.Redis client on trio")
        from redis.exceptions import TimeoutError as SilenceError

        started = time.monotonic()
        own = await self._async.get()
        try:
            with anyio.fail_after(self._timeout):
                async with own.async_lock:
                    try:
                        finding = await self._converse_async(own)
                    except BaseException:
                        with anyio.CancelScope(shield=True):
                            await own.adisconnect()  # as above
                        raise
                    finally:
                        with anyio.CancelScope(shield=True):
                            await own.arelease()
        except (TimeoutError, SilenceError) as exc:
            raise self._late() from exc
        return self._outcome(finding, time.monotonic() - started)

    async def _converse_async(self, own: OwnClients) -> Finding:
        talk = self._talk(own)
        try:
            client, commands = next(talk)
            while True:
                try:
                    answers = await self._ask_async(own, client, commands)
                except Exception as exc:  # noqa: BLE001 - the talk decides
                    client, commands = talk.throw(exc)
                else:
                    client, commands = talk.send(answers)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return] # a Finding, by the type of Talk

    async def _ask_async(self, own: OwnClients, client: Any, commands: list[Command]) -> list[Any]:
        from redis.exceptions import ConnectionError as LostError

        kept = client in own.kept
        own.kept.discard(client)
        if not kept:
            await look_up_any(own.hosts(client))
        try:
            answers: list[Any] = await _fill(client, commands).execute()
        except LostError:
            if not kept:
                raise
            answers = await _fill(client, commands).execute()  # it had died since the last run
        own.kept.add(client)
        return answers

    def _outcome(self, finding: Finding, latency: float) -> Outcome:
        measured = {"latency_seconds": latency, **finding.measurements}
        return Degraded("; ".join(finding.complaints), measured) if finding.complaints else measured

    def _late(self) -> ProbeTimeoutError:
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")


def _fill(client: Any, commands: list[Command]) -> Any:
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return pipeline
