"""A notice as a message in a chat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from healthmw.webhooks._notifier import Notifier, facts

if TYPE_CHECKING:
    from healthmw._listeners import StatusChange


class SlackWebhook(Notifier):
    """A message in a Slack channel, by an incoming webhook. Options as in `Webhook`."""

    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        sign = ":large_green_circle:" if resolved else ":red_circle:"
        lines = [f"{sign} *{_slack(self.headline(event, resolved=resolved))}*"]
        lines += [f"{name}: {_slack(value)}" for name, value in facts(event).items()]
        return self._url, {}, {"text": "\n".join(lines)}


def _slack(text: str) -> str:
    # The three characters that begin or end markup in Slack's text format.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class TeamsWebhook(Notifier):
    """A card in a Microsoft Teams channel, by a workflow's webhook. Options as in `Webhook`."""

    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        headline = {
            "type": "TextBlock",
            "text": self.headline(event, resolved=resolved),
            "weight": "Bolder",
            "color": "Good" if resolved else "Attention",
            "wrap": True,
        }
        known = [{"title": name, "value": value} for name, value in facts(event).items()]
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [headline, {"type": "FactSet", "facts": known}],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        return self._url, {}, {"type": "message", "attachments": [attachment]}
