"""RedisProbe's options and words, and servers that misbehave in known ways."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
import redis.asyncio
import trio

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import RedisProbe
from tests.fakes import FakeServer, drip, full_listener, garbage, receive, reset, silent
from tests.waiting import foreign_threads

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Callable

    from tests.probes.running import Runner

PASSWORD = "s3cr3t-b4it"


def scripted(answers: dict[bytes, bytes]) -> Any:
    """Answer each command by its name, and OK to all others."""

    def talk(client: socket.socket, _stop: threading.Event) -> None:
        while received := receive(client):
            for name in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", received):
                client.sendall(answers.get(name, b"+OK\r\n"))

    return talk


KINDS: dict[str, Callable[[FakeServer], Any]] = {
    "sync": lambda server: redis.Redis.from_url(f"redis://127.0.0.1:{server.port}", protocol=2),
    "async": lambda server: redis.asyncio.Redis.from_url(
        f"redis://127.0.0.1:{server.port}", protocol=2
    ),
    "url": lambda server: f"redis://app:{PASSWORD}@127.0.0.1:{server.port}/0",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "talk",
    [silent, garbage, reset, drip(b"+PONG" * 100), drip(b"$1000000\r\n")],
    ids=["silent", "garbage", "reset", "drip", "long drip"],
)
def test_a_server_that_is_no_server(talk: Any, kind: str, run: Runner) -> None:
    threads = foreign_threads()
    with FakeServer(talk) as server:
        probe = RedisProbe(KINDS[kind](server), timeout=0.15)
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises((ProbeFailedError, redis.RedisError)) as info:
                run(probe)
            assert time.monotonic() - started < 10
            assert PASSWORD not in f"{info.value!r}{info.value}"
        run.close_probe(probe)
        server.wait_until_left()
    assert foreign_threads() <= threads


def test_a_server_that_accepts_nothing(run: Runner) -> None:
    with full_listener() as port:
        probe = RedisProbe(redis.Redis(port=port, socket_connect_timeout=60), timeout=0.2)
        started = time.monotonic()
        with pytest.raises((ProbeFailedError, redis.RedisError)):
            run(probe)
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_that_is_not_pong(kind: str, run: Runner) -> None:
    with FakeServer(scripted({b"PING": b"+POLO\r\n"})) as server:
        probe = RedisProbe(KINDS[kind](server), mode="ping")
        with pytest.raises(ProbeFailedError, match="the answer to PING is not PONG"):
            run(probe)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("answer", [b"$-1\r\n", b"$5\r\nother\r\n"])
def test_another_value_read_back(kind: str, answer: bytes, run: Runner) -> None:
    with FakeServer(scripted({b"GET": answer, b"DEL": b":1\r\n"})) as server:
        probe = RedisProbe(KINDS[kind](server), mode="roundtrip")
        with pytest.raises(ProbeFailedError, match="read back is not what was written"):
            run(probe)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_after_a_failure_a_new_connection_may_find_who_has_taken_over(
    kind: str, run: Runner
) -> None:
    roles = iter([b"$10\r\nrole:slave\r\n", b"$11\r\nrole:master\r\n"])

    def talk(client: socket.socket, stop: threading.Event) -> None:
        scripted({b"PING": b"+PONG\r\n", b"INFO": next(roles)})(client, stop)

    with FakeServer(talk) as server:
        probe = RedisProbe(KINDS[kind](server), mode="ping", role="primary")
        with pytest.raises(ProbeFailedError, match="is a replica, and a primary is expected"):
            run(probe)
        for _ in range(2):
            assert run(probe)["role"] == "primary"
        run.close_probe(probe)


def test_a_node_that_a_cluster_has_replaced_is_let_go(run: Runner) -> None:
    primaries: list[int] = []

    def bulk(text: str) -> bytes:
        return f"${len(text)}\r\n{text}\r\n".encode()

    def talk(client: socket.socket, _stop: threading.Event) -> None:
        while received := receive(client):
            for asked in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n(?:\$\d+\r\n(\w+))?", received):
                node = bulk("127.0.0.1") + b":%d\r\n" % primaries[-1]
                answers = {
                    (b"PING", b""): b"+PONG\r\n",
                    (b"INFO", b"stats"): bulk("evicted_keys:0\r\n"),
                    (b"CLUSTER", b"INFO"): bulk("cluster_state:ok\r\n"),
                    (b"CLUSTER", b"SLOTS"): b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n" + node,
                }
                client.sendall(answers.get(asked, b"+OK\r\n"))

    with FakeServer(talk) as seed, FakeServer(talk) as first, FakeServer(talk) as second:
        url = f"redis+cluster://127.0.0.1:{seed.port}?protocol=2"
        probe = RedisProbe(url, mode="ping", max_evictions=0, timeout=20)
        for server in (first, second):
            primaries.append(server.port)
            run(probe)
        first.wait_until_left()
        assert run(probe)["evictions_per_second"] == 0
        assert [server.accepted for server in (seed, first, second)] == [1, 1, 1]
        run.close_probe(probe)


def test_a_name_that_does_not_resolve(run: Runner) -> None:
    with pytest.raises(ProbeFailedError, match=r"can't resolve nowhere\.invalid"):
        run(RedisProbe("redis://nowhere.invalid"))
    with pytest.raises(redis.ConnectionError, match=r"nowhere\.invalid"):
        run(RedisProbe(redis.Redis(host="nowhere.invalid")))


def test_the_kind_of_target_says_how_to_run_it() -> None:
    assert RedisProbe("redis://localhost").is_async
    assert RedisProbe(redis.asyncio.Redis()).is_async
    assert not RedisProbe(redis.Redis()).is_async


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (f"redis://app:{PASSWORD}@cache.internal:6380/3", "cache.internal:6380/3"),
        (f"rediss://:{PASSWORD}@cache.internal", "cache.internal:6379/0"),
        (f"unix://app:{PASSWORD}@/run/redis.sock?db=2", "/run/redis.sock"),
        (f"redis+cluster://app:{PASSWORD}@one,two:7001", "cluster one:6379,two:7001"),
        (f"rediss+cluster://:{PASSWORD}@one?socket_timeout=1", "cluster one:6379"),
        (f"redis+sentinel://:{PASSWORD}@one:1,two/shop/3", "shop by sentinel one:1,two:26379"),
        (f"rediss+sentinel://:{PASSWORD}@one/shop", "shop by sentinel one:26379"),
    ],
)
def test_the_repr_shows_no_credentials(target: str, shown: str) -> None:
    assert repr(RedisProbe(target)) == f"<RedisProbe {shown}>"


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost:6379",
        f"http://app:{PASSWORD}@localhost",
        f"redis://app:{PASSWORD}/x@localhost",
        f"redis://localhost:{PASSWORD}",
        f"redis://localhost?socket_timeout={PASSWORD}",
        f"redis+{PASSWORD}://localhost",
        f"redis+sentinel://:{PASSWORD}@localhost",
        f"redis+sentinel://:{PASSWORD}@/shop",
        f"redis+cluster://localhost,other:{PASSWORD}",
        f"http+cluster://{PASSWORD}",
    ],
)
def test_bad_urls_are_refused_without_being_quoted(target: str) -> None:
    with pytest.raises(ValueError, match="target must be a URL like redis://") as info:
        RedisProbe(target)
    assert PASSWORD not in f"{info.value!r}{info.value.__cause__}"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mode": "pong"}, "mode must be 'ping' or 'roundtrip', not 'pong'"),
        ({"role": "master"}, "role must be 'primary' or 'replica', not 'master'"),
        ({"role": "replica", "mode": "roundtrip"}, "mode='roundtrip' writes"),
        ({"max_memory": "0.9"}, "max_memory must be a number, not str"),
        ({"max_evictions": "1"}, "max_evictions must be a number, not str"),
        ({"max_memory": 90}, "max_memory must be a share above 0, up to 1, not 90"),
        ({"max_evictions": -1}, "max_evictions must be a number from 0, not -1"),
        ({"timeout": -1}, "timeout=.* must be"),
    ],
)
def test_bad_options(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RedisProbe("redis://localhost", **options)


def test_a_cluster_has_no_role() -> None:
    with pytest.raises(ValueError, match="role is for a single server"):
        RedisProbe("redis+cluster://localhost", role="primary")


def test_a_client_is_wanted() -> None:
    with pytest.raises(TypeError, match=r"target must be a redis\.Redis, .* not int"):
        RedisProbe(6379)  # type: ignore[arg-type] # the mistake under test


def test_an_async_client_on_trio_is_told_what_to_do() -> None:
    probe = RedisProbe("redis://127.0.0.1:1")
    with pytest.raises(ProbeFailedError, match=r"asyncio only; pass a sync redis\.Redis client"):
        trio.run(probe)  # type: ignore[arg-type] # async, because the target is
