"""Tells people when a check fails and when it is well again (extra `webhooks`).

Each class is a listener: `health.subscribe(SlackWebhook(url, service="shop"))`.
"""

from __future__ import annotations

from healthmw.webhooks._chat import SlackWebhook, TeamsWebhook
from healthmw.webhooks._generic import Webhook
from healthmw.webhooks._notifier import WebhookError
from healthmw.webhooks._on_call import OpsgenieWebhook, PagerDutyWebhook

__all__ = (
    "OpsgenieWebhook",
    "PagerDutyWebhook",
    "SlackWebhook",
    "TeamsWebhook",
    "Webhook",
    "WebhookError",
)

for _public in (
    OpsgenieWebhook,
    PagerDutyWebhook,
    SlackWebhook,
    TeamsWebhook,
    Webhook,
    WebhookError,
):
    _public.__module__ = __name__  # what messages and the documentation name is what to import
