"""The gRPC health checking protocol, v1, from the same `Health` (extra `grpc`).

The protocol is that of `grpc.health.v1.Health`, which gRPC's own clients, Kubernetes' `grpc` probes
and `grpc_health_probe` speak. A service's name there is a group or a check here, and the
empty name is `ready`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import TYPE_CHECKING, Any

from healthmw._options import seconds, text
from healthmw._reports import Asked
from healthmw.exceptions import MissingExtraError

try:
    import grpc
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc
except ImportError as _exc:
    raise MissingExtraError("healthmw.grpc", extra="grpc") from _exc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from healthmw._health import Health
    from healthmw._model import Report

__all__ = ("HealthServicer", "serve")

_WATCHES_AT_MOST = 100
_STARTING = 10.0  # seconds until a server that has not said how it goes is given up
_GRACE = 1.0  # seconds that calls under way have at the end
_CALLS_AT_MOST = 200  # at once, watches among them
_REQUEST_BYTES = 4096

_HOST_AND_PORT = re.compile(r"(?:\[[^\]]+\]|[^:]+):(\d{1,5})", re.ASCII)
_OTHER_ADDRESSES = ("unix:", "unix-abstract:", "vsock:")

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthServicer(health_pb2_grpc.HealthServicer):
    """`Check` and `Watch` for a `grpc.aio` server of your own.

    `health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(health), server)`. A group that
    passes is SERVING, one that doesn't is NOT_SERVING, also while the app drains. A `Watch` has the
    checks run every `interval` seconds and tells each change; a name that nothing has is
    SERVICE_UNKNOWN there and NOT_FOUND for `Check`. There may be 100 watches at once.
    """

    def __init__(self, health: Health, *, interval: float = 1.0) -> None:
        self._health = health
        self._interval = seconds("interval", interval)
        self._watches = 0

    async def Check(  # noqa: N802 - the protocol's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ],
    ) -> health_pb2.HealthCheckResponse:
        """Answer once."""
        status = await self._status(request.service)
        if status == _SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no group or check has that name")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 - the protocol's name
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Answer now, and then whenever the answer has changed."""
        if self._watches >= _WATCHES_AT_MOST:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches")
        self._watches += 1
        try:
            told = None
            while True:
                status = await self._status(request.service)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                await asyncio.sleep(self._interval)
        finally:
            self._watches -= 1

    async def List(  # noqa: N802 - the protocol's name
        self,
        request: object,  # noqa: ARG002 - the protocol's
        context: grpc.aio.ServicerContext[Any, Any],  # older protocols have no types for it
    ) -> None:
        """Say that it isn't here: it would have all checks run, whatever they cost."""
        # Without this gRPC logs a traceback, as often as anyone asks.
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask for one name, by Check or Watch")

    async def _status(self, service: str) -> int:
        name = service or "ready"
        if name not in self._health:
            return int(_SERVICE_UNKNOWN)
        report = await self._report(name)
        return int(_SERVING if report.ok else _NOT_SERVING)

    async def _report(self, name: str) -> Report:
        self._health.start()
        return await self._health.run(name)


class _AsideServicer(HealthServicer):
    """The same on an event loop that isn't the app's: the probes run where the app's clients do."""

    async def _report(self, name: str) -> Report:
        asked = Asked(name, self._health.deadline, fresh=False, only=None)
        return await self._health._run_aside(asked)  # noqa: SLF001 - the same house


def serve(
    health: Health,
    address: str,
    *,
    credentials: grpc.ServerCredentials | None = None,
    interval: float = 1.0,
) -> Callable[[], None]:
    """Serve the protocol at `address` (`127.0.0.1:50051`, `unix:/run/shop.sock`) from now on.

    On a thread and an event loop of its own, so beside any app, in each process that calls it; the
    checks run where the app's own run. With `credentials` it speaks TLS. Two hundred calls at once
    are answered; who watches is told of changes every `interval` seconds. Returns what ends it.
    Raises `ValueError` for what is no address, and `OSError` when it is not to be had.
    """
    _check_address(address)
    servicer = _AsideServicer(health, interval=interval)
    health.start()
    server = _Server(servicer, address, credentials)
    server.start()
    return server.stop


def _check_address(address: str) -> None:
    """Refuse what gRPC would make an address of its own of: 443 for no port, 34463 for 99999."""
    if text("address", address).startswith(_OTHER_ADDRESSES):
        return
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or int(found[1]) > 65535:
        raise ValueError(f"address={address!r} must be 'host:port' or 'unix:/path'")


class _Server:
    """A `grpc.aio` server and its thread. Its state is written by the thread alone."""

    def __init__(
        self, servicer: HealthServicer, address: str, credentials: grpc.ServerCredentials | None
    ) -> None:
        self._servicer = servicer
        self._address = address
        self._credentials = credentials
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="healthmw-grpc", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(_STARTING) or self._error is not None:
            raise OSError(f"can't serve gRPC at {self._address}") from self._error

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # its loop has just ended
                self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join(2 * _GRACE)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:  # noqa: BLE001 - handed to whoever starts it
            self._error = exc
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", _REQUEST_BYTES),
            ],
            maximum_concurrent_rpcs=_CALLS_AT_MOST,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        if self._credentials is None:
            server.add_insecure_port(self._address)
        else:
            server.add_secure_port(self._address, self._credentials)
        await server.start()
        self._started.set()
        await self._ended.wait()
        await server.stop(_GRACE)
