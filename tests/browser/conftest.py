"""A real browser: Debian's Chromium, headless, driven by its own driver.

Without it the tests are skipped; under HEALTHMW_REQUIRE_SERVICES=1, as in CI, that is a failure.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.programs import do_without, program

if TYPE_CHECKING:
    from collections.abc import Iterator

AXE = "axe-core@4.14.1"
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """One window, as wide and as dark as it is told."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def dress(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page, which has none of its own and forbids any."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Return what the console has said since the last look, but for codes that are meant."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own gap
        said = [str(entry["message"]) for entry in entries]
        return [message for message in said if "status of 503" not in message]


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run a browser of our own, until the end of the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", package="chromium")
    for flag in (*FLAGS, *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(program("chromedriver", package="chromium-driver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser that all tests share."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, which finds what keeps people from using a page."""
    npm = program("npm", package="npm")
    folder = Path(__file__).parents[2] / ".axe"
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        got = subprocess.run(
            [npm, "install", "--prefix", str(folder), "--no-save", "--ignore-scripts", AXE],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if got.returncode or not source.exists():
            do_without(f"axe-core can't be installed: {got.stderr[-300:]}")
    return source.read_text(encoding="utf-8")
