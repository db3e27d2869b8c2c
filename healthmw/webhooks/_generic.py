"""A notice as JSON, to any URL."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from healthmw._options import WrongTypeError, header_name, header_value, text
from healthmw.webhooks._notifier import Notifier

if TYPE_CHECKING:
    from healthmw._listeners import StatusChange


class Webhook(Notifier):
    """A notice as JSON to any URL of your own, signed if you give a secret.

    - `service`: the app's name, as people will read it.
    - `degraded`: whether a check that is DEGRADED is a problem, too.
    - `timeout`: seconds for each step of one attempt. Attempts are made for half an hour, with
      pauses of a minute at most, where nobody answers or the answer is 429 or 5xx; `Retry-After`
      is heeded.
    - `headers`: sent with it.
    - `secret`: signs each notice as the specification *Standard Webhooks* says (headers
      `webhook-id`, `webhook-timestamp`, `webhook-signature`): `whsec_` and base64, or base64.

    The body: `service`, `check`, `resolved`, `old`, `new`, `reason`, `critical`, `detail`, `when`
    (ISO 8601), `ready` (the status of the whole), `release`, `instance`, `key` (the same for the
    same problem in all processes). Redirects are not followed. Raises `ValueError` for options that
    make no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        service: str,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
        degraded: bool = False,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(url, service=service, degraded=degraded, timeout=timeout)
        self._headers = _checked({} if headers is None else headers)
        self._secret = None if secret is None else _key_of(secret)

    def request(
        self, event: StatusChange, *, resolved: bool
    ) -> tuple[str, dict[str, str], dict[str, Any]]:
        body = {
            "service": self._service,
            "check": event.check,
            "resolved": resolved,
            "old": event.old,
            "new": event.new,
            "reason": event.reason,
            "critical": event.critical,
            "detail": event.detail,
            "when": event.when.isoformat(),
            "ready": event.report.status,
            "release": event.release,
            "instance": event.instance,
            "key": self.key(event),
        }
        return self._url, {**self._headers, "webhook-id": f"msg_{uuid.uuid4().hex}"}, body

    def signed(self, headers: Mapping[str, str], content: bytes) -> Mapping[str, str]:
        found = dict(super().signed(headers, content))
        if self._secret is not None:
            sent = str(int(time.time()))
            signed = f"{headers['webhook-id']}.{sent}.".encode() + content
            digest = hmac.digest(self._secret, signed, hashlib.sha256)
            found["webhook-timestamp"] = sent
            found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return found


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise WrongTypeError(f"headers must be a mapping, not {type(headers).__name__}")
    for name, value in headers.items():
        header_name("headers", name)
        header_value(f"headers: the value of {name!r}", value)
    return dict(headers)


def _key_of(secret: str) -> bytes:
    encoded = text("secret", secret).removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("secret must be base64, with or without whsec_ before it")
    return key
