"""A probe of an Elasticsearch or OpenSearch cluster."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import anyio

from healthmw._driver import check_timeout, why
from healthmw._held import PerLoop
from healthmw._httpx import Trace, again_if_stale, checked_client, load_httpx2
from healthmw._options import visible
from healthmw._probe import Degraded
from healthmw._quiet import unlogged
from healthmw._wire import checked_verify
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    import ssl

    import httpx2

    from healthmw._model import Measurement
    from healthmw._probe import Outcome

_MAX_BODY = 65536
_COLOURS = {"green", "yellow", "red"}
_NUMBERS = {
    "number_of_nodes": "nodes",
    "active_shards": "active_shards",
    "unassigned_shards": "unassigned_shards",
    "number_of_pending_tasks": "pending_tasks",
}


class ElasticsearchProbe:
    """Ask a node of Elasticsearch or OpenSearch for its cluster's colour.

    A pass proves that the node answered, accepted the login, knows a cluster manager, and says
    green: each shard and each copy of it is served. Yellow is degraded: copies are missing, so a
    further lost node may lose data. Red fails: some data can't be reached.

    - `url`: where the node is, `https://host:9200`; user and password in it are sent as basic
      authentication, and are in no message. `api_key` is sent in their place (`ApiKey ...`).
    - `index`: only the shards of these indices count, such as `"orders,catalogue-*"`; one that does
      not exist fails.
    - `yellow_is_well`: True where there is but one node, which always is yellow.
    - `verify`: True checks the server's certificate; an `ssl.SSLContext` checks it by that; False
      does not.
    - `client`: the app's own `httpx2.AsyncClient`, used as it is and never closed. By default the
      probe keeps one connection for each loop, and `aclose` closes it.
    - `timeout`: seconds for all of it. The check's own timeout counts where it is shorter.

    The official clients refuse each other's servers: Elasticsearch's wants no OpenSearch. So this
    asks by HTTP, over httpx2. Measures `latency_seconds`, `status`, `nodes`, `active_shards`,
    `unassigned_shards` and `pending_tasks`. Raises `ProbeFailedError`. Runs on asyncio and trio.
    """

    is_async = True

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        index: str | None = None,
        yellow_is_well: bool = False,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        load_httpx2("ElasticsearchProbe")
        import httpx2

        try:
            parts = urlsplit(url)
            good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.query or parts.fragment:
            raise ValueError("url must be like https://host:9200, without a query")
        if api_key is not None:
            visible("api_key", api_key)
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        self._shown = place.geturl()
        path = f"{parts.path.rstrip('/')}/_cluster/health"
        if index is not None:
            path += "/" + quote(index, safe=",*-_.")
        self._url = place._replace(path=path).geturl()
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._auth: tuple[str, str] | None = None
        if api_key is not None:
            self._headers["Authorization"] = f"ApiKey {api_key}"
        elif parts.username is not None:
            self._auth = unquote(parts.username), unquote(parts.password or "")
        self._yellow_is_well = yellow_is_well
        self._timeout = check_timeout(timeout)
        checked_verify(verify)
        if client is not None and verify is not True:
            raise ValueError("verify belongs to the client: set it there when you pass client=")
        self._client = checked_client(client)
        if client is None and parts.scheme == "https":
            # Once and here, because loading the machine's certificates takes a while.
            verify = httpx2.create_ssl_context(verify=verify)
        self._verify = verify
        self._clients = PerLoop(self._make_client, _close_client)

    def __repr__(self) -> str:
        return f"<ElasticsearchProbe {self._shown}>"

    async def __call__(self) -> Outcome:
        """Ask once."""
        started = time.perf_counter()
        client = self._client or await self._clients.get()
        discard = self.aclose if self._client is None else None
        try:
            with unlogged(), anyio.fail_after(self._timeout):
                fetch = functools.partial(self._fetch, client)
                status, body = await again_if_stale(fetch, discard)
        except TimeoutError:
            raise ProbeTimeoutError(f"no answer within {self._timeout:g} s") from None
        except ProbeFailedError:
            raise
        except Exception as exc:  # httpx2's or, with an app's own client, httpx's
            raise ProbeFailedError(f"{type(exc).__name__}: {why(exc)}") from exc
        return self._judge(status, body, time.perf_counter() - started)

    async def aclose(self) -> None:
        """Close the probe's connection on this loop; the next run opens another."""
        await self._clients.aclose()

    def _make_client(self) -> httpx2.AsyncClient:
        import httpx2

        return httpx2.AsyncClient(
            verify=self._verify,
            headers={"User-Agent": "healthmw"},
            limits=httpx2.Limits(max_connections=2, max_keepalive_connections=1),
        )

    async def _fetch(self, client: httpx2.AsyncClient, trace: Trace) -> tuple[int, bytes]:
        request = client.build_request(
            "GET",
            self._url,
            headers=self._headers,
            timeout=self._timeout,
            extensions={"trace": trace},
        )
        options: dict[str, Any] = {} if self._auth is None else {"auth": self._auth}
        response = await client.send(request, stream=True, follow_redirects=False, **options)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                if len(body) <= _MAX_BODY:
                    body += chunk
                if len(body) > _MAX_BODY:
                    # Closed and read on, as trio wants generators to be run to their end.
                    await response.aclose()
        except Exception:
            if len(body) <= _MAX_BODY:
                raise
        finally:
            await response.aclose()
        return response.status_code, bytes(body)

    def _judge(self, status: int, body: bytes, latency: float) -> Outcome:
        try:
            found = json.loads(body)
            colour = found.get("status")
        except (ValueError, AttributeError):
            found, colour = {}, None
        # 408 is what it answers, colour and all, where it waited for an index in vain.
        if not isinstance(colour, str) or colour not in _COLOURS or status not in {200, 408}:
            raise ProbeFailedError(f"status {status}, and no cluster's health in it")
        measured: dict[str, Measurement] = {"latency_seconds": latency, "status": colour}
        for theirs, ours in _NUMBERS.items():
            if isinstance(found.get(theirs), int):
                measured[ours] = found[theirs]
        missing = f"{measured.get('unassigned_shards', '?')} shards are not assigned"
        if colour == "red":
            raise ProbeFailedError(f"the cluster is red: {missing}")
        if colour == "yellow" and not self._yellow_is_well:
            return Degraded(f"the cluster is yellow: {missing}", measured)
        return measured


async def _close_client(client: httpx2.AsyncClient) -> None:
    await client.aclose()
