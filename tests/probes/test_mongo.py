"""MongoProbe against a stand-in that speaks MongoDB's wire protocol, and servers that do not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pymongo
import pytest
import trio

from healthmw import Health
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import MongoProbe, probe_from_dsn
from tests.fakes import FakeServer, drip, garbage, reset, silent
from tests.mongo import Mongo
from tests.waiting import until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.probes.running import Runner

PASSWORD = "s3cr3t-b4it"

KINDS = ["sync", "async", "url"]


@pytest.fixture
def make(run: Runner) -> Iterator[Callable[..., MongoProbe]]:
    """Return what makes a probe of each kind, and closes the app's client in the end."""
    closing: list[Callable[[], Any]] = []

    def make(kind: str, url: str, **options: Any) -> MongoProbe:
        target: Any = url
        if kind == "sync":
            target = pymongo.MongoClient(url)
            closing.append(target.close)
        if kind == "async":
            target = pymongo.AsyncMongoClient(url)
            closing.append(lambda: run.run(target.close()))
        return MongoProbe(target, **options)

    yield make
    for close in closing:
        close()
    closing.clear()
    with warnings.catch_warnings():
        # pymongo leaves the socket by which an async client watches a sick server to the collector.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


by_each = pytest.mark.parametrize("kind", KINDS)


def fails(run: Runner, probe: MongoProbe) -> str:
    with pytest.raises(ProbeFailedError) as info:
        run.outcome(probe)
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return str(info.value)


@by_each
@pytest.mark.parametrize("options", ["", "?replicaSet=shop", "?directConnection=true"])
def test_a_primary(kind: str, options: str, make: Any, run: Runner) -> None:
    with Mongo(replica_set="shop" if "replica" in options else "") as server:
        probe = make(kind, server.url + options)
        for _ in range(5):
            assert set(run(probe)) == {"latency_seconds"}
        accepted = server.accepted
        run.together(probe, 3)
        run(probe)
        assert server.accepted <= accepted + 3  # the client's pool, and those that it watches by
        assert repr(probe) == f"<MongoProbe 127.0.0.1:{server.port}>"
        run.close_probe(probe)
        run(probe)


@by_each
def test_no_primary(kind: str, make: Any, run: Runner) -> None:
    with Mongo(writable=False, replica_set="shop") as server:
        url = f"{server.url}?replicaSet=shop"
        assert fails(run, make(kind, url, timeout=0.5)) == (
            f"no server will do: 127.0.0.1:{server.port}: RSSecondary"
        )
        run(make(kind, url, role="any"))
        direct = make(kind, f"{server.url}?directConnection=true")
        assert fails(run, direct) == "the server that answers is no primary"


@by_each
def test_a_login(kind: str, make: Any, run: Runner) -> None:
    with Mongo(password=PASSWORD) as server:
        url = f"mongodb://app:%s@127.0.0.1:{server.port}/?authMechanism=PLAIN&tls=false"
        run(make(kind, url % PASSWORD))
        wrong = make(kind, url % f"not-{PASSWORD}")
        assert fails(run, wrong) == "OperationFailure: Authentication failed."


@by_each
def test_connections_lost_and_refused(kind: str, make: Any, run: Runner) -> None:
    with Mongo() as server:
        probe = make(kind, server.url, timeout=1.0)
        run(probe)
        server.drop_connections()
        run(probe)  # goes unnoticed
    told = fails(run, probe)
    assert told.startswith(f"no server will do: 127.0.0.1:{server.port}: [Errno 111] Conn")


@by_each
def test_why_there_is_no_server_is_told_while_there_is_time(
    kind: str, make: Any, run: Runner
) -> None:
    with Mongo() as server:
        url = server.url
    health = Health()
    health.add("mongo", make(kind, url, timeout=3), timeout=3)
    for _ in range(2):
        result = run.run(health.run(fresh=True)).results["mongo"]
        assert result.detail.startswith(f"no server will do: 127.0.0.1:{server.port}: [Errno 111]")
    run.run(health.aclose())


