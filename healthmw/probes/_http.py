"""A probe of an HTTP service."""

from __future__ import annotations

import functools
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import anyio

from healthmw._bounds import above
from healthmw._driver import check_timeout, why
from healthmw._held import PerLoop
from healthmw._httpx import Trace, again_if_stale, checked_client, load_httpx2
from healthmw._options import number, text
from healthmw._quiet import unlogged
from healthmw._wire import checked_verify
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes._http_health import ACCEPT, judge_health
from healthmw.probes._http_options import (
    DEFAULT_PORTS,
    as_bytes,
    checked_headers,
    entries,
    host_and_port,
    show,
    split,
    statuses,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx2

    from healthmw._model import Measurement
    from healthmw._probe import Degraded

_MAX_REDIRECTS = 5
_SAFE = {"GET", "HEAD"}
_SIZE = "a whole number of bytes"


class HTTPProbe:
    """Ask an HTTP service for `url` and judge the answer by its status, and its body if asked to.

    A pass proves that the service answered with an expected status (and body) in time; with
    `read_health`, that it says of itself that it is well.

    - `method`: GET by default; HEAD where the body doesn't matter.
    - `expect_status`: one status or a collection of them; 200 to 299 by default.
    - `expect_body`: the body must be exactly this; `expect_in_body`: it must contain this. Text
      stands for its UTF-8 bytes.
    - `max_body`: at most so many bytes of the body are read; an exact body must fit, and what is to
      be contained is looked for in these. What is read of health must fit as well.
    - `read_health`: for the health endpoint of another service, healthmw's or any that answers in
      health+json. Its `warn` is degraded and its `fail` a failure, both naming the parts at fault;
      each part's status is measured as `<part>_status`. `expect_status` and what is expected of
      the body don't count then.
    - `degraded_above`, `failed_above`: seconds that the answer may take before it is degraded or
      failed; None for no bound below `timeout`.
    - `follow_redirects`: False by default, so a redirect fails like any unexpected status. When
      True, a redirect is followed on the same host and port (and from http to https on their
      default ports), and elsewhere only to `allow_hosts`: entries are `"host"`, for the scheme's
      default port, or `"host:port"`. Never from https to http.
    - `verify`: True checks the server's certificate; an `ssl.SSLContext` checks it by that; False
      does not.
    - `headers`: sent with each request, but not to another host after a redirect.
    - `client`: the app's own `httpx2.AsyncClient` (or httpx's), used as it is and never closed; it
      belongs to the loop that the app runs it on. By default the probe keeps one client for each
      loop, with one idle connection, and `aclose` closes it. Where the server closes that under a
      GET or HEAD, it is asked once more, by a new one. That client heeds the environment's proxy
      settings, as httpx2 does.
    - `timeout`: seconds for all of it: name, connection, TLS, redirects, the whole answer. The
      check's own timeout counts where it is shorter.

    A user name and password in `url` are sent as basic authentication, and are in no message.
    Measures `latency_seconds`, until the body was read, and `http_status`. Raises
    `ProbeFailedError`. Runs on asyncio and trio.
    """

    is_async = True

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        expect_status: int | Iterable[int] = range(200, 300),
        expect_body: str | bytes | None = None,
        expect_in_body: str | bytes | None = None,
        max_body: int = 65536,
        headers: Mapping[str, str] | None = None,
        read_health: bool = False,
        degraded_above: float | None = None,
        failed_above: float | None = None,
        follow_redirects: bool = False,
        allow_hosts: Iterable[str] = (),
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        parts = split(url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._shown = urlsplit(self._url)._replace(query="").geturl()
        self._auth = (
            (unquote(parts.username or ""), unquote(parts.password or ""))
            if "@" in parts.netloc
            else None
        )
        self._method = text("method", method).upper()
        self._statuses = statuses(expect_status)
        self._body = as_bytes("expect_body", expect_body)
        self._in_body = as_bytes("expect_in_body", expect_in_body)
        self._max_body = max_body
        self._headers = checked_headers(headers or {})
        self._reads_health = read_health
        # Not compressed, so that max_body bounds the memory: a little may unpack to a lot.
        self._asks_for = {"Accept-Encoding": "identity"}
        if read_health:
            self._asks_for["Accept"] = ACCEPT
        self._bounds = above(degraded_above, failed_above)
        self._follow = follow_redirects
        self._hosts = {host_and_port(entry) for entry in entries(allow_hosts)}
        self._timeout = check_timeout(timeout)
        if number("max_body", max_body, _SIZE) < 0 or not isinstance(max_body, int):
            raise ValueError(f"max_body must be {_SIZE}, not {max_body!r}")
        if max_body < len(self._body or b""):
            raise ValueError(f"max_body must have room for expect_body, not {max_body!r}")
        if self._hosts and not follow_redirects:
            raise ValueError("allow_hosts is for follow_redirects=True")
        if follow_redirects and self._method not in {"GET", "HEAD"}:
            raise ValueError(f"follow_redirects is for GET and HEAD, not {self._method}")
        if self._method == "HEAD" and (self._body or self._in_body):
            raise ValueError(
                "expect_body and expect_in_body want a GET: the answer to HEAD has no body"
            )
        if read_health and (self._body, self._in_body, self._method) != (None, None, "GET"):
            raise ValueError("read_health=True reads the body of a GET: expect nothing else of it")
        checked_verify(verify)
        if client is not None and verify is not True:
            raise ValueError("verify belongs to the client: set it there when you pass client=")
        self._client = checked_client(client)
        if client is None:
            load_httpx2("HTTPProbe")
            import httpx2

            # Once and here, because loading the machine's certificates takes a while; and not where
            # no TLS is spoken: this context trusts nobody.
            tls = parts.scheme == "https" or follow_redirects
            self._tls = (
                httpx2.create_ssl_context(verify=verify)
                if tls
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )
        self._clients = PerLoop(self._make_client, _close_client)

    def __repr__(self) -> str:
        return f"<HTTPProbe {self._shown}>"

    async def __call__(self) -> Degraded | Mapping[str, Measurement]:
        """Ask once."""
        started = time.perf_counter()
        client = self._client or await self._clients.get()
        discard = self.aclose if self._client is None else None
        try:
            with unlogged(), anyio.fail_after(self._timeout):
                fetch = functools.partial(self._fetch, client)
                repeats = self._client is None and self._method in _SAFE
                asking = again_if_stale(fetch, discard) if repeats else fetch(Trace(discard))
                response, body, whole = await asking
        except TimeoutError:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from None
        except ProbeFailedError:
            raise
        except Exception as exc:  # httpx2's or, with an app's own client, httpx's
            raise ProbeFailedError(f"{type(exc).__name__}: {why(exc)}") from exc
        finally:
            if self._client is None:
                client.cookies.clear()  # each run asks as a stranger
        latency = time.perf_counter() - started
        found: Mapping[str, Measurement] = {
            "latency_seconds": latency,
            "http_status": response.status_code,
        }
        health: Degraded | None = None
        if self._reads_health:
            if not whole:
                raise ProbeFailedError(
                    f"status {response.status_code}, and its body is longer than max_body"
                    f" ({self._max_body} bytes)"
                )
            health, found = judge_health(body, response.status_code, found)
        else:
            self._judge(response, body, whole=whole)
        slow = self._bounds.judge(latency, f"the answer took {latency:.2f} s", found)
        return health or slow or found

    async def aclose(self) -> None:
        """Close the probe's connections on this loop; the next run opens others."""
        await self._clients.aclose()

    def _make_client(self) -> httpx2.AsyncClient:
        import httpx2

        return httpx2.AsyncClient(
            verify=self._tls,
            headers={"User-Agent": "healthmw"},
            limits=httpx2.Limits(max_connections=2, max_keepalive_connections=1),
        )

    async def _fetch(
        self, client: httpx2.AsyncClient, trace: Trace
    ) -> tuple[httpx2.Response, bytes, bool]:
        """Return the last answer, as much of its body as was read, and whether that is all."""
        given = {name.lower() for name in self._headers}
        asks_for = {
            name: value for name, value in self._asks_for.items() if name.lower() not in given
        }
        request = client.build_request(
            self._method,
            self._url,
            headers={**asks_for, **self._headers},
            timeout=self._timeout,
            extensions={"trace": trace},
        )
        options: dict[str, Any] = {} if self._auth is None else {"auth": self._auth}
        for _ in range(_MAX_REDIRECTS + 1):
            response = await client.send(request, stream=True, follow_redirects=False, **options)
            try:
                body, whole = await self._read(response)
                following = response.next_request if self._follow else None
                if following is None:
                    return response, body, whole
            finally:
                await response.aclose()
            if not self._may_follow(request.url, following.url):
                raise ProbeFailedError(
                    f"redirected to {following.url.scheme}://{following.url.netloc.decode()},"
                    " which allow_hosts does not list"
                )
            if following.url.host != request.url.host:
                options = {"auth": None}
                for name in self._headers:
                    if name.lower() != "host":  # which httpx2 has set to the new one
                        following.headers.pop(name, None)
                for name, value in self._asks_for.items():
                    following.headers.setdefault(name, value)
            request = following
        raise ProbeFailedError(f"more than {_MAX_REDIRECTS} redirects")

    async def _read(self, response: httpx2.Response) -> tuple[bytes, bool]:
        """Return the body as far as `max_body`, and whether that is all of it."""
        if response.is_stream_consumed:  # it never was a stream: a mock transport's answer
            return response.content[: self._max_body], len(response.content) <= self._max_body
        body = bytearray()
        whole = True
        try:
            async for chunk in response.aiter_raw():
                if whole:
                    body += chunk
                    whole = len(body) <= self._max_body
                if not whole:
                    # Closed, and then read on until that shows, instead of left in the middle: trio
                    # wants generators run to their end, and httpx2 has one that can't be closed.
                    await response.aclose()
        except Exception:
            if whole:
                raise
        return bytes(body[: self._max_body]), whole

    def _may_follow(self, old: httpx2.URL, new: httpx2.URL) -> bool:
        if new.scheme not in DEFAULT_PORTS or (old.scheme == "https" and new.scheme == "http"):
            return False
        here = old.host, old.port or DEFAULT_PORTS[old.scheme]
        there = new.host, new.port or DEFAULT_PORTS[new.scheme]
        listed = new.host, None if there[1] == DEFAULT_PORTS[new.scheme] else there[1]
        upgraded = here == (new.host, 80) and there[1] == 443
        return there == here or upgraded or listed in self._hosts or there in self._hosts

    def _judge(self, response: httpx2.Response, body: bytes, *, whole: bool) -> None:
        status = response.status_code
        if status not in self._statuses:
            hint = " (follow_redirects is off)" if response.has_redirect_location else ""
            raise ProbeFailedError(f"status {status}{hint}, expected {show(self._statuses)}")
        if self._body is None and self._in_body is None:
            return
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise ProbeFailedError(
                f"the body is encoded as {encoding!r}, though identity was asked"
            )
        if self._body is not None and not (whole and body == self._body):
            raise ProbeFailedError("the body is not the expected one")
        if self._in_body is not None and self._in_body not in body:
            where = "" if whole else f" in its first {self._max_body} bytes"
            raise ProbeFailedError(f"the body does not contain what is expected{where}")


async def _close_client(client: httpx2.AsyncClient) -> None:
    await client.aclose()
