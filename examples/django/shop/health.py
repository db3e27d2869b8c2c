"""What this site can do without. What it can not, `HEALTHMW` in its settings says."""

from django.conf import settings

from healthmw import CircuitBreaker
from healthmw.django import health
from healthmw.probes import HTTPProbe

# Without the payments service the shop is degraded, and goes on.
payments = health.add(
    "payments",
    HTTPProbe(f"{settings.PAYMENTS_URL}/up"),
    critical=False,
    timeout=1.0,
    breaker=CircuitBreaker(),
)
