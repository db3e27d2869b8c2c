"""A probe of a gRPC service, by gRPC's own health protocol."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from healthmw._driver import check_timeout, require_asyncio
from healthmw._held import PerProcess
from healthmw._options import WrongTypeError
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import grpc
    import grpc.aio

    from healthmw._model import Measurement

_NAME = re.compile(r"[0-9a-z_.-]+")
_URLS = {"grpc", "grpcs", "http", "https"}  # gRPC would look for a host of such a name

# A channel of the probe's own forgets its failures at once: the checks space their trials already.
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", "healthmw"),
)


class GRPCProbe:
    """Ask a gRPC server for the health of one of its services (`grpc.health.v1.Health/Check`).

    A pass proves that the server answered `SERVING` for that service just now. Any other status
    fails, and so do a service that it does not know, and a server without the health service.

    `target` is the app's own `grpc.Channel` or `grpc.aio.Channel`, used as it is (its interceptors
    too) and never closed; or an address (`"host:50051"`, `"dns:///host:50051"`, `"unix:/path"`),
    for a channel of the probe's own that is kept between runs. Each process makes its own on first
    use; but gRPC itself wants no channel to be in use before a fork.

    - `service`: a service's full name (`"shop.v1.Orders"`); by default the server as a whole.
    - `tls`: with an address, True for TLS with the default certificates, or
      `grpc.ChannelCredentials`.
    - `metadata`: pairs to send with each call, as for authentication; in no message. The value of
      a name that ends in `-bin` is bytes.
    - `timeout`: seconds for all of it: name, connection, TLS, the answer. The check's own timeout
      counts where it is shorter.

    With a `grpc.aio.Channel` it needs asyncio; else it runs in a thread, on asyncio and trio.
    Measures `latency_seconds`. Raises `ProbeFailedError`.
    """

    def __init__(
        self,
        target: str | grpc.Channel | grpc.aio.Channel,
        service: str = "",
        *,
        tls: bool | grpc.ChannelCredentials = False,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        timeout: float = 2.0,
    ) -> None:
        try:
            import grpc
            import grpc.aio
            import grpc_health.v1.health_pb2_grpc  # noqa: F401 - to see whether it is there
        except ImportError as exc:
            raise MissingExtraError("GRPCProbe", extra="grpc") from exc
        if not isinstance(target, str | grpc.Channel | grpc.aio.Channel):
            raise TypeError(
                "target must be an address, a grpc.Channel or a grpc.aio.Channel,"
                f" not {type(target).__name__}"
            )
        if not target:
            raise ValueError("target must be an address like 'host:50051', not ''")
        if isinstance(target, str) and target.partition("://")[0] in _URLS:
            raise ValueError("target must be like 'host:50051'; probe_from_dsn() takes URLs")
        if tls and not isinstance(target, str):
            raise ValueError("tls belongs to the channel: set it there when you pass one")
        self.is_async: bool = isinstance(target, grpc.aio.Channel)
        self._target = target
        self._service = service
        if not isinstance(tls, bool | grpc.ChannelCredentials):
            raise WrongTypeError(
                f"tls must be True, False or grpc.ChannelCredentials, not {type(tls).__name__}"
            )
        self._credentials = grpc.ssl_channel_credentials() if tls is True else tls
        self._metadata = _checked(metadata)
        self._timeout = check_timeout(timeout)
        self._own = PerProcess(self._open)
        self._answered = False

    def __repr__(self) -> str:
        where = self._target if isinstance(self._target, str) else "the app's channel"
        return f"<GRPCProbe {where} {self._service or '(the server)'}>"

    def __call__(self) -> Mapping[str, Measurement] | Awaitable[Mapping[str, Measurement]]:
        """Ask once: by a coroutine for a `grpc.aio.Channel`, else at once."""
        return self._run_async() if self.is_async else self._run_sync()

    async def aclose(self) -> None:
        """Close the probe's own channel; the next run opens another."""
        channel = self._own.pop()
        if channel is not None:
            channel.close()

    def _run_sync(self) -> Mapping[str, Measurement]:
        import grpc

        started = time.perf_counter()
        until = time.monotonic() + self._timeout
        try:
            if not isinstance(self._target, str):
                answer = self._check(self._target, until)
            else:
                answer = self._check_own(until)
        except grpc.RpcError as exc:
            raise self._failure(exc) from None  # its text holds all of the call
        return self._judge(answer, started)

    async def _run_async(self) -> Mapping[str, Measurement]:
        require_asyncio("grpc.aio", instead="pass a sync grpc.Channel on trio")
        import grpc

        started = time.perf_counter()
        try:
            answer = await self._check(self._target, time.monotonic() + self._timeout)
        except grpc.RpcError as exc:
            raise self._failure(exc) from None
        return self._judge(answer, started)

    def _check_own(self, until: float) -> Any:
        import grpc

        kept, self._answered = self._answered, False
        while True:
            channel = self._own.get()
            try:
                answer = self._check(channel, until)
            except grpc.RpcError as exc:
                # gRPC waits longer and longer before it connects again; a new channel does not.
                if self._own.get() is channel:
                    self._own.pop()
                channel.close()
                if not kept or exc.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                kept = False  # it had died since the last run
            else:
                self._answered = True
                return answer

    def _check(self, channel: Any, until: float) -> Any:
        from grpc_health.v1.health_pb2 import HealthCheckRequest
        from grpc_health.v1.health_pb2_grpc import HealthStub

        left = max(0.001, until - time.monotonic())
        request = HealthCheckRequest(service=self._service)
        stub: Any = HealthStub(channel)  # its methods are made at run time
        return stub.Check(request, timeout=left, metadata=self._metadata)

    def _open(self) -> grpc.Channel:
        import grpc

        assert isinstance(self._target, str)  # noqa: S101 - for the type checker
        # A connection that is not made by then is given up, and not 20 seconds later.
        limit = ("grpc.min_reconnect_backoff_ms", max(1, int(self._timeout * 1000)))
        options = (*_OPTIONS, limit)
        if not self._credentials:
            return grpc.insecure_channel(self._target, options=options)
        return grpc.secure_channel(self._target, self._credentials, options=options)

    def _judge(self, answer: Any, started: float) -> Mapping[str, Measurement]:
        from grpc_health.v1.health_pb2 import HealthCheckResponse

        if answer.status != HealthCheckResponse.SERVING:
            known = answer.status in HealthCheckResponse.ServingStatus.values()
            status = (
                HealthCheckResponse.ServingStatus.Name(answer.status) if known else answer.status
            )
            raise ProbeFailedError(f"{self._service or 'the server'} is {status}")
        return {"latency_seconds": time.perf_counter() - started}

    def _failure(self, exc: Any) -> ProbeFailedError:
        import grpc

        code = exc.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ProbeTimeoutError(f"no answer within {self._timeout:g} s")
        if code is grpc.StatusCode.NOT_FOUND:
            return ProbeFailedError(f"the server knows no service {self._service!r}")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return ProbeFailedError("the server has no health service (grpc.health.v1)")
        return ProbeFailedError(f"{code.name}: {exc.details()}")


def _checked(metadata: Any) -> tuple[tuple[str, Any], ...]:
    """Return the pairs; refuse what gRPC would refuse in each run, and show no value."""
    found = tuple(metadata)
    pairs = all(isinstance(one, tuple | list) and len(one) == 2 for one in found)
    if isinstance(metadata, Mapping | str) or not pairs:
        raise WrongTypeError("metadata must be pairs: write (('authorization', '...'),)")
    for name, value in found:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"metadata: {name!r} must be lower-case letters, digits, '-', '_', '.'"
            )
        line = value.decode("latin-1") if isinstance(value, bytes) else value
        if name.endswith("-bin"):
            if not isinstance(value, bytes):
                raise WrongTypeError(
                    f"metadata: the value of {name!r} must be bytes, not {type(value).__name__}"
                )
        elif not (isinstance(line, str) and line.isascii() and line.isprintable()):
            raise ValueError(f"metadata: the value of {name!r} must be one line of ASCII text")
    return found
