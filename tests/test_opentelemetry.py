"""What OpenTelemetry is told, read back by its own SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from healthmw import CircuitBreaker, Health
from healthmw.exceptions import ProbeFailedError
from healthmw.opentelemetry import export_metrics, trace_changes
from healthmw.testing import ScriptedProbe
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Iterator

BROKEN = ProbeFailedError("no such table")


class Collected:
    """The metrics of one provider."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "healthmw"
        return {metric.name: metric for metric in scope.metrics}

    def value(self, name: str, **attributes: object) -> float:
        wanted = {f"healthmw.{key}": value for key, value in attributes.items()}
        points = [
            p for p in self.metrics()[name].data.data_points if dict(p.attributes or {}) == wanted
        ]
        (point,) = points
        value: float = point.value
        return value


@pytest.fixture
def collected() -> Iterator[Collected]:
    found = Collected()
    yield found
    found.provider.shutdown()


def test_the_same_numbers_as_for_prometheus(collected: Collected) -> None:
    database, search = ScriptedProbe(None, BROKEN), ScriptedProbe(BROKEN)
    health = Health(release="v42", max_age=0)
    health.add("database", database)
    breaker = CircuitBreaker(consecutive_failures=1)
    health.add("search", search, critical=False, breaker=breaker)
    export_metrics(health, meter_provider=collected.provider)

    assert collected.value("healthmw.check.status", check="database", status="unknown") == 1
    assert database.calls == 0  # a collection runs nothing

    health.run_sync()
    value = collected.value
    assert value("healthmw.group.status", group="ready", status="degraded") == 1
    assert value("healthmw.group.passing", group="ready") == 1
    assert value("healthmw.release.info", release="v42") == 1
    assert value("healthmw.check.status", check="database", status="okay") == 1
    assert value("healthmw.check.status", check="search", status="failed") == 1
    assert value("healthmw.check.critical", check="search") == 0
    assert value("healthmw.check.duration", check="database") > 0
    assert value("healthmw.check.age", check="database") >= 0
    assert value("healthmw.check.failures", check="search", reason="failed") == 1
    assert value("healthmw.breaker.state", check="search", state="open") == 1

    health.run_sync()
    assert value("healthmw.group.passing", group="ready") == 0
    assert value("healthmw.check.runs", check="database") == 2
    assert value("healthmw.check.changes", check="database") == 1


def test_every_value_is_a_number(collected: Collected) -> None:
    health = Health(release="v42")
    health.add("database", ScriptedProbe(), breaker=CircuitBreaker())
    export_metrics(health, meter_provider=collected.provider)
    health.run_sync()

    metrics = collected.metrics().values()
    assert {type(point.value) for one in metrics for point in one.data.data_points} == {int, float}


def test_units_and_kinds(collected: Collected) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    health.run_sync()
    export_metrics(health, meter_provider=collected.provider)
    found = collected.metrics()
    assert {name for name, metric in found.items() if metric.unit == "s"} == {
        "healthmw.check.duration",
        "healthmw.check.age",
    }
    assert found["healthmw.check.runs"].data.is_monotonic
    assert not hasattr(found["healthmw.check.status"].data, "is_monotonic")
    assert all(metric.description for metric in found.values())


def test_no_name_is_the_one_that_collectors_keep_for_themselves(collected: Collected) -> None:
    health = Health()
    health.add("database", ScriptedProbe())
    export_metrics(health, meter_provider=collected.provider)
    assert all(name.startswith("healthmw.") for name in collected.metrics())


def test_a_group_that_is_not_there_is_named(collected: Collected) -> None:
    with pytest.raises(ValueError, match="no group or check 'web'"):
        export_metrics(Health(), group="web", meter_provider=collected.provider)


def test_changes_are_spans_from_when_it_is_asked_for_to_when_it_is_ended() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    health = Health(max_age=0)
    health.add("database", ScriptedProbe(None, BROKEN, None), critical=False)
    health.run_sync()
    assert not exporter.get_finished_spans()

    end = trace_changes(health, tracer_provider=provider)
    health.run_sync()
    until_sync(exporter.get_finished_spans)
    end()
    health.run_sync()
    (span,) = exporter.get_finished_spans()
    provider.shutdown()
    attributes = {
        "healthmw.check": "database",
        "healthmw.old": "okay",
        "healthmw.new": "failed",
        "healthmw.reason": "failed",
        "healthmw.critical": False,
        "healthmw.ready": "degraded",
    }
    assert (span.name, dict(span.attributes or {})) == ("healthmw.change", attributes)
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == ("health status changed", attributes)
    assert "no such table" not in span.to_json()
