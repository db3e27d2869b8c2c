"""A notice as an incident of a service that calls somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from healthmw._options import visible
from healthmw._view import printable
from healthmw.webhooks._notifier import Notifier, facts

if TYPE_CHECKING:
    from healthmw._listeners import StatusChange


class PagerDutyWebhook(Notifier):
    """An incident in PagerDuty (Events API v2), resolved when the check is well again.

    `routing_key` is the integration key of the service there. All processes of the app mean the
    same incident: its key is made of `service` and the check's name. The severity is `critical` for
    a critical check, else `warning`. `url` is another region's address. Else as in `Webhook`.
    """

    def __init__(
        self,
        routing_key: str,
        *,
        service: str,
        url: str = "https://events.pagerduty.com/v2/enqueue",
        degraded: bool = False,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(url, service=service, degraded=degraded, timeout=timeout)
        self._routing_key = visible("routing_key", routing_key)

    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        body: dict[str, Any] = {
            "routing_key": self._routing_key,
            "event_action": "resolve" if resolved else "trigger",
            "dedup_key": self.key(event),
        }
        if not resolved:
            body["payload"] = {
                "summary": self.headline(event, resolved=False),
                "source": event.instance,
                "severity": "critical" if event.critical else "warning",
                "timestamp": event.when.isoformat(),
                "component": event.check,
                "group": self._service,
                "class": event.reason,
                "custom_details": facts(event),
            }
        return self._url, {}, body


class OpsgenieWebhook(Notifier):
    """An alert in Opsgenie, closed when the check is well again.

    `api_key` is the key of an API integration. All processes of the app mean the same alert: its
    alias is made of `service` and the check's name. The priority is P1 for a critical check, else
    P3. `url` is another region's address. Else as in `Webhook`.
    """

    def __init__(
        self,
        api_key: str,
        *,
        service: str,
        url: str = "https://api.opsgenie.com/v2/alerts",
        degraded: bool = False,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(url, service=service, degraded=degraded, timeout=timeout)
        self._headers = {"Authorization": f"GenieKey {visible('api_key', api_key)}"}

    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        alias = self.key(event)
        if resolved:
            url = f"{self._url}/{quote(alias, safe='')}/close?identifierType=alias"
            return url, self._headers, {"source": event.instance}
        body = {
            "message": printable(self.headline(event, resolved=False), 130),
            "alias": alias,
            "entity": event.check,
            "source": event.instance,
            "priority": "P1" if event.critical else "P3",
            "details": facts(event),
        }
        return self._url, self._headers, body
