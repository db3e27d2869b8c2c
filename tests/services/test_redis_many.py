"""RedisProbe against a real cluster, and against servers that Sentinel watches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import celery
import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from dramatiq.brokers.redis import RedisBroker

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import (
    CeleryProbe,
    DramatiqProbe,
    HeadroomProbe,
    RedisProbe,
    RQProbe,
    probe_from_dsn,
)
from tests.probes.running import Runner
from tests.services.redis_servers import RedisCluster, Sentinel, connected
from tests.services.servers import PASSWORD, Redis
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def cluster(lend: Callable[[type[RedisCluster]], RedisCluster]) -> RedisCluster:
    return lend(RedisCluster)


@pytest.fixture
def sentinel(lend: Callable[[type[Sentinel]], Sentinel]) -> Sentinel:
    return lend(Sentinel)


def clients_of(server: Redis) -> int:
    """Return how many connections clients have, but for the one that asks and the sentinels'."""
    with connected(server) as client:
        found = [one for one in client.client_list() if one["flags"] == "N"]
    return len([one for one in found if not one["name"].startswith("sentinel-")]) - 1


def fails(run: Runner, probe: Any) -> str:
    with pytest.raises((ProbeFailedError, redis.RedisError)) as info:
        run.outcome(probe)
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}"
    return str(info.value)


def says(run: Runner, probe: Any, words: str) -> bool:
    return words in fails(run, probe)


# A cluster

CLUSTERS: dict[str, Callable[[str, int], Any]] = {
    "sync": lambda host, port: redis.cluster.RedisCluster(
        host=host, port=port, password=PASSWORD, decode_responses=True
    ),
    "async": lambda host, port: redis.asyncio.cluster.RedisCluster(
        host=host, port=port, password=PASSWORD
    ),
    "url": lambda host, port: f"redis+cluster://:{PASSWORD}@{host}:1,{host}:{port}",
}


@pytest.fixture
def of_cluster(cluster: RedisCluster) -> Iterator[list[Any]]:
    """All that may be probed of the one cluster, whose faults take their time."""
    targets = [make("127.0.0.1", cluster.port) for make in CLUSTERS.values()]
    yield targets
    targets[0].close()


@pytest.mark.parametrize("mode", ["roundtrip", "ping"])
def test_each_primary_of_a_cluster_is_asked_over_one_connection(
    of_cluster: list[Any], mode: Any, cluster: RedisCluster, run: Runner
) -> None:
    before = [clients_of(node) for node in cluster.nodes]
    for target in of_cluster:
        probe = RedisProbe(target, mode=mode, max_memory=0.9, max_evictions=0, timeout=PATIENCE)
        for _ in range(5):
            found = run(probe)
        run.together(probe, 10)
        assert found["primaries"] == 3
        assert found["memory_limit_bytes"] == found["evictions_per_second"] == 0
        assert [clients_of(node) for node in cluster.nodes] == [number + 1 for number in before]
        for node in cluster.nodes:
            with connected(node) as client:
                assert client.dbsize() == 0
        run.close_probe(probe)
        until_sync(lambda: [clients_of(node) for node in cluster.nodes] == before)


def test_a_dead_primary(of_cluster: list[Any], cluster: RedisCluster, run: Runner) -> None:
    probes = [RedisProbe(target) for target in of_cluster]
    for probe in probes:
        run(probe)
    lost = cluster.others[1]
    lost.restart()
    cluster.wait()
    for probe in probes:
        run(probe)  # the restart goes unnoticed
    lost.kill()
    for probe in probes:
        assert f"the primary 127.0.0.1:{lost.port}: " in fails(run, probe)
    for probe in probes:
        until_sync(partial(says, run, probe, "the cluster's state is fail"))
    cluster.mend()
    for probe in probes:
        run(probe)


def test_the_node_that_was_asked_first_is_gone(
    of_cluster: list[Any], cluster: RedisCluster, run: Runner
) -> None:
    probes = [RedisProbe(target) for target in of_cluster]
    for probe in probes:
        run(probe)
    cluster.kill()
    for probe in probes:
        assert f"the primary 127.0.0.1:{cluster.port}: " in fails(run, probe)
    for node in cluster.others:
        node.kill()
    for probe in probes:
        assert "no node of the cluster answers" in fails(run, probe)
    cluster.mend()
    for probe in probes:
        run(probe)


def test_a_primary_that_hangs(of_cluster: list[Any], cluster: RedisCluster, run: Runner) -> None:
    for target in of_cluster:
        probe = RedisProbe(target, timeout=0.4)
        run(probe)
        for hung in (cluster, cluster.others[0]):
            hung.pause()
            with pytest.raises(ProbeTimeoutError):
                run(probe)
            hung.resume()
            cluster.wait()
            run(probe)


