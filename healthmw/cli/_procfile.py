"""A Procfile: one `name: command` a line, as Heroku and its kin read it."""

from __future__ import annotations

import re
from pathlib import Path

from healthmw.cli._exit import CouldNotTell

_LINE = re.compile(r"([A-Za-z0-9_-]+)\s*:\s*(\S.*)")


def command(file: str, process: str) -> str:
    """Return the command of `process` in the Procfile `file`, for a shell to run.

    Raises `CouldNotTell` when the file can't be read, or has no such process, or has it twice.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or "it is not UTF-8 text"
        raise CouldNotTell(f"{file} can't be read: {why}") from None
    found = parse(text)
    commands = [line for name, line in found if name == process]
    if not commands:
        names = ", ".join(dict.fromkeys(name for name, _ in found)) or "nothing"
        raise CouldNotTell(
            f"{file} has no process {process!r}; it has {names}: choose with --process"
        )
    if len(commands) > 1:
        raise CouldNotTell(f"{file} has the process {process!r} {len(commands)} times: leave one")
    return commands[0]


def parse(text: str) -> list[tuple[str, str]]:
    """Return the (name, command) pairs of a Procfile. Comments and other lines are passed over."""
    matches = (_LINE.fullmatch(line.strip()) for line in text.split("\n"))
    return [(match[1], match[2]) for match in matches if match is not None]
