"""`healthmw completion`: Tab, pressed in real shells on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.servers import Bench

PATIENCE = 45.0

# Each shell: how to start it without anybody's settings, and what makes it ready.
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "source bash.script; PS1=REA; PS1+='DY> '"),
    "zsh": (
        ["-f", "-i"],
        "autoload -Uz compinit; compinit -D; source zsh.script; PS1=REA; PS1+='DY> '",
    ),
    "fish": (
        ["--no-config", "-i"],
        "source fish.script; function fish_prompt; echo -n REA; echo 'DY> '; end",
    ),
}
# In place of the program: what arrives is what was completed.
ECHO = {
    "bash": "healthmw() { printf '<%s>' \"$@\"; echo ' END'; }",
    "zsh": "healthmw() { printf '<%s>' \"$@\"; echo ' END'; }",
    "fish": "function healthmw; printf '<%s>' $argv; echo ' END'; end",
}


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self, shell: str, folder: Path) -> None:
        self._main, side = pty.openpty()
        options, ready = SHELLS[shell]
        self.process = subprocess.Popen(
            # A shell wants the terminal for its own.
            [
                program("setsid", package="util-linux"),
                "-c",
                program(shell, package=shell),
                *options,
            ],
            cwd=folder,
            stdin=side,
            stdout=side,
            stderr=side,
            env={
                "PATH": f"{folder}/bin:{os.environ['PATH']}",
                "HOME": str(folder),
                "TERM": "xterm",
                "LANG": "C.UTF-8",
                "INPUTRC": "/dev/null",
                "COLUMNS": "200",
            },
        )
        os.close(side)
        self.shown = ""
        self.type(f"{ECHO[shell]}\n")
        self.type(f"{ready}\n")
        self.until("READY> ")

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def until(self, text: str) -> str:
        """Read until `text` is shown, and return what was shown since the last call."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < end, f"no {text!r} in {self.shown!r}"
            if select.select([self._main], [], [], 0.2)[0]:
                self.shown += os.read(self._main, 65536).decode(errors="replace")
        found, _, self.shown = self.shown.partition(text)
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@contextlib.contextmanager
def terminal(shell: str, bench: Bench) -> Iterator[Terminal]:
    script = bench.run("completion", shell)
    assert (script.code, script.err) == (0, "")
    bench.folder.joinpath(f"{shell}.script").write_text(script.out)
    found = Terminal(shell, bench.folder)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes(bench: Bench, shell: str) -> None:
    tool = bench.folder / "bin/serve-all-of-it"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    bench.folder.joinpath("private-ca.pem").write_text("")
    with terminal(shell, bench) as keys:
        for typed, arrives in {
            # a command, an option, a word that is a value, a file that is one
            "smo\t--sch\thttps --gro\trel\t--cac\tpriv\t": (
                "<smoke><--scheme><https><--group><release><--cacert><private-ca.pem>"
            ),
            # an option after the target; a command after `--`, and its arguments
            "wai\thttp://web:8000 --str\t-- serve-all\tpriv\t": (
                "<wait><http://web:8000><--strict><--><serve-all-of-it><private-ca.pem>"
            ),
            # what `watch` has not got isn't offered, nor are files where none is wanted
            "watc\t--grac\t --exp\tpriv\t": "<watch><--grac><--expect><priv",
            "completi\tfis\t": "<completion><fish>",
        }.items():
            keys.type(f"healthmw {typed}\n")
            assert arrives in keys.until(" END").replace("\r\n", "")


def test_a_shell_that_is_not_known(bench: Bench) -> None:
    run = bench.run("completion", "tcsh")
    assert run.code == 2
    assert "invalid choice: 'tcsh'" in run.err
