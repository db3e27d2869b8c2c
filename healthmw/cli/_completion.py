"""`healthmw completion SHELL`: a script that makes a shell complete the commands and their options.

It is made from the parsers, and is complete in itself: no Tab starts Python.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from healthmw.cli import _check, _completion_scripts, _options, _smoke_options, _wait, _watch
from healthmw.cli._exit import WELL
from healthmw.cli._output import emit

if TYPE_CHECKING:
    from collections.abc import Iterator

_USAGE = "healthmw completion SHELL"

_ABOUT = """\
Print a script that makes a shell complete healthmw's commands and options, and
after -- what the shell itself would complete."""

_EXAMPLES = """\
examples:
  healthmw completion bash > ~/.local/share/bash-completion/completions/healthmw
  healthmw completion fish > ~/.config/fish/completions/healthmw.fish
  healthmw completion zsh > ~/.zfunc/_healthmw
                                with `fpath+=~/.zfunc` before `compinit` in
                                ~/.zshrc
  eval "$(healthmw completion bash)"
                                for this shell alone; zsh and fish can do so too

exit status:
  0  the script was printed
  2  wrong usage"""

SHELLS = {
    "bash": _completion_scripts.bash,
    "fish": _completion_scripts.fish,
    "zsh": _completion_scripts.zsh,
}
_FILES = {"FILE"}
_WORDS = {"GROUP": ("live", "ready", "release", "startup"), "SHELL": tuple(SHELLS)}
"""What values with this metavar may well be."""


class Option(NamedTuple):
    """An option, or where it has no name what stands without one."""

    name: str
    about: str
    value: str | None
    """What its value is called; None where it takes none."""
    words: tuple[str, ...] = ()
    """Values to offer."""
    files: bool = False
    """Whether its value is a file."""
    optional: bool = False
    """Whether the value may be left out."""
    repeated: bool = False


class Command(NamedTuple):
    """A command and its options."""

    name: str
    about: str
    options: tuple[Option, ...]
    runs: bool
    """Whether another command may come after `--`."""


def run(words: list[str]) -> int:
    """Run the command with the arguments `words`, and return the exit status."""
    shell = make_parser().parse_args(words).shell
    emit(SHELLS[shell](tuple(_commands())), sys.stdout)
    return WELL


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = _options.parser("completion", usage=_USAGE, about=_ABOUT, examples=_EXAMPLES)
    parser.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=", ".join(SHELLS))
    return parser


def _commands() -> Iterator[Command]:
    from healthmw.cli import _COMMANDS

    makers = {
        "smoke": _smoke_options.make_parser,
        "check": _check.make_parser,
        "wait": _wait.make_parser,
        "watch": _watch.make_parser,
        "completion": make_parser,
    }
    for name, (_, about) in _COMMANDS.items():
        parser = makers[name]()
        yield Command(
            name=name,
            about=about,
            options=tuple(_found(parser)),
            runs="-- COMMAND" in parser.format_usage(),
        )


def _found(parser: argparse.ArgumentParser) -> Iterator[Option]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        names = [name for name in action.option_strings if name.startswith("--")]
        if action.help == argparse.SUPPRESS:
            continue
        yield Option(
            name=names[0] if names else "",
            about=(action.help or "") % {**vars(action), "prog": parser.prog},
            value=None if action.nargs == 0 else metavar.strip("'"),
            words=_WORDS.get(metavar) or tuple(map(str, action.choices or ())),
            files=metavar in _FILES,
            optional=action.nargs == "?",
            repeated=action.nargs == "+" or type(action).__name__ == "_AppendAction",
        )
