"""Follows tutorials and READMEs as a reader would: types the commands, compares what comes back."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from examples._servers import Server, ask, environment
from tests.docs_page import blocks
from tests.examples.shops import EXAMPLES, PATIENCE, boot_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

TUTORIALS = EXAMPLES.parent / "docs" / "tutorial"
SERVERS = ("uvicorn ", "gunicorn ")
NAMED = re.compile(r"# (at the end of )?([\w./-]+)\n")

# What pip would fetch is there already; it fails for what is not, and says nothing else.
PIP = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "2"}


# What a terminal keeps from one line to the next: where it is, and what `activate` has set.
KEEP = 'kept=$?; { pwd; echo "$PATH"; echo "${VIRTUAL_ENV-}"; } >"$1"; exit "$kept"'


class Reader:
    """Somebody with two terminals and a folder: what is typed is run, one line after the other."""

    def __init__(self, folder: Path, log: Path, wheel: Path) -> None:
        self._folder = folder
        self._wheel = wheel
        self._env = environment(**PIP)
        self._log = log
        self._server: Server | None = None
        self._payments: Server | None = None
        self._status = 0
        self._timeout = "5"  # of a smoke test that is to fail, as the tutorials have it
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._nobody = str(sock.getsockname()[1])  # where the tutorials have 9000

    def write(self, name: str, text: str, *, at_the_end: bool) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        before = path.read_text() if at_the_end else ""
        path.write_text(before + text.replace("9000", self._nobody))

    def type(self, command: str, shown: str) -> None:
        if command == "python ../downstream.py &":
            self._payments = Server(
                "python downstream.py", cwd=EXAMPLES, log=self._log, env=self._env
            )
            self._payments.start()
            self._payments.wait_until_up()
        elif command.startswith(SERVERS):
            self._serve(command)
        elif command.startswith("curl "):
            self._ask(shlex.split(command), shown)
        else:
            self._run(command, shown)

    def _serve(self, command: str) -> None:
        if self._server is not None:
            self._server.stop()
        env = dict(self._env)
        if self._payments is not None:
            env["DOWNSTREAM_URL"] = self._payments.url
        self._server = Server(command, cwd=self._folder, log=self._log, env=env)
        # The port that is exported is the one to listen on: gunicorn takes it by itself.
        self._server.command = command.replace("8000", str(self._server.port))
        self._server.start()
        self._server.wait_until_up()

    def _ask(self, words: list[str], shown: str) -> None:
        assert self._server is not None
        url = words[1].replace("http://127.0.0.1:8000", self._server.url)
        if "-d" in words:
            said = ask(url, data=json.loads(words[words.index("-d") + 1])).body
            assert _same(said, shown), said
            return
        until = time.monotonic() + PATIENCE
        while not _same(body := ask(url).body, shown):
            assert time.monotonic() < until, f"{url} says {body!r}, not {shown!r}"
            time.sleep(0.05)

    def _run(self, command: str, shown: str) -> None:
        command = command.replace("--timeout 5", f"--timeout {self._timeout}")
        kept = self._log.with_name("terminal")
        done = subprocess.run(
            ["sh", "-c", f"(exit {self._status}); {command}\n{KEEP}", "sh", str(kept)],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        self._status = done.returncode
        folder, self._env["PATH"], active = kept.read_text().splitlines()
        self._folder = Path(folder)
        if active and "VIRTUAL_ENV" not in self._env:
            self._env["VIRTUAL_ENV"] = active
            _furnish(Path(active), self._wheel)
        if "PASSED" in done.stdout:
            self._timeout = boot_timeout(done.stdout)
        assert _same(done.stdout, shown), f"$ {command}\n{done.stdout}\nis not\n{shown}"

    def look_into_log(self, line: str) -> None:
        assert line in self._log.read_text(), line

    def stop(self) -> None:
        for server in (self._server, self._payments):
            if server is not None:
                server.stop()


def _furnish(environment: Path, wheel: Path) -> None:
    """Have in a virtual environment the wheel, and of all else what the tests have.

    The wheel is found before the checkout. Commands are run by the environment's Python.
    """
    pip: list[str | Path] = [
        environment / "bin" / "python",
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run([*pip, wheel], check=True, stdin=subprocess.DEVNULL, timeout=120)
    (site_packages,) = environment.glob("lib/python*/site-packages")
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        site_packages.joinpath("tests.pth").write_text(f"import site; site.addsitedir({path!r})\n")
    ours, python = Path(sys.executable).parent, environment / "bin" / "python"
    for script in ours.iterdir():
        there = environment / "bin" / script.name
        if script.is_file() and not script.is_symlink() and not there.exists():
            text = script.read_bytes()
            if text.startswith(f"#!{ours}/python".encode()):
                there.write_bytes(f"#!{python}\n".encode() + text.partition(b"\n")[2])
                there.chmod(0o755)


def _same(said: str, shown: str) -> bool:
    """Compare: a line `...` stands for any lines, and one port or duration for another."""
    lines = _leveled(shown).splitlines()
    pattern = "".join(r"(.*\n)*" if line == "..." else re.escape(line + "\n") for line in lines)
    return re.fullmatch(pattern, _leveled(said)) is not None


def _leveled(text: str) -> str:
    text = re.sub(r":\d+/", ":1/", re.sub(r"\d+(\.\d+)? (m?s)\b", r"1 \2", text))
    return text.strip() + "\n"


def _typed(code: str) -> Iterator[tuple[str, str]]:
    """Return the commands of a console block, each with what is shown to come of it."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command.partition("  #")[0].rstrip(), shown


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What users would install, built of this checkout."""
    dist = tmp_path_factory.mktemp("dist")
    build: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        dist,
        ".",
    ]
    done = subprocess.run(
        build,
        cwd=EXAMPLES.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture
def reader(tmp_path: Path, wheel: Path) -> Iterator[Reader]:
    folder = tmp_path / "empty"
    folder.mkdir()
    someone = Reader(folder, tmp_path / "server.log", wheel)
    yield someone
    someone.stop()


WHERE = "python -c 'import healthmw; print(healthmw.__file__.partition(\"/site-packages/\")[0])'"


@pytest.mark.parametrize("name", ["fastapi", "flask", "django"])
def test_what_a_tutorial_says_happens(name: str, reader: Reader, tmp_path: Path) -> None:
    for block in blocks(TUTORIALS / f"{name}.md"):
        named = NAMED.match(block.code)
        if block.language == "console":
            for command, shown in _typed(block.code):
                reader.type(command, shown)
        elif named is not None:
            reader.write(named[2], block.code, at_the_end=named[1] is not None)
        else:
            reader.look_into_log(block.code)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    reader.type(WHERE, f"{tmp_path}/empty/shop/.venv/lib/{version}")  # the wheel, and no checkout


@pytest.mark.parametrize("name", ["fastapi", "flask", "django"])
def test_what_the_readme_of_an_example_says_happens(name: str, tmp_path: Path, wheel: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(
        EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__", "shop.db*")
    )
    for line in (folder / "requirements.txt").read_text().splitlines():
        metadata.version(Requirement(line).name)
    reader = Reader(folder, tmp_path / "server.log", wheel)
    try:
        for block in blocks(folder / "README.md"):
            for command, shown in _typed(block.code):
                reader.type(command, shown)
    finally:
        reader.stop()


@pytest.mark.parametrize(
    ("said", "shown", "same"),
    [
        ("OKAY", "OKAY\n", True),
        ("OKAY!", "OKAY", False),
        ("200 after 12.5 s", "200 after 1 s", True),
        ("503 after 1 s", "200 after 1 s", False),
        ("http://127.0.0.1:40229/", "http://127.0.0.1:8000/", True),
        ("a\nb\nc\nd\n", "a\n...\nd\n", True),
        ("a\nd\n", "a\n...\nd\n", True),
        ("a\nb\nc\n", "a\n...\nd\n", False),
    ],
)
def test_output_is_compared_as_the_tutorials_mean_it(said: str, shown: str, same: bool) -> None:
    assert _same(said, shown) is same
