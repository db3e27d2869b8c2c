"""What the tests of the probes share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.probes.running import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run() -> Iterator[Runner]:
    """Run probes one after another on one event loop, and close them after the test."""
    runner = Runner()
    yield runner
    runner.close()
