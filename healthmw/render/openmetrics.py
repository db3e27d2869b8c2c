"""Metrics, in Prometheus's own text format (0.0.4) and as OpenMetrics (1.0.0).

Sources: the exposition formats page of Prometheus's documentation; the OpenMetrics specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._metrics import families

if TYPE_CHECKING:
    from healthmw._metrics import Labels
    from healthmw._view import View

__all__ = ("CONTENT_TYPE", "CONTENT_TYPE_DRAFT", "CONTENT_TYPE_PROMETHEUS", "render")

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
CONTENT_TYPE_DRAFT = "application/openmetrics-text; version=0.0.1; charset=utf-8"
CONTENT_TYPE_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def render(view: View, *, openmetrics: bool) -> str:
    """Return the metrics of `view`."""
    lines: list[str] = []
    for family in families(view):
        counts = family.kind == "counter"
        sample = f"{family.name}_total" if counts else family.name
        # The two disagree on what a counter's name is: with what its samples end in, or without.
        name = family.name if openmetrics else sample
        head = [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
        lines += reversed(head) if openmetrics else head
        lines += [f"{sample}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels]
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
