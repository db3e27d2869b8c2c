"""The metrics of a `Health` in the app's own `prometheus_client` registry (extra `prometheus`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._facts import view
from healthmw._metrics import families
from healthmw._view import Level
from healthmw.exceptions import MissingExtraError

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as _exc:
    raise MissingExtraError("healthmw.prometheus", extra="prometheus") from _exc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from healthmw._health import Health

__all__ = ("HealthCollector",)


class HealthCollector(Collector):
    """Shows what is known of the checks of `group`, as `?format=openmetrics` of the endpoint does.

    A scrape runs no check and waits for none: give checks an `interval=`, or have somebody ask the
    endpoint. What was never run, or is a background result that is too old, is `unknown`. Register
    it once a process: `REGISTRY.register(HealthCollector(health))`. Raises `ValueError` for a group
    that isn't there, and `MissingExtraError` on import where `prometheus_client` is not installed.
    """

    def __init__(self, health: Health, *, group: str = "ready") -> None:
        health.members(group)
        self.health = health
        self.group = group

    def collect(self) -> Iterator[Metric]:
        """Yield the families and their samples. Called by the registry."""
        shown = view(self.health, self.health.last(self.group), Level.FULL)
        for family in families(shown):
            names = [name for name, _ in family.samples[0][0]]
            kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = kind(family.name, family.help, labels=names)
            for labels, value in family.samples:
                metric.add_metric([label for _, label in labels], value)
            yield metric

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: what there is depends on the checks, and they may be added later."""
        return iter(())
