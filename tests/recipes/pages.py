"""What the how-to pages tell readers to write down: each block that begins with a file's name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.docs_page import blocks
from tests.servers.boot import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def recipe(page: str, file: str, swaps: Mapping[str, str] | None = None) -> str:
    """Return the block of `docs/how-to/PAGE.md` whose first line is the comment `# FILE`.

    `swaps` puts the test's own addresses and shorter times in place of the page's. Each must be
    found: else the page has changed, and the test would run something else than it says.
    """
    named = re.compile(rf"(?:#|//) {re.escape(file)}\n")
    found = [one.code for one in blocks(HOW_TO / f"{page}.md") if named.match(one.code)]
    assert len(found) == 1, f"{page}.md has {len(found)} blocks named {file}"
    (text,) = found
    for old, new in (swaps or {}).items():
        assert old in text, f"{file} on {page}.md has no {old!r}"
        text = text.replace(old, new)
    return text


def documents(page: str, file: str) -> list[Any]:
    """Return the YAML documents of a block."""
    return list(yaml.safe_load_all(recipe(page, file)))


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Run a line as cron and Docker do, by `sh -c`; return its exit status and what it wrote."""
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


class Daemon(Server):
    """A program that listens on `port`. Use as a context manager: it listens when the block begins.

    It counts as up when `path` is answered without an error of the server.
    """

    def __init__(self, command: list[str], folder: Path, port: int, path: str = "/") -> None:
        super().__init__(command, folder, up=path, XDG_DATA_HOME=str(folder))
        self.port = port

    def tell(self, **environ: str) -> None:
        """Put these into the environment in which it will be started."""
        self._environ |= environ

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"it ended: {self.tail()}"
        try:
            return self.get(self._up).status < 500
        except OSError:
            return False