def test_slots_that_nobody_serves(of_cluster: Any, cluster: RedisCluster, run: Runner) -> None:
    probe = RedisProbe(of_cluster[0])
    with connected(cluster) as client:
        client.config_set("cluster-require-full-coverage", "no")
        client.cluster("delslots", 1, 2)
        try:
            assert "2 of the cluster's slots are served by nobody" in fails(run, probe)
        finally:
            client.cluster("addslots", 1, 2)
            client.config_set("cluster-require-full-coverage", "yes")
    cluster.wait()
    run(probe)


@pytest.mark.parametrize("kind", ["async", "url"])
def test_a_node_whose_name_is_gone(kind: str, cluster: RedisCluster, run: Runner) -> None:
    target: Any = f"redis+cluster://:{PASSWORD}@gone.invalid,127.0.0.1:{cluster.port}"
    if kind == "async":
        node = redis.asyncio.cluster.ClusterNode
        target = redis.asyncio.cluster.RedisCluster(
            startup_nodes=[node("gone.invalid", 6379), node("127.0.0.1", cluster.port)],
            password=PASSWORD,
        )
    probe = RedisProbe(target)
    for _ in range(2):
        assert run(probe)["primaries"] == 3
    run.close_probe(probe)
    words = fails(run, RedisProbe("redis+cluster://gone.invalid,left.invalid"))
    assert "can't resolve gone.invalid" in words
    assert "can't resolve left.invalid" in words


@pytest.mark.parametrize("kind", ["async", "url"])
def test_a_wrong_password_for_a_cluster(kind: str, cluster: RedisCluster, run: Runner) -> None:
    target = f"redis+cluster://:not-{PASSWORD}@127.0.0.1:{cluster.port}"
    if kind == "async":
        target = redis.asyncio.cluster.RedisCluster(  # type: ignore[assignment] # either will do
            host="127.0.0.1", port=cluster.port, password=f"not-{PASSWORD}"
        )
    assert "no node of the cluster answers" in fails(run, RedisProbe(target))


# Sentinel


def managers(server: Sentinel) -> list[Any]:
    """Return a sync and an async client of Sentinel; of two sentinels the first is not there."""
    sync: Any = redis.sentinel.Sentinel
    options = {"sentinel_kwargs": {"password": PASSWORD}, "password": PASSWORD}
    addresses = [("127.0.0.1", 1), server.address()]
    return [make(addresses, **options) for make in (sync, redis.asyncio.sentinel.Sentinel)]


SENTINELS: dict[str, Callable[[Sentinel], Any]] = {
    "sync": lambda server: managers(server)[0].master_for(server.service),
    "async": lambda server: managers(server)[1].master_for(server.service),
    "url": lambda server: (
        f"redis+sentinel://:{PASSWORD}@127.0.0.1:1,127.0.0.1:{server.port}/{server.service}/0"
        f"?sentinel_password={PASSWORD}"
    ),
}

by_each = pytest.mark.parametrize("kind", SENTINELS)


@by_each
def test_the_server_that_sentinel_names(kind: str, sentinel: Sentinel, run: Runner) -> None:
    before = [clients_of(server) for server in (sentinel, sentinel.first, sentinel.second)]
    probe = RedisProbe(SENTINELS[kind](sentinel), role="primary", timeout=PATIENCE)
    assert PASSWORD not in repr(probe)
    assert f"{sentinel.service} by sentinel 127.0.0.1:1,127.0.0.1:{sentinel.port}" in repr(probe)
    for _ in range(5):
        assert run(probe)["role"] == "primary"
    run.together(probe, 10)
    after = [clients_of(server) for server in (sentinel, sentinel.first, sentinel.second)]
    assert sum(after) == sum(before) + 1  # to the primary; none is kept to the sentinel
    run.close_probe(probe)


def test_a_replica_by_sentinel(sentinel: Sentinel, run: Runner) -> None:
    client = managers(sentinel)[0].slave_for(sentinel.service)
    found = run(RedisProbe(client, role="replica"))
    assert found["role"] == "replica"
    assert isinstance(found["primary_silent_seconds"], int)
    assert "read only" in fails(run, RedisProbe(client))
    assert "a replica, and a primary is expected" in fails(
        run, RedisProbe(client, mode="ping", role="primary")
    )


