from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import httpx2
import pytest

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import HTTPProbe

if TYPE_CHECKING:
    from collections.abc import Callable


def _service(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200)


@pytest.mark.anyio
@pytest.mark.parametrize("own", [True, False], ids=["own-client", "the-app's-client"])
async def test_an_app_that_logs_everything_hears_of_no_probe_and_of_no_token(
    own: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: Callable[..., httpx2.AsyncClient] = httpx2.AsyncClient

    def client(**options: object) -> httpx2.AsyncClient:
        return made(transport=httpx2.MockTransport(_service), **options)

    monkeypatch.setattr(httpx2, "AsyncClient", client)
    async with client() as app:
        probe = HTTPProbe("http://search/up?token=hunter2", client=None if own else app)
        with caplog.at_level(logging.INFO):
            await probe()
            assert caplog.messages == []
            await app.get("http://search/hits")
    await probe.aclose()
    assert [message for message in caplog.messages if "http://search/hits" in message]


@pytest.mark.anyio
async def test_a_mock_transport_can_answer_the_probe() -> None:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=b"well enough")

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await HTTPProbe("http://search/up", client=client, expect_body="well enough")()
        await HTTPProbe("http://search/up", client=client, expect_in_body="well", max_body=4)()
        with pytest.raises(ProbeFailedError, match="first 4 bytes"):
            await HTTPProbe("http://search/up", client=client, expect_in_body="eno", max_body=4)()


@pytest.mark.anyio
async def test_a_transport_that_retries_may_raise_its_first_error_from_its_last() -> None:
    def refuse(_request: httpx2.Request) -> httpx2.Response:
        first, last = httpx2.ConnectError("refused"), httpx2.ConnectError("3 attempts failed")
        last.__cause__ = first
        raise first from last

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)) as client:
        with pytest.raises(ProbeFailedError, match="ConnectError: 3 attempts failed"):
            await HTTPProbe("http://search/up", client=client)()
