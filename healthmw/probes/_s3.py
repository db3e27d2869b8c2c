"""A probe of a bucket in S3, or in storage that speaks its protocol (MinIO, Ceph, R2)."""

from __future__ import annotations

import time
from contextvars import ContextVar
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from healthmw._driver import check_timeout, shut_down_after
from healthmw._kept import KeptConnection
from healthmw._sockets import connected
from healthmw._wire import tls_context
from healthmw.exceptions import MissingExtraError, ProbeFailedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from healthmw._model import Measurement

_LIFE = 60  # seconds for which the signed request is good
_WHY = {
    301: "it lies in another region than the client's",
    400: "the request was refused as bad: perhaps the token or the region is wrong",
    403: "access is denied: the credentials are wrong, or may not see this bucket",
    404: "it does not exist",
}

_VERSION_4 = {"v4-query", "s3v4-query"}

# boto3 signs a URL otherwise than a request: for the global host and, in the oldest regions, by
# Signature Version 2, which new buckets refuse. Set while the probe signs; the app's stay as is.
_signs: ContextVar[bool] = ContextVar("healthmw_s3_signs", default=False)


def _where_the_app_asks(context: dict[str, Any], **_: object) -> None:
    if _signs.get():
        context["use_global_endpoint"] = False


def _as_the_app_signs(signature_version: str, **_: object) -> str | None:
    # Called before boto3's own handler, which would put version 2 in its place.
    return "s3v4-query" if _signs.get() and signature_version in _VERSION_4 else None


class S3Probe:
    """Ask for the head of `bucket`, as the app's boto3 client would.

    A pass proves that the storage answered, that it accepted the client's credentials, and that the
    bucket exists and these may list it (`s3:ListBucket`); not that an object can be written.

    `client` is the app's `boto3.client("s3")`, or `boto3.client("s3", endpoint_url=...)`; by
    default one is made as boto3 does, from the environment. It signs the request, and no more:
    botocore's own time limits (60 s, with retries) can't be set for a single call, so the probe
    sends it over a connection of its own that is kept between runs. That heeds no proxy settings.

    `verify`: True checks the server's certificate; an `ssl.SSLContext` checks it by that; False
    does not. `timeout` (seconds) is for connecting, TLS and the answer; the check's own timeout
    counts where it is shorter, and for what boto3 may have to fetch first, temporary credentials.

    Asked in a thread, on asyncio and trio. Measures `latency_seconds`. Raises `ProbeFailedError`.
    """

    def __init__(
        self,
        bucket: str,
        *,
        client: Any = None,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
    ) -> None:
        try:
            import boto3
        except ImportError as exc:
            raise MissingExtraError("S3Probe", extra="boto3") from exc
        if not bucket or "/" in bucket:
            raise ValueError(f"bucket must be a bucket's name, not {bucket!r}")
        if client is not None and not hasattr(client, "generate_presigned_url"):
            raise TypeError(f'client must be a boto3.client("s3"), not {type(client).__name__}')
        self._bucket = bucket
        self._client = boto3.client("s3") if client is None else client
        events = self._client.meta.events
        for event, handler in (
            ("provide-client-params.s3.HeadBucket", _where_the_app_asks),
            ("choose-signer.s3.HeadBucket", _as_the_app_signs),
        ):
            events.register(event, handler, unique_id=f"healthmw {event}")
        self._context = tls_context(verify)
        self._timeout = check_timeout(timeout)
        self._where: tuple[str, str, int | None] = "", "", None
        self._kept = KeptConnection(
            connect=self._connect, close=HTTPConnection.close, timeout=self._timeout
        )

    def __repr__(self) -> str:
        return f"<S3Probe {self._bucket}>"

    def __call__(self) -> Mapping[str, Measurement]:
        """Ask once."""
        from botocore.exceptions import BotoCoreError

        token = _signs.set(True)
        try:
            # A client of boto3's may be used by several threads at once.
            signed = self._client.generate_presigned_url(
                "head_bucket", {"Bucket": self._bucket}, _LIFE, "HEAD"
            )
        except BotoCoreError as exc:
            raise ProbeFailedError(f"the request can't be signed: {exc}") from exc
        finally:
            _signs.reset(token)
        started = time.monotonic()
        parts = urlsplit(signed)
        where = parts.scheme, parts.hostname or "", parts.port
        if where != self._where:  # at first; later, boto3 may have learned of another region
            self._kept.close()
            self._where = where
        asked = f"{parts.path or '/'}?{parts.query}"
        try:
            status = self._kept.run(lambda connection, left: _ask(connection, asked, left))
        except ProbeFailedError:
            raise
        except (OSError, HTTPException) as exc:
            raise ProbeFailedError(f"{type(exc).__name__}: {exc}") from exc
        if not 200 <= status < 300:
            why = f": {_WHY[status]}" if status in _WHY else ""
            raise ProbeFailedError(f"the bucket {self._bucket} answers with status {status}{why}")
        return {"latency_seconds": time.monotonic() - started}

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._kept.close()

    def _connect(self, seconds: float) -> HTTPConnection:
        scheme, host, port = self._where
        connection = HTTPConnection(host, port)
        if scheme == "https":
            connection = HTTPSConnection(host, port, context=self._context)
        sock = connected(connection.host, connection.port, seconds)
        try:
            with shut_down_after(seconds) as watch:
                watch(sock.fileno())
                if scheme == "https":
                    sock = self._context.wrap_socket(sock, server_hostname=connection.host)
        except BaseException:
            sock.close()
            raise
        connection.sock = sock
        return connection


def _ask(connection: HTTPConnection, asked: str, seconds: float) -> int:
    if connection.sock is None:
        raise ConnectionResetError("the server has closed the connection")
    with shut_down_after(seconds) as watch:
        watch(connection.sock.fileno())
        connection.request("HEAD", asked)
        answer = connection.getresponse()
        answer.read()
        return answer.status