def test_other_probes_over_a_client_that_sentinel_made(sentinel: Sentinel, run: Runner) -> None:
    sync, of_asyncio = (one.master_for(sentinel.service) for one in managers(sentinel))
    servers = sentinel, sentinel.first, sentinel.second
    before = [clients_of(server) for server in servers]
    broker = RedisBroker(client=sync)  # type: ignore[no-untyped-call] # dramatiq's signature
    probes: list[Any] = [
        RQProbe(sync, min_workers=0, timeout=PATIENCE),
        DramatiqProbe(broker, min_workers=0, timeout=PATIENCE),
    ]
    for probe in probes:
        for _ in range(2):
            run(probe)
        run.together(probe, 10)
        assert f"{sentinel.service} by sentinel 127.0.0.1:" in repr(probe)
    after = [clients_of(server) for server in servers]
    assert sum(after) == sum(before) + len(probes)  # to the primary; none is kept to the sentinel
    for client in (sync, of_asyncio):
        probe = HeadroomProbe(client, processes=1, per_process=1, timeout=PATIENCE)
        assert run(probe)["binding_limit"] == "maxclients"
    until_sync(lambda: [clients_of(server) for server in servers] == after)


def test_a_sentinel_that_knows_no_such_service(sentinel: Sentinel, run: Runner) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/other?sentinel_password={PASSWORD}"
    assert "no sentinel names a server for 'other'" in fails(run, probe_from_dsn(url))
    sync, of_asyncio = (one.master_for("other") for one in managers(sentinel))
    needs: Any = {"processes": 1, "per_process": 1}
    for probe in (
        RQProbe(sync),
        HeadroomProbe(sync, **needs),
        HeadroomProbe(of_asyncio, **needs),
    ):
        assert "no sentinel names a server for 'other'" in fails(run, probe)


@pytest.mark.parametrize("gone_first", [True, False])
def test_a_sentinel_whose_name_is_gone(gone_first: bool, sentinel: Sentinel, run: Runner) -> None:
    addresses = [("gone.invalid", 26379), sentinel.address()][:: 1 if gone_first else -1]
    options: Any = {"sentinel_kwargs": {"password": PASSWORD}, "password": PASSWORD}
    manager: Any = redis.asyncio.sentinel.Sentinel
    client = manager(addresses, **options).master_for(sentinel.service)
    hosts = ",".join(f"{host}:{port}" for host, port in addresses)
    url = f"redis+sentinel://:{PASSWORD}@{hosts}/{sentinel.service}?sentinel_password={PASSWORD}"
    for probe in (
        RedisProbe(client, role="primary"),
        RedisProbe(url, role="primary"),
        HeadroomProbe(client, processes=1, per_process=1),
    ):
        run(probe)
        run.close_probe(probe)
    assert "can't resolve" in fails(run, RedisProbe("redis+sentinel://gone.invalid/shop"))


@by_each
def test_a_sentinel_that_hangs(kind: str, sentinel: Sentinel, run: Runner) -> None:
    probe = RedisProbe(SENTINELS[kind](sentinel), timeout=0.6)
    sentinel.pause()
    fails(run, probe)
    sentinel.resume()
    until_sync(sentinel.ready)
    run(probe)


@pytest.mark.parametrize("number", [1, 3])
def test_celery_by_sentinels_that_hang(number: int, sentinel: Sentinel, run: Runner) -> None:
    url = f"sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/0"
    app = celery.Celery(broker=";".join([url] * number))
    app.conf.broker_transport_options = {
        "master_name": sentinel.service,
        "sentinel_kwargs": {"password": PASSWORD},
    }
    probe = CeleryProbe(app, queue="mail", max_depth=0, timeout=1.5)
    assert "0 worker(s) answered" in fails(run, probe)
    lost = f"OperationalError: No master found for {sentinel.service!r}"
    sentinel.pause()
    assert fails(run, probe) == lost
    sentinel.resume()
    until_sync(lambda: says(run, probe, "0 worker(s) answered"))
    sentinel.kill()
    assert fails(run, probe) == lost
    app.close()


def test_a_failover(sentinel: Sentinel, run: Runner) -> None:
    probes = [RedisProbe(SENTINELS[kind](sentinel), role="primary") for kind in SENTINELS]
    for probe in probes:
        run(probe)
    old = sentinel.primary_port()
    first = next(server for server in (sentinel.first, sentinel.second) if server.port == old)
    first.kill()
    for probe in probes:
        fails(run, probe)
    for probe in probes:
        until_sync(partial(works, run, probe))
    assert sentinel.primary_port() != old


def works(run: Runner, probe: RedisProbe) -> bool:
    try:
        run(probe)
    except (ProbeFailedError, redis.RedisError):
        return False
    return True
