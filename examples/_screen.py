"""What the person who watches the demo sees."""

from __future__ import annotations

import os
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from examples._servers import Answer


class Screen:
    """Lines on standard output: coloured on a terminal, unless NO_COLOR is set (no-color.org)."""

    def __init__(self) -> None:
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = sys.stdout.isatty() and not plain
        self._began = time.monotonic()
        self._steps = 0

    def introduction(self) -> None:
        print(
            "Two shops, each with a database that it can't do without, and a payments service that"
            "\nboth can: it is not critical, and stands behind a circuit breaker with a fallback."
        )

    def step(self, title: str) -> None:
        self._steps += 1
        print(f"\n{self._paint('1', f'{self._steps}. {title}')}\n")

    def say(self, text: str) -> None:
        print(f"\n   {text}")

    def gap(self) -> None:
        print()

    def command(self, who: str, command: str) -> None:
        print(f"   {who:<8} $ {self._paint('36', command)}")

    def answer(self, answer: Answer) -> None:
        colour = {"okay": "32", "degraded": "33", "failed": "31"}.get(answer.health or "", "0")
        page = answer.body.startswith("<")  # for a browser: its title will do
        body = HTTPStatus(answer.status).phrase if page else answer.body.strip()
        first, *more = body.splitlines() or [""]
        said = self._paint(f"1;{colour}", f"{answer.status} {first}")
        health = f"Health-Status: {answer.health}" if answer.health else ""
        room = " " * max(2, 36 - len(f"{answer.status} {first}"))
        print(f"              {said}{room}{self._paint(colour, health)}".rstrip())
        for line in more:
            print(f"                  {line}")

    def output(self, line: str) -> None:
        print(f"            {self._paint('2', '|')} {line}")

    def exit_status(self, status: int, so: str) -> None:
        colour = "1;31" if status else "1;32"
        print(f"              {self._paint(colour, f'exit {status}')}: {so}")

    def end(self, answers: int) -> None:
        took = time.monotonic() - self._began
        print(f"\n{self._paint('1;32', f'All {answers} answers were as claimed')} ({took:.0f} s).")

    def trouble(self, error: str, *, logs: list[Path]) -> None:
        print(f"\n{self._paint('1;31', 'Not as claimed:')} {error}")
        for log in logs:
            print(f"\nThe end of {log.name}:\n")
            print("\n".join(log.read_text(errors="replace").splitlines()[-30:]))

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and text else text
