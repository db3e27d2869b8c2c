"""uWSGI: whether what runs in threads runs at all."""

from __future__ import annotations

import sys


def require_threads() -> None:
    """Raise `RuntimeError` under a uWSGI that lets no thread run between requests."""
    uwsgi = sys.modules.get("uwsgi")  # its own, which exists in its processes only
    if uwsgi is not None and not getattr(uwsgi, "has_threads", True):
        raise RuntimeError(
            "healthmw runs checks in threads, and this uWSGI lets none run: "
            "start it with --enable-threads (enable-threads = true), or with --threads"
        )
