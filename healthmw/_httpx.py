"""What the probes that speak HTTP share around httpx2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from healthmw._driver import look_up

if TYPE_CHECKING:
    from collections.abc import Mapping


class Trace:
    """Steps in where the client makes a connection, which it does seldom.

    Given as the request's extension `trace`.
    """

    def __init__(self) -> None:
        self._stream: Any = None

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            await look_up(info["host"])
        elif event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed":
            # httpcore forgets it when the handshake is cancelled.
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()
