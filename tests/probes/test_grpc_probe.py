"""GRPCProbe against real servers of gRPC's own, with the health service that comes with it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import trio
import trustme
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import GRPCProbe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.probes.running import Runner

TOKEN = "s3cr3t-b4it"


@contextmanager
def serving(
    *, port: int = 0, health: Any = None, credentials: grpc.ServerCredentials | None = None
) -> Iterator[int]:
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        if health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(health, server)
        address = f"localhost:{port}" if credentials else f"127.0.0.1:{port}"
        bound = (
            server.add_secure_port(address, credentials)
            if credentials
            else server.add_insecure_port(address)
        )
        server.start()
        try:
            yield bound
        finally:
            server.stop(None).wait()


@pytest.fixture
def health() -> HealthServicer:
    servicer = HealthServicer()
    servicer.set("", HealthCheckResponse.SERVING)
    servicer.set("shop.v1.Orders", HealthCheckResponse.NOT_SERVING)
    return servicer


def fails(run: Runner, probe: Any) -> str:
    with pytest.raises(ProbeFailedError) as info:
        run(probe)
    assert TOKEN not in f"{info.value!r}{info.value}{probe!r}"
    return str(info.value)


@pytest.mark.parametrize("kind", ["address", "channel", "aio"])
def test_each_status_and_what_there_is_none_of(
    kind: str, health: HealthServicer, run: Runner
) -> None:
    async def aio() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            whole: Any = GRPCProbe(channel)
            orders: Any = GRPCProbe(channel, "shop.v1.Orders")
            assert "latency_seconds" in await whole()
            with pytest.raises(ProbeFailedError, match=r"shop\.v1\.Orders is NOT_SERVING"):
                await orders()

    with serving(health=health) as port:
        if kind == "aio":
            run.run(aio())
            return
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        target = channel if kind == "channel" else f"127.0.0.1:{port}"
        whole, orders = GRPCProbe(target), GRPCProbe(target, "shop.v1.Orders")
        assert set(run(whole)) == {"latency_seconds"}
        assert fails(run, orders) == "shop.v1.Orders is NOT_SERVING"
        health.set("shop.v1.Orders", HealthCheckResponse.SERVING)
        run(orders)
        unknown = GRPCProbe(target, "shop.v1.Nope")
        assert fails(run, unknown) == "the server knows no service 'shop.v1.Nope'"
        run.close_probe(whole)
        run(whole)  # by another channel of its own, or by the app's, which is still open
        for probe in (whole, orders, unknown):
            run.close_probe(probe)
        channel.close()


def test_a_server_without_the_health_service(run: Runner) -> None:
    with serving() as port:
        assert "has no health service" in fails(run, GRPCProbe(f"127.0.0.1:{port}"))


def test_a_restart_goes_unnoticed_and_a_stop_does_not(health: HealthServicer, run: Runner) -> None:
    with serving(health=health) as port:
        probe = GRPCProbe(f"127.0.0.1:{port}", timeout=5.0)
        run(probe)
    with serving(port=port, health=health):
        run(probe)
    for _ in range(3):
        assert "UNAVAILABLE" in fails(run, probe)
    with serving(port=port, health=health):
        run(probe)  # at once: gRPC's own backoff is not in the way
        run.close_probe(probe)


def test_a_server_that_does_not_answer_in_time(run: Runner) -> None:
    class Slow(HealthServicer):
        def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            release.wait(30)
            return super().Check(request, context)

    release = threading.Event()
    with serving(health=Slow()) as port:
        probe = GRPCProbe(f"127.0.0.1:{port}", timeout=0.2)
        with pytest.raises(ProbeTimeoutError, match=r"no answer within 0\.2 s"):
            run(probe)
        run.close_probe(probe)
        release.set()


def test_tls_and_a_token(health: HealthServicer, run: Runner) -> None:
    class Closed(HealthServicer):
        def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
            if ("authorization", TOKEN) not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            return health.Check(request, context)

    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key, chain = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    server = grpc.ssl_server_credentials([(key, chain)])
    trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with serving(health=Closed(), credentials=server) as port:
        address = f"localhost:{port}"
        token = (("authorization", TOKEN),)
        for sent in token, (("authorization", TOKEN.encode()),):  # gRPC takes either
            run(GRPCProbe(address, tls=trusting, metadata=sent))
        wrong = GRPCProbe(address, tls=trusting, metadata=(("authorization", f"x{TOKEN}"),))
        assert fails(run, wrong) == "UNAUTHENTICATED: who are you?"
        assert "UNAVAILABLE" in fails(run, GRPCProbe(address, tls=True, metadata=token))
        assert "UNAVAILABLE" in fails(run, GRPCProbe(address))
    channel = grpc.insecure_channel(address)
    with pytest.raises(ValueError, match="tls belongs to the channel"):
        GRPCProbe(channel, tls=True)
    channel.close()


def test_a_url_is_for_another_function() -> None:
    for scheme in ("grpc", "https"):
        with pytest.raises(ValueError, match="must be like 'host:50051'; probe_from_dsn"):
            GRPCProbe(f"{scheme}://127.0.0.1:1")
    GRPCProbe("dns:///127.0.0.1:1")  # gRPC's own


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tls": "ca.pem"}, "tls must be True, False or grpc.ChannelCredentials, not str"),
        ({"metadata": {"authorization": TOKEN}}, r"metadata must be pairs: write \(\('auth"),
        ({"metadata": TOKEN}, "metadata must be pairs"),
        ({"metadata": [("Authorization", TOKEN)]}, "'Authorization' must be lower-case letters"),
        ({"metadata": [("authorization", f"{TOKEN}\n")]}, "'authorization' must be one line"),
        ({"metadata": [("authorization", f"{TOKEN}é")]}, "'authorization' must be one line"),
        ({"metadata": [("authorization", f"{TOKEN}\n".encode())]}, "'authorization' must be one"),
        ({"metadata": ("authorization", TOKEN)}, "metadata must be pairs"),  # a comma is missing
        ({"metadata": [("trace-bin", TOKEN)]}, "the value of 'trace-bin' must be bytes, not str"),
    ],
)
def test_options_that_grpc_would_refuse_in_each_run(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as info:
        GRPCProbe("127.0.0.1:1", **options)
    assert TOKEN not in str(info.value)
    GRPCProbe("127.0.0.1:1", metadata=(("trace-bin", b"\xff"), ("x_a.b-1", "")))


def test_an_aio_channel_on_trio_is_told_what_to_do(run: Runner) -> None:
    async def make() -> GRPCProbe:
        return GRPCProbe(grpc.aio.insecure_channel("127.0.0.1:1"))

    probe = run.run(make())
    with pytest.raises(ProbeFailedError, match=r"asyncio only; pass a sync grpc\.Channel"):
        trio.run(probe)
