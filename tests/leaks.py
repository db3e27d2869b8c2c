"""A plugin of pytest that looks for the tests' passwords in all that they make healthmw say.

It looks at log lines, at what tests and their child processes write, at bodies of answers, at the
exceptions that tests expect, at log files, and at what every `Health` has to show of its checks
after each test. (Warnings are errors here.) A password found anywhere fails the run at its end;
which test it was is said, and where, but not the password.
"""

from __future__ import annotations

import http.client
import logging
import re
import subprocess
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from healthmw import _health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORDS = re.compile(r"bait-[0-9a-f]{24}|hunter2-of-the-database|swordfish")
"""Of real servers (tests/services/servers.py), of the states (tests/states.py), of the DSNs."""

_CONTEXT = 60  # characters of what stands before it
_LOGS = ("*.log", "*.txt")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A password that was seen."""

    test: str
    where: str
    before: str

    def __str__(self) -> str:
        return f"{self.test}: in {self.where}: {self.before!r}, and then a password"


class Watch:
    """Sees what is said in one run of the tests."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self.pieces = 0
        """How many texts were looked through."""
        self._test = "before the first test"

    def see(self, where: str, said: object) -> None:
        """Look for a password in a text, or in bytes."""
        self.pieces += 1
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        for found in PASSWORDS.finditer(text):
            before = text[max(found.start() - _CONTEXT, 0) : found.start()]
            sighting = Sighting(self._test, where, PASSWORDS.sub("***", before))
            if sighting not in self.sightings:
                self.sightings.append(sighting)

    def see_exception(self, where: str, error: BaseException | None) -> None:
        """Look at an error and at all that it came from."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            self.see(where, f"{error} {error!r} {getattr(error, '__notes__', '')}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)

    def see_health(self) -> None:
        """Look at what each `Health` that there is shows of its checks."""
        for health in [*_health._healths]:
            for check in health.checks.values():
                self.see("a check's repr", repr(check))
                self.see("a probe's repr", _without_address(check.probe))
                self.see("a result", f"{check.latest!r} {check.latest.detail}")

    def see_files(self, folder: Path) -> None:
        """Look at the log files in a folder."""
        for pattern in _LOGS:
            for file in folder.rglob(pattern):
                with suppress(OSError):
                    self.see(f"the file {file.name}", file.read_bytes())

    # The hooks of pytest

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._test = item.nodeid.partition("[")[0]
        result = yield
        self.see_health()
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for title, text in report.sections:
            self.see(title, text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        result = yield
        if folder is not None:
            self.see_files(folder)
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.sightings and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.sightings:
            terminalreporter.section("passwords that were shown", red=True, bold=True)
            for sighting in self.sightings:
                terminalreporter.line(str(sighting))
        else:
            terminalreporter.line(f"no password in any of {self.pieces:,} texts")


def _without_address(probe: object) -> str:
    """Return a probe's repr; of a function or a lambda there is nothing to be shown."""
    return repr(probe) if type(probe).__module__.startswith("healthmw") else ""


def _wrap(owner: Any, name: str, look: Callable[[Any, Any], object]) -> Callable[[], None]:
    """Have `look` see what `owner.name` was given and returns; return how to undo that."""
    real = getattr(owner, name)

    def seeing(*args: Any, **options: Any) -> Any:
        returned = real(*args, **options)
        look(args, returned)
        return returned

    setattr(owner, name, seeing)
    return lambda: setattr(owner, name, real)


def see_record(watch: Watch, record: logging.LogRecord) -> None:
    with suppress(Exception):  # a line that can't be formatted is the business of its logger
        watch.see(f"the log of {record.name}", record.getMessage())
    if record.exc_info:
        watch.see(
            f"the log of {record.name}", "".join(traceback.format_exception(*record.exc_info))
        )


def see_each(watch: Watch, where: str, texts: Any) -> None:
    for text in texts:
        watch.see(where, text or "")


def install(watch: Watch) -> list[Callable[[], None]]:
    """Have `watch` see what passes through; return how to undo that."""
    return [
        # Where filters have had their say.
        _wrap(logging.Logger, "callHandlers", lambda given, _: see_record(watch, given[1])),
        _wrap(
            pytest.CaptureFixture,
            "readouterr",
            lambda _, both: see_each(watch, "what a test read of its output", both),
        ),
        _wrap(
            subprocess.Popen,
            "communicate",
            lambda _, both: see_each(watch, "what a child process wrote", both),
        ),
        _wrap(http.client.HTTPResponse, "read", lambda _, body: watch.see("a body", body)),
        _wrap(
            pytest.RaisesExc,
            "__exit__",
            lambda given, _: watch.see_exception("an exception that a test expects", given[2]),
        ),
    ]


WATCH = Watch()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(WATCH)
    for undo in install(WATCH):
        config.add_cleanup(undo)
