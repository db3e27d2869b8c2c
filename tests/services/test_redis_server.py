"""RedisProbe against a real Redis server, through sync and async clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import redis
import redis.asyncio
import trio

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import RedisProbe
from tests.probes.running import Runner
from tests.services.servers import PASSWORD, Redis
from tests.waiting import foreign_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 15.0

TARGETS: dict[str, Callable[[str], Any]] = {
    "sync": redis.Redis.from_url,
    "sync resp3": lambda url: redis.Redis.from_url(url, protocol=3, decode_responses=True),
    "async": redis.asyncio.Redis.from_url,
    "url": str,
}


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def inspector(redis_server: Redis) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(redis_server.dsn(), decode_responses=True)
    yield client
    client.connection_pool.disconnect()


def wait_for_clients(inspector: redis.Redis, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := len(inspector.client_list()) - 1) != number:
        assert time.monotonic() < deadline, f"{number} connections wanted, there are {found}"
        time.sleep(0.02)


def fails(run: Runner, probe: RedisProbe) -> str:
    started = time.monotonic()
    with pytest.raises((ProbeFailedError, redis.RedisError)) as info:
        run(probe)
    assert time.monotonic() - started < PATIENCE
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}"
    return str(info.value)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["ping", "roundtrip"])
def test_well_over_one_connection(
    target: str, mode: Any, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    probe = RedisProbe(TARGETS[target](redis_server.dsn()), mode=mode)
    assert inspector.dbsize() == 0
    for _ in range(20):
        found = run(probe)
        assert set(found) == {"latency_seconds"}
    wait_for_clients(inspector, 1)
    assert inspector.dbsize() == 0
    run.close_probe(probe)
    wait_for_clients(inspector, 0)
    run(probe)
    run.close_probe(probe)
    wait_for_clients(inspector, 0)


@pytest.mark.parametrize("target", TARGETS)
def test_runs_at_once_share_the_one_connection(
    target: str, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    run.together(RedisProbe(TARGETS[target](redis_server.dsn()), timeout=PATIENCE), 10)
    wait_for_clients(inspector, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_refused_and_restarted(target: str, redis_server: Redis, run: Runner) -> None:
    probe = RedisProbe(TARGETS[target](redis_server.dsn()))
    run(probe)
    redis_server.restart()
    run(probe)  # the restart goes unnoticed
    redis_server.kill()
    assert "111" in fails(run, probe) or "refused" in fails(run, probe)
    redis_server.start()
    run(probe)


@pytest.mark.parametrize("target", TARGETS)
def test_a_wrong_password(
    target: str, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    probe = RedisProbe(TARGETS[target](redis_server.dsn(password=f"not-{PASSWORD}")))
    for _ in range(3):
        fails(run, probe)
    wait_for_clients(inspector, 0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["ping", "roundtrip"])
def test_a_server_that_hangs(
    target: str, mode: Any, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    threads = foreign_threads()
    probe = RedisProbe(TARGETS[target](redis_server.dsn()), mode=mode, timeout=0.3)
    run(probe)
    redis_server.pause()
    for _ in range(2):
        fails(run, probe)
    assert foreign_threads() <= threads
    redis_server.resume()
    inspector.ping()
    run(probe)
    wait_for_clients(inspector, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_a_server_without_memory_fails_the_roundtrip_only(
    target: str, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    inspector.config_set("maxmemory", 1)
    try:
        run(RedisProbe(TARGETS[target](redis_server.dsn()), mode="ping"))
        probe = RedisProbe(TARGETS[target](redis_server.dsn()), mode="roundtrip")
        assert "maxmemory" in fails(run, probe)
    finally:
        inspector.config_set("maxmemory", 0)
    run(probe)


@pytest.mark.parametrize("target", TARGETS)
def test_memory_and_evictions_as_degraded(
    target: str, redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    made = TARGETS[target](redis_server.dsn())
    memory = RedisProbe(made, mode="ping", max_memory=0.5)
    evictions = RedisProbe(made, max_evictions=0)
    assert run(memory)["memory_limit_bytes"] == 0
    assert "evictions_per_second" not in run(evictions)  # the first look knows no rate
    used = int(inspector.info("memory")["used_memory"])
    limits = {"maxmemory": str(int(used * 1.1)), "maxmemory-policy": "allkeys-random"}
    try:
        for name, value in limits.items():
            inspector.config_set(name, value)
        complaint, found = run.outcome(memory)
        assert "% of its memory is in use" in str(complaint)
        assert int(found["memory_used_bytes"]) > 0
        for number in range(100):
            inspector.set(f"key-{number}", "x" * 10_000)
        complaint, found = run.outcome(evictions)
        assert re.search("it evicts .* keys a second", str(complaint))
        assert float(found["evictions_per_second"]) > 0
    finally:
        inspector.config_set("maxmemory", 0)
        inspector.config_set("maxmemory-policy", "noeviction")
        inspector.flushall()
    assert run(evictions)["evictions_per_second"] == 0


@pytest.mark.parametrize("target", TARGETS)
def test_the_role(target: str, redis_server: Redis, inspector: redis.Redis, run: Runner) -> None:
    made = TARGETS[target](redis_server.dsn())
    primary, replica = RedisProbe(made, role="primary"), RedisProbe(made, role="replica")
    assert run(primary)["role"] == "primary"
    assert "is a primary, and a replica is expected" in fails(run, replica)
    inspector.replicaof("127.0.0.1", 1)
    try:
        assert "read only" in fails(run, primary)
        complaint, found = run.outcome(replica)
        assert (complaint, found["role"]) == ("the replica has lost its primary", "replica")
    finally:
        inspector.replicaof("NO", "ONE")
    assert run(primary)["role"] == "primary"


def test_the_apps_client_is_left_alone(
    redis_server: Redis, inspector: redis.Redis, run: Runner
) -> None:
    client = redis.Redis.from_url(redis_server.dsn(), max_connections=1)
    settings = dict(client.connection_pool.connection_kwargs)
    waiter = threading.Thread(target=client.blpop, args=(["queue"], PATIENCE))
    waiter.start()
    run(RedisProbe(client))  # though the app's one connection is in use
    inspector.rpush("queue", "done")
    waiter.join(PATIENCE)
    assert not waiter.is_alive()
    assert client.connection_pool.connection_kwargs == settings
    client.connection_pool.disconnect()


def test_new_loops_leave_no_connections(redis_server: Redis, inspector: redis.Redis) -> None:
    probe = RedisProbe(redis.asyncio.Redis.from_url(redis_server.dsn()))
    for _ in range(3):
        other = Runner()
        other.run(probe())
        other.close()  # without closing the probe: the end of the loop does that
    wait_for_clients(inspector, 0)


def test_a_sync_client_on_trio(redis_server: Redis, inspector: redis.Redis) -> None:
    probe = RedisProbe(redis.Redis.from_url(redis_server.dsn()))

    async def main() -> None:
        await anyio.to_thread.run_sync(probe)
        await probe.aclose()

    trio.run(main)
    wait_for_clients(inspector, 0)


FORK = """
import os, sys
import redis
from healthmw.probes import RedisProbe
from tests.waiting import foreign_threads

probe = RedisProbe(redis.Redis.from_url(os.environ["DSN"]))
client = redis.Redis.from_url(os.environ["DSN"], decode_responses=True)

def ids():
    return {one["id"] for one in client.client_list()}

probe()
before = ids()
child = os.fork()
if child == 0:
    probe()
    probe()
    sys.exit(0)
status = os.waitpid(child, 0)[1]
probe()
print(status, before <= ids())
"""


def test_a_fork_leaves_the_parents_connection_alone(redis_server: Redis) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "DSN": redis_server.dsn()},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == b""
    assert done.stdout.split() == [b"0", b"True"]
