"""A gRPC service, with gRPC's own health service."""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from healthmw.probes import GRPCProbe
from tests.faults.subject import Address, Subject
from tests.services.servers import PASSWORD, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from healthmw._probe import Probe

_LIMIT = 4
"""So many calls the service takes at once."""

_SERVICE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse

port, limit = int(sys.argv[1]), int(sys.argv[2])


class Login(grpc.ServerInterceptor):
    def intercept_service(self, proceed, call):
        if dict(call.invocation_metadata).get("authorization") == Path("token").read_text():
            return proceed(call)
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        )


health = HealthServicer(experimental_non_blocking=False)  # so that who watches counts as a call
health.set("", HealthCheckResponse.SERVING)
server = grpc.server(
    ThreadPoolExecutor(2 * limit),
    interceptors=[Login()],
    options=[("grpc.so_reuseport", 0)],
    maximum_concurrent_rpcs=limit,
)
health_pb2_grpc.add_HealthServicer_to_server(health, server)
address = f"127.0.0.1:{port}"
if Path("key.pem").exists():
    pair = Path("key.pem").read_bytes(), Path("certificate.pem").read_bytes()
    server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
else:
    server.add_insecure_port(address)
server.start()
server.wait_for_termination()
"""


class Service(Server):
    """Serves those who show the token."""

    account = "root"  # if that is who runs the tests: their Python may be for no one else to run

    def __init__(self) -> None:
        super().__init__()
        self.folder.joinpath("service.py").write_text(_SERVICE, encoding="utf-8")
        self.token = PASSWORD
        self.take(PASSWORD)

    def command(self) -> Sequence[str]:
        return (sys.executable, "service.py", str(self.port), str(_LIMIT))

    def ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def take(self, token: str) -> None:
        """Take another token."""
        self.token = token
        self.folder.joinpath("token").write_text(token, encoding="utf-8")

    def secure(self, certificate: Path, key: Path) -> None:
        """Speak TLS, after a restart."""
        self.folder.joinpath("certificate.pem").write_bytes(certificate.read_bytes())
        self.folder.joinpath("key.pem").write_bytes(key.read_bytes())
        self.restart()


class Grpc(Subject):
    """By a channel of the probe's own."""

    name = "`GRPCProbe`"
    surely_before = 0.5  # HTTP/2 goes on with pings and windows after the answer
    resolver = "gRPC asks C's resolver, which the test has no hand in"
    server: Service

    def new_server(self) -> Service:
        return Service()

    def probe(self, at: Address, timeout: float) -> Probe:
        import grpc

        tls = at.ca is not None and grpc.ssl_channel_credentials(at.ca.read_bytes())
        metadata = (("authorization", at.password),)
        return GRPCProbe(f"{at.host}:{at.port}", tls=tls, metadata=metadata, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        import grpc
        from grpc_health.v1.health_pb2 import HealthCheckRequest
        from grpc_health.v1.health_pb2_grpc import HealthStub

        with grpc.insecure_channel(f"127.0.0.1:{self.server.port}") as channel:
            stub: Any = HealthStub(channel)  # its methods are made at run time
            metadata = (("authorization", self.server.token),)
            calls = [stub.Watch(HealthCheckRequest(), metadata=metadata) for _ in range(_LIMIT)]
            for call in calls:
                next(call)
            yield
            for call in calls:
                call.cancel()

    def accept(self, password: str) -> None:
        self.server.take(password)

    def present(self, certificate: Path, key: Path) -> None:
        self.server.secure(certificate, key)
