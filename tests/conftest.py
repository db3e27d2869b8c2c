from __future__ import annotations

import importlib
import os
import pkgutil
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import healthmw
from healthmw._release import VARIABLES
from tests.backends import ASYNCIO, TRIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest_plugins = ("tests.leaks",)

# How long one example takes says more about the machine than about the code. The parent profile is
# Hypothesis's own choice: under CI it runs the same examples every time.
settings.register_profile(
    "unhurried",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unhurried")

# Hypothesis draws from the constants in the modules that are loaded, and takes it for a flaky test
# when there are more of them from one example to the next. So what is loaded on first use, is now.
for module in pkgutil.walk_packages(healthmw.__path__, "healthmw."):
    if not module.name.startswith("healthmw.django") and module.name != "healthmw.__main__":
        importlib.import_module(module.name)

# A proxy for the machine's way out is not the way to a server on the machine.
for name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# The build that runs the tests is not the release that they test.
for name in VARIABLES:
    os.environ.pop(name, None)


@pytest.fixture(params=[ASYNCIO, TRIO])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each test marked `anyio` on each of these."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def breakdowns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """Hold what healthmw's own tasks and threads break down with: nothing, as a rule."""
    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda _type, exc, _traceback: told.append(exc))
    yield told
    assert told == []


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Return a function that returns a TCP port on 127.0.0.1 on which nothing listens."""

    def pick() -> int:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        return port

    return pick
