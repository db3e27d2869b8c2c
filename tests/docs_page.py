"""Runs the Python of one page of the documentation: `python tests/docs_page.py PAGE`.

Each block marked as Python is executed, in order, in one module, as a reader would who pastes one
after the other; `await` is allowed at the top level. A block whose first line is a comment with a
file's name (`# app.py`) is written to that file in the working directory as well, for later blocks
to import.

An HTML comment above a block, which a reader doesn't see, changes that:

    <!-- no-run: needs a Redis server -->     only compile the next block
    <!-- run first: connect = print -->       execute this, and then go on
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import ModuleType

_BLOCK = re.compile(
    r"""
    ^ (?P<indent> [ ]* ) (?P<fence> `{3,} ) (?P<language> [\w-]+ ) [^`\n]* \n
    (?P<code> .*? )
    ^ (?P=indent) (?P=fence) [ ]* $
  | <!-- \s* run[ ]first: (?P<first> .*? ) -->
    """,
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_NO_RUN = re.compile(r"<!--\s*no-run:\s*(?P<reason>\S.*?)\s*-->\s*\Z", re.DOTALL)
_FILE = re.compile(r"# (?P<path>[\w./-]+\.py)\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of code on a page."""

    language: str
    code: str
    line: int
    """The number of the first line of the code, on its page."""
    run: bool
    hidden: bool = False


def blocks(page: Path) -> list[Block]:
    """Return the blocks of `page`, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        part = "first" if match["language"] is None else "code"
        found.append(
            Block(
                language=match["language"] or "python",
                code=dedent(match[part]).strip("\n") + "\n"
                if part == "first"
                else dedent(match[part]),
                line=text.count("\n", 0, match.start(part)) + 1,
                run=part == "first" or _NO_RUN.search(text[: match.start()]) is None,
                hidden=part == "first",
            )
        )
    return found


def run(page: Path) -> None:
    """Execute the Python blocks of `page` in the working directory."""
    module = ModuleType("page")
    sys.modules["page"] = module
    sys.path.insert(0, "")
    with asyncio.Runner() as runner:
        for block in blocks(page):
            if block.language != "python":
                continue
            # Empty lines first, so that a traceback gives the line on the page.
            code = compile(
                "\n" * (block.line - 1) + block.code,
                str(page),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )
            if not block.run:
                continue
            if named := _FILE.match(block.code):
                target = Path(named["path"])
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.code, encoding="utf-8")
            result = eval(code, vars(module))  # noqa: S307 - our own documentation
            if inspect.iscoroutine(result):
                runner.run(result)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
