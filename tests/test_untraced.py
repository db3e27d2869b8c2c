"""OpenTelemetry, loaded and at work: what probes call leaves no trace, what the app calls does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest
import redis
import redis.asyncio
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from healthmw import Health, Status

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    RedisInstrumentor().instrument(tracer_provider=provider)
    yield spans
    RedisInstrumentor().uninstrument()


# Nobody listens there; a call leaves its span all the same.
NOWHERE = {"host": "127.0.0.1", "port": 1}


def test_a_sync_probe_is_not_traced(spans: InMemorySpanExporter) -> None:
    client = redis.Redis(**NOWHERE)  # type: ignore[arg-type] # one dict for two clients
    health = Health()
    health.add("cache", client.ping)
    assert health.run_sync().status is Status.FAILED
    assert not spans.get_finished_spans()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    assert spans.get_finished_spans()
    client.close()


def test_an_async_probe_is_not_traced(spans: InMemorySpanExporter) -> None:
    async def main() -> None:
        client = redis.asyncio.Redis(**NOWHERE)  # type: ignore[arg-type] # one dict for two clients

        async def ping() -> None:
            await client.ping()

        health = Health(max_age=0)
        health.add("cache", ping)
        health.add("other", client.ping)  # prepared in a thread, awaited on the loop
        assert (await health.run()).status is Status.FAILED
        assert not spans.get_finished_spans()
        with pytest.raises(redis.ConnectionError):
            await client.ping()
        assert spans.get_finished_spans()
        await client.aclose()

    asyncio.run(main())


@pytest.mark.anyio
async def test_a_probe_that_is_given_up_ends_its_silence_in_peace(
    spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    health = Health(max_age=0)
    health.add("slow", anyio.sleep_forever, timeout=0.05)
    report = await health.run()
    assert report.status is Status.FAILED
    await health.aclose()
    assert "context" not in caplog.text.lower()
