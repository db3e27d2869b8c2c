"""Probes leave no traces: what they call is not the app's work."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


_NOTHING = nullcontext()


def untraced() -> AbstractContextManager[object]:
    """Have OpenTelemetry's instrumentations, where they are loaded, look away in the block."""
    utils = sys.modules.get("opentelemetry.instrumentation.utils")
    # Another thread may be importing it at this moment.
    suppress = getattr(utils, "suppress_instrumentation", None)
    return _NOTHING if suppress is None else suppress()
