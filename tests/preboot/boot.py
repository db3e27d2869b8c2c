"""What can happen to the shop while it boots."""

from __future__ import annotations

import os
import threading


def boot() -> None:
    """Boot, unless the release is one that doesn't."""
    fault = os.environ.get("BOOT")
    if fault == "crash":
        raise KeyError("STRIPE_KEY")
    if fault == "hang":
        threading.Event().wait()
