"""The event loops that async tests run on."""

from __future__ import annotations

import pytest

ASYNCIO = pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")
UVLOOP = pytest.param(("asyncio", {"use_uvloop": True}), id="asyncio+uvloop")
TRIO = pytest.param(("trio", {}), id="trio")

uvloop_too = pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, TRIO])
"""For tests in which the kind of loop matters; all others marked `anyio` have asyncio and trio."""
