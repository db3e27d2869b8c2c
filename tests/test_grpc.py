"""The gRPC health protocol, asked by gRPC's own client."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from healthmw import Health, Status
from healthmw.exceptions import ProbeFailedError
from healthmw.grpc import HealthServicer, serve
from healthmw.testing import ScriptedProbe
from tests.waiting import PATIENCE, until, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BROKEN = ProbeFailedError("no such table")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


class Client:
    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stub: Any = health_pb2_grpc.HealthStub(channel)

    def check(self, service: str = "") -> int:
        request = health_pb2.HealthCheckRequest(service=service)
        status: int = self._stub.Check(request, timeout=PATIENCE, wait_for_ready=True).status
        return status

    def list(self) -> None:  # without the stub, which did not have it once
        call: Any = self._channel.unary_unary("/grpc.health.v1.Health/List")
        call(b"", timeout=PATIENCE, wait_for_ready=True)

    def watch(self, service: str = "") -> Any:
        request = health_pb2.HealthCheckRequest(service=service)
        return self._stub.Watch(request, timeout=PATIENCE, wait_for_ready=True)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[Health], Client]]:
    undo: list[Callable[[], None]] = []

    def connected(health: Health) -> Client:
        address = f"unix:{tmp_path}/{len(undo)}"
        undo.append(serve(health, address, interval=0.02))
        channel = grpc.insecure_channel(address)
        undo.append(channel.close)
        return Client(channel)

    yield connected
    for done in reversed(undo):
        done()


def test_check_says_what_a_group_or_a_check_says(connect: Callable[[Health], Client]) -> None:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe())
    health.add("search", ScriptedProbe(BROKEN), critical=False)
    client = connect(health)
    assert client.check() == client.check("ready") == client.check("database") == SERVING
    assert client.check("search") == NOT_SERVING
    assert client.check("release") == NOT_SERVING  # degraded is no pass there
    assert client.check("live") == SERVING


def test_check_sees_a_failure_and_its_end(connect: Callable[[Health], Client]) -> None:
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, BROKEN, None))
    client = connect(health)
    assert [client.check() for _ in range(3)] == [SERVING, NOT_SERVING, SERVING]


def test_a_name_that_nothing_has_is_not_found_and_is_not_repeated(
    connect: Callable[[Health], Client],
) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    with pytest.raises(grpc.RpcError) as info:
        connect(health).check("shop.Orders")
    error: Any = info.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "shop.Orders" not in error.details()


def test_what_is_not_answered_is_said_without_a_word_in_the_log(
    connect: Callable[[Health], Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(Health())
    with pytest.raises(grpc.RpcError) as info:
        client.list()
    error: Any = info.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not caplog.records


def test_watch_tells_each_change_once(connect: Callable[[Health], Client]) -> None:
    probe = ScriptedProbe()
    health = Health(max_age=0)
    health.add("database", probe)
    stream = connect(health).watch()
    assert next(stream).status == SERVING
    probe.play(BROKEN)
    assert next(stream).status == NOT_SERVING
    probe.play(None)
    assert next(stream).status == SERVING
    health.drain()
    assert next(stream).status == NOT_SERVING
    stream.cancel()


def test_watch_of_a_name_that_comes_later(connect: Callable[[Health], Client]) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    stream = connect(health).watch("search")
    assert next(stream).status == SERVICE_UNKNOWN
    health.add("search", ScriptedProbe())
    assert next(stream).status == SERVING
    stream.cancel()


def test_there_may_be_100_watches_and_those_that_end_make_room(
    connect: Callable[[Health], Client],
) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    client = connect(health)
    streams = [client.watch() for _ in range(100)]
    assert [next(stream).status for stream in streams] == [SERVING] * 100
    with pytest.raises(grpc.RpcError) as info:
        next(client.watch())
    error: Any = info.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()
    until_served(client)


def until_served(client: Client) -> None:
    for _ in range(1000):
        stream = client.watch()
        try:
            assert next(stream).status == SERVING
        except grpc.RpcError:  # those that were cancelled are not all gone yet
            continue
        stream.cancel()
        return
    raise AssertionError("no room was made")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # gRPC has no other
async def test_probes_run_on_the_apps_own_loop(connect: Callable[[Health], Client]) -> None:
    health, loops = Health(max_age=0), []

    @health.probe("database")
    async def database() -> None:
        loops.append(asyncio.get_running_loop())

    async with health:
        client = connect(health)
        assert await anyio.to_thread.run_sync(client.check) == SERVING
    assert loops == [asyncio.get_running_loop()]


def test_background_checks_need_nobody_else_to_start_them(
    connect: Callable[[Health], Client],
) -> None:
    health = Health()
    health.add("database", ScriptedProbe(), interval=3600)
    stream = connect(health).watch()
    until_sync(lambda: next(stream).status == SERVING)
    stream.cancel()


def test_a_servicer_of_the_apps_own_server_runs_probes_on_its_loop() -> None:
    health, loops = Health(), []
    health.add("later", ScriptedProbe(), interval=3600, critical=False)

    @health.probe("database")
    async def database() -> None:
        loops.append(asyncio.get_running_loop())

    async def main() -> None:
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(health), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Client(channel)
            assert await asyncio.to_thread(client.check) == SERVING
            await until(lambda: health.check("later").status is Status.OKAY)
        assert loops == [asyncio.get_running_loop()]
        await server.stop(None)
        await health.aclose()

    asyncio.run(main())


def test_a_long_name_is_not_even_read(connect: Callable[[Health], Client]) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    with pytest.raises(grpc.RpcError) as info:
        connect(health).check("a" * 10_000)
    error: Any = info.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key = issued.private_key_pem.bytes()
    chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    health = Health()
    health.add("database", ScriptedProbe())
    end = serve(
        health, f"127.0.0.1:{port}", credentials=grpc.ssl_server_credentials([(key, chain)])
    )
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with grpc.secure_channel(f"localhost:{port}", trusted) as channel:
        assert Client(channel).check() == SERVING
    end()


def test_an_address_that_is_taken_is_said_at_once() -> None:
    health = Health()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"can't serve gRPC at {address}"):
            serve(health, address)


def test_the_end_ends_its_thread_and_may_come_twice(tmp_path: Path) -> None:
    health = Health()
    end = serve(health, f"unix:{tmp_path}/s")
    (thread,) = (t for t in threading.enumerate() if t.name == "healthmw-grpc")
    end()
    end()
    assert not thread.is_alive()


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="interval"):
        HealthServicer(Health(), interval=0)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1", "[::1]", "localhost:grpc", "", 50051],
)
def test_what_is_no_address_is_refused(address: Any) -> None:
    """gRPC would take some other port for it, and nobody would ask there."""
    with pytest.raises(ValueError, match="address"):
        serve(Health(), address)
