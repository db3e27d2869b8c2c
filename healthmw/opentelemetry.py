"""A `Health` as metrics and spans, by the API of OpenTelemetry (extra `opentelemetry`)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from healthmw._facts import view
from healthmw._metrics import all_families
from healthmw._view import Level
from healthmw.exceptions import MissingExtraError

try:
    from opentelemetry import metrics, trace
except ImportError as _exc:
    raise MissingExtraError("healthmw.opentelemetry", extra="opentelemetry") from _exc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

    from healthmw._health import Health
    from healthmw._listeners import StatusChange
    from healthmw._metrics import Family

__all__ = ("export_metrics", "trace_changes")

_SCOPE = "healthmw"


def export_metrics(
    health: Health, *, group: str = "ready", meter_provider: MeterProvider | None = None
) -> None:
    """Have OpenTelemetry observe what is known of the checks of `group`.

    The instruments are those of Prometheus' formats, with dots for underscores and without `_total`
    and the unit: `healthmw.check.status`, `healthmw.check.duration` (s). Attributes have
    `healthmw.` before them: `healthmw.check`, `healthmw.status`, `healthmw.reason`. A collection
    runs no check and waits for none: give checks an `interval=`, or have somebody ask the endpoint.
    Call it once a process; under a server that forks, in each worker. `meter_provider` is the
    global one by default. Raises `ValueError` for a group that isn't there.
    """
    health.members(group)
    meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
    for family in _families(health, group):
        create: Callable[..., object] = (
            meter.create_observable_counter
            if family.kind == "counter"
            else meter.create_observable_gauge
        )
        create(
            _name(family.name),
            callbacks=[functools.partial(_observe, health, group, family.name)],
            unit="s" if family.name.endswith("_seconds") else "1",
            description=family.help,
        )


def _families(health: Health, group: str) -> Iterator[Family]:
    return all_families(view(health, health.last(group), Level.FULL))


def _name(family: str) -> str:
    """Return the dotted name: what it is about (a check, a breaker, ...), and then what of it."""
    package, subject, what = family.removesuffix("_seconds").split("_", 2)
    return f"{package}.{subject}.{what}"


def _observe(
    health: Health, group: str, name: str, _options: CallbackOptions
) -> Iterator[Observation]:
    for family in _families(health, group):
        if family.name == name:
            for labels, value in family.samples:
                attributes = {f"healthmw.{label}": text for label, text in labels}
                yield metrics.Observation(value, attributes)


def trace_changes(
    health: Health, *, tracer_provider: TracerProvider | None = None
) -> Callable[[], None]:
    """Make a span `healthmw.change` of each change of a check's verdict, from now on.

    It has no length and an event, `health status changed`, with the attributes `healthmw.check`,
    `healthmw.old`, `healthmw.new`, `healthmw.reason`, `healthmw.critical` and `healthmw.ready` (the
    verdict of the whole). Returns what ends it. `tracer_provider` is the global one by default.
    """
    tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)

    def listener(event: StatusChange) -> None:
        found: dict[str, AttributeValue] = {
            "healthmw.check": event.check or "",
            "healthmw.old": event.old,
            "healthmw.new": event.new,
            "healthmw.reason": event.reason,
            "healthmw.critical": event.critical,
            "healthmw.ready": event.report.status,
        }
        with tracer.start_as_current_span("healthmw.change", attributes=found) as span:
            span.add_event("health status changed", found)

    return health.subscribe(listener)
