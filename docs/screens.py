"""Makes the pictures of the command line in docs/images: `make screens`.

The commands are run in tmux, beside a small shop that is well or not as the scene wants it.
What stands on the screen is drawn by rich.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGES = Path(__file__).with_name("images")
WIDTH, HEIGHT = 114, 30
PATIENCE = 60.0
TOKEN = "open-sesame-0123456789"  # noqa: S105 - of a shop that lives for some seconds

SHOP = f"""
import random
from pathlib import Path

import anyio

from healthmw import CircuitBreaker, Health
from healthmw.access import Token
from healthmw.asgi import HealthMiddleware

health = Health(release=Path("release").read_text())


async def ask(name, seconds):
    await anyio.sleep(seconds * random.uniform(0.7, 1.5))
    if Path(f"{{name}}-is-down").exists():
        raise ConnectionRefusedError("connection refused")


@health.probe("database")
async def database():
    await ask("database", 0.004)


@health.probe("queue")
async def queue():
    await ask("queue", 0.002)


@health.probe("search", critical=False, breaker=CircuitBreaker(consecutive_failures=3))
async def search():
    await ask("search", 0.02)


async def pages(scope, receive, send): ...


app = HealthMiddleware(pages, health, authorize=Token("{TOKEN}"))
"""


class Screen:
    """A shell in tmux, in a folder with the shop. Use `screen` to get one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.joinpath("shop.py").write_text(SHOP)
        self.folder.joinpath("release").write_text("v42")
        self._tmux = ["tmux", "-S", str(folder / "tmux"), "-f", os.devnull]
        self._run("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "bash --norc")
        self.type("PS1='$ ' PS2= COLUMNS=; clear")

    def set(self, name: str, *, well: bool) -> None:
        """Let a service of the shop be up, or down."""
        file = self.folder / f"{name}-is-down"
        file.unlink(missing_ok=True) if well else file.touch()

    def type(self, line: str) -> None:
        """Type a line, and Enter."""
        self._run("send-keys", "-l", line)
        self._run("send-keys", "Enter")

    def until(self, pattern: str) -> None:
        """Wait until the regular expression is found on the screen."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self._run("capture-pane", "-p"), re.MULTILINE):
            if time.monotonic() > end:
                raise TimeoutError(f"no {pattern!r} on:\n{self._run('capture-pane', '-p')}")
            time.sleep(0.1)

    def shown(self) -> str:
        """Return what is on the screen, with its colours as ANSI escapes."""
        shown = self._run("capture-pane", "-e", "-p").rstrip()
        return shown.replace(str(self.folder), "/app")

    def close(self) -> None:
        """End the shell and all in it."""
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        env = {
            **{
                k: v for k, v in os.environ.items() if not k.startswith(("COV", "TMUX", "NO_COLOR"))
            },
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(  # noqa: S603 - tmux
            [*self._tmux, *words],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Return a screen that is closed at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="healthmw-"))
    found = Screen(folder)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder)


@contextlib.contextmanager
def shop(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the shop in `folder`."""
    words = f"{sys.executable} -m uvicorn shop:app --log-level critical --port {port}"
    with subprocess.Popen(shlex.split(words), cwd=folder) as server:  # noqa: S603 - our own words
        try:
            yield server
        finally:
            server.terminate()


def smoke() -> str:
    """One release that is ready, and one that is not."""
    command = "healthmw smoke {} -- uvicorn shop:app --port {{port}} --log-level warning"
    with screen() as on:
        on.type(command.format("--passes 3"))
        on.until(r"^PASSED[^$]*^\$$")
        on.set("database", well=False)
        on.type(command.format("--timeout 4"))
        on.until(r"^FAILED[^$]*^\$$")
        return on.shown()


def wait() -> str:
    """A wait that has become its command, and one for the next release."""
    port = _free_port()
    with screen() as on, shop(on.folder, port):
        worker = on.folder / "worker"
        worker.write_text("#!/bin/sh\necho 'the worker works'\n")
        worker.chmod(0o755)
        on.type(f"healthmw wait http://localhost:{port} tcp://localhost:{port} -- ./worker")
        on.until(r"^the worker works\s^\$$")
        on.type(f"healthmw wait --release v43 --passes 5 http://localhost:{port}")
        on.until(r"from release v42, not v43")
        time.sleep(3)
        return on.shown()


def watch() -> str:
    """The table, with a service that has gone."""
    port = _free_port()
    with screen() as on, shop(on.folder, port):
        on.type(f"TOKEN={TOKEN}; clear")
        on.type(f'healthmw watch --header "Authorization: Bearer $TOKEN" http://localhost:{port}')
        on.until("^ +search +OKAY")
        time.sleep(18)
        on.set("search", well=False)
        on.until("circuit_open")
        time.sleep(5)
        return on.shown()


def drawn(name: str, shown: str) -> str:
    """Return the screen as SVG that needs nothing from outside."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in shown.splitlines():
        console.print(Text.from_ansi(line), no_wrap=True, overflow="ignore", crop=False)
    svg = console.export_svg(title="", unique_id=name)
    svg = re.sub(r"\s*@font-face \{.*?\}|\s*<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())


SCENES: dict[str, Callable[[], str]] = {"smoke": smoke, "wait": wait, "watch": watch}


def main(folder: Path = IMAGES) -> None:
    """Write the pictures named in the arguments, or all, into `folder`."""
    for name in sys.argv[1:] or SCENES:
        svg = drawn(name, SCENES[name]())
        folder.joinpath(f"{name}.svg").write_text(svg, encoding="utf-8")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