@by_each
def test_a_server_that_hangs_and_wakes_up(kind: str, make: Any, run: Runner) -> None:
    with Mongo() as server:
        probe = make(kind, server.url, timeout=0.5)
        run(probe)
        server.awake.clear()
        for _ in range(2):
            with pytest.raises(ProbeTimeoutError):
                run(probe)
        server.awake.set()

        def is_well() -> bool:
            try:
                run(probe)
            except ProbeFailedError:
                return False
            return True

        until_sync(is_well)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exhausted_pool_of_the_apps_is_degraded(kind: str, run: Runner) -> None:
    with Mongo() as server:
        url = f"{server.url}?maxPoolSize=1&directConnection=true"
        client: Any = pymongo.MongoClient(url) if kind == "sync" else pymongo.AsyncMongoClient(url)
        probe = MongoProbe(client, timeout=0.4)
        run(probe)
        server.awake.clear()
        if kind == "sync":
            hold = threading.Thread(target=client.admin.command, args=("hello",))
            hold.start()
            until_sync(lambda: not hold.is_alive() or _in_use(client))
            complaint, _ = run.outcome(probe)
            server.awake.set()
            hold.join()
            client.close()
        else:

            async def main() -> Any:
                holder = asyncio.create_task(client.admin.command("hello"))
                await until(lambda: _in_use(client))
                outcome = await probe()  # type: ignore[misc] # async, as the client is
                server.awake.set()
                await holder
                await client.close()
                return outcome

            complaint = run.run(main()).detail
        assert complaint == "the app's pool gave no connection in time"


def _in_use(client: Any) -> bool:
    """White-box: pymongo tells nowhere else how many of a pool's connections are in use."""
    servers = client._topology._servers.values()
    return any(server.pool.active_sockets for server in servers)


@by_each
@pytest.mark.parametrize("talk", [silent, garbage, reset, drip(b"\x10\0\0\0" * 100)])
def test_a_server_that_is_no_server(kind: str, talk: Any, make: Any, run: Runner) -> None:
    with FakeServer(talk) as server:
        probe = make(kind, f"mongodb://app:{PASSWORD}@127.0.0.1:{server.port}/", timeout=0.3)
        started = time.monotonic()
        fails(run, probe)
        assert time.monotonic() - started < 15
        run.close_probe(probe)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"mongodb://app:{PASSWORD}@one,two:7/shop?replicaSet=x", "one:27017,two:7"),
        (f"mongodb+srv://app:{PASSWORD}@cluster.example.org/shop", "cluster.example.org"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert repr(probe_from_dsn(url)) == f"<MongoProbe {shown}>"


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://{PASSWORD}:x/@host",
        f"mongodb://host:{PASSWORD}",
        f"mongodb+srv://host:{PASSWORD}",
        f"http://{PASSWORD}",
        PASSWORD,
    ],
)
def test_bad_urls_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="target must be a URL like mongodb://") as info:
        MongoProbe(url)
    assert PASSWORD not in f"{info.value!r}{info.value.__cause__}"


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="role must be 'primary' or 'any', not 'secondary'"):
        MongoProbe("mongodb://host", role="secondary")  # type: ignore[arg-type] # under test
    with pytest.raises(ValueError, match=r"timeout=.* must be"):
        MongoProbe("mongodb://host", timeout=0)
    with pytest.raises(TypeError, match=r"target must be a MongoClient, .* not int"):
        MongoProbe(27017)  # type: ignore[arg-type] # under test


def test_an_async_client_on_trio_is_told_what_to_do() -> None:
    probe = MongoProbe(pymongo.AsyncMongoClient("mongodb://127.0.0.1:1", connect=False))
    with pytest.raises(ProbeFailedError, match="asyncio only; pass a MongoClient or a URL"):
        trio.run(probe)  # type: ignore[arg-type] # async, because the target is
