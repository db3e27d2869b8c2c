"""One deploy: an old generation under load, a new one, and the platform between them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.preboot.generation import PATIENCE, Generation, eventually
from tests.preboot.router import HEALTH, Router, Users
from tests.programs import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.faults.proxy import LoopThread
    from tests.preboot.scenarios import Release, Scenario, Setting
    from tests.preboot.stage import Stage

USERS = 4
PAUSE = 0.8  # seconds between two requests of a user
ENOUGH = 8  # requests of users that are to come to an end in each phase
DRAIN = 6.0  # seconds; the router's lag is two

YES, NO, NONE = "yes", "no", "–"  # noqa: RUF001 - a dash, for what a scenario has not

_FIGURES = {
    r"127\.0\.0\.1:\d+": "127.0.0.1:…",
    r"(?<=port )\d+|(?<='127\.0\.0\.1', )\d+": "…",
    r"\d+(\.\d+)? (?=m?s\b)": "… ",
    r"shop\d+": "shop",
}
"""What differs from run to run, and what is shown in its place."""

_LONGEST = 320  # characters of what is shown

# Booting is all work and no waiting: more at a time would only make each slower.
_BOOTING = threading.BoundedSemaphore(3)


@dataclass(kw_only=True)
class Finding:
    """What came of one deploy."""

    bad_traffic: str = NONE
    """Whether bad code got requests of users."""
    failed: int = 0
    requests: int = 0
    halted: str = NO
    """Whether the deploy was halted, and by what."""
    operator: str = ""
    """What the one who deploys saw."""
    error: str = ""
    """Where the simulation itself went wrong: for the one who mends it."""


class Deploy:
    """Deploys once. `run` leaves nothing behind."""

    def __init__(
        self, scenario: Scenario, setting: Setting, stage: Stage, loop: LoopThread, folder: Path
    ) -> None:
        self._scenario = scenario
        self._setting = setting
        self._stage = stage
        self._loop = loop
        self._folder = folder
        self._database = stage.database(scenario.schema, scenario.limit)
        self._limit = PATIENCE
        self._environ: Mapping[str, str] = {}
        self._worker: subprocess.Popen[bytes] | None = None
        self.found = Finding()

    def run(self) -> Finding:
        """Deploy, and note how far that went."""
        try:
            with ExitStack() as stack:
                self._run(stack)
        except Exception as exc:  # noqa: BLE001 - what is found goes into the table
            self.found.error = f"{type(exc).__name__}: {exc}"
        return self.found

    def _run(self, stack: ExitStack) -> None:
        scenario, setting, found = self._scenario, self._setting, self.found
        old = self._generation(stack, "old", scenario.old, {})
        with _BOOTING:
            began = time.monotonic()
            old.start()
            eventually(lambda: old.answers() or old.ended, old.tail)
        assert not old.ended, old.tail()
        # 60 s are plenty for the app at its usual pace; so is this at the pace of this machine.
        self._limit = max(8.0, 4 * (time.monotonic() - began))
        new = self._generation(stack, "new", scenario.new, scenario.fault)

        self._router = Router(patience=max(6.0, self._limit / 2))
        self._loop.call(self._router.start())
        stack.callback(lambda: self._loop.call(self._router.close()))
        self._router.backends = [old]
        paths = ["/", "/pay", "/slow"] if scenario.lag else ["/", "/pay"]
        self._users = Users(self._router.port, paths, PAUSE)
        self._loop.call(self._users.start(USERS))
        stack.callback(lambda: self._loop.call(self._users.stop()))

        self._see_more_requests()
        if setting.gate and not self._passes_the_gate():
            found.halted = "by the release command"
        else:
            self._start_worker(stack)
            if self._comes_up(new):
                self._hand_over(old, new)
            else:
                found.halted = "by the platform"
                new.kill()
        self._see_worker_end()
        self._see_more_requests()
        self._loop.call(self._users.stop())
        self._conclude(new)

    # The phases

    def _generation(
        self, stack: ExitStack, name: str, release: Release, fault: Mapping[str, str]
    ) -> Generation:
        self._environ = self._environment(release, fault)
        generation = Generation(name, self._setting, self._environ, self._folder)
        stack.callback(generation.close)
        return generation

    def _environment(self, release: Release, fault: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self._folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "APP_RELEASE": release.name,
            "COLUMN": release.column,
            "FORMATS": release.formats,
            "REVISIONS": str(self._stage.revisions(release.revision)),
            "DATABASE_URL": self._stage.dsn(self._database, fault.get("DATABASE")),
            "PAYMENTS_URL": self._stage.payments if self._scenario.payments else self._stage.nobody,
            "POOL_SIZE": str(self._scenario.pool),
            "INTERFACE": self._setting.interface,
            "DRAIN_DELAY": str(DRAIN),
            "BOOT_LIMIT": f"{self._limit:.0f}",
            **fault,
        }

    def _passes_the_gate(self) -> bool:
        """Run the release command, which a deploy goes on from only if its exit status is 0."""
        command = [sys.executable, "-m", "healthmw", *self._setting.gate, "--group", "release"]
        command += ["--timeout", f"{self._limit:.0f}"]
        if "smoke" in command:
            command += ["--request-timeout", f"{self._limit:.0f}", "--log-lines", "200", "--"]
            command += self._setting.command("{port}")
        said = self._folder / "release.log"
        with said.open("wb") as log, _BOOTING:
            running = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.DEVNULL,
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(self._limit / 4)
        try:
            passes = running.wait(self._limit + PATIENCE) == 0
        finally:
            running.terminate()  # it ends the server that it tries, too
            running.wait(PATIENCE)
        if not passes:
            self.found.operator = gist(said.read_text(errors="replace"))
        return passes

    def _comes_up(self, new: Generation) -> bool:
        """Start the new generation; tell whether the platform switches to it."""
        with _BOOTING:
            began = time.monotonic()
            boot_limit = began + self._limit
            new.start()
            while time.monotonic() < began + self._limit / 4 and not (new.listens or new.ended):
                time.sleep(0.05)
        if self._setting.switch == "readiness":
            while not new.answers(HEALTH):
                if new.ended or time.monotonic() > boot_limit:
                    self.found.operator = last_error(new.tail())
                    return False
                time.sleep(0.2)
            return True
        while not (new.listens or new.ended):
            if time.monotonic() > boot_limit:
                new.kill()
            time.sleep(0.05)
        # What became of it meanwhile doesn't matter: this is a timer.
        time.sleep(max(0.0, boot_limit + 2.0 - time.monotonic()))
        return True

    def _hand_over(self, old: Generation, new: Generation) -> None:
        """Have the new generation serve, and the old one end."""
        if self._setting.switch == "readiness" or self._scenario.lag:
            self._router.backends = [old, new]
        else:
            self._router.backends = [new]
            eventually(lambda: not old.under_way)
        self._see_more_requests()
        told, tried = time.monotonic(), old.tried
        old.tell_to_stop()
        if self._setting.switch == "readiness":
            eventually(lambda: not old.answers(HEALTH))
        if self._scenario.lag:
            eventually(lambda: time.monotonic() > told + self._scenario.lag)
            eventually(lambda: old.tried > tried)
        self._router.backends = [new]
        eventually(lambda: old.ended, old.tail)

    def _start_worker(self, stack: ExitStack) -> None:
        """Start the worker of the new release, which the platform does as soon as it can."""
        if not self._scenario.worker:
            return
        command = [sys.executable, "-m", "tests.preboot.worker"]
        if self._setting.healthmw:
            url = f"http://127.0.0.1:{self._router.port}{HEALTH}"
            wait = ["wait", "--release", self._scenario.new.name, "--passes", "5"]
            wait += ["--interval", "0.2", "--timeout", f"{PATIENCE:.0f}", url, "--"]
            command = [sys.executable, "-m", "healthmw", *wait, *command]
        with self._folder.joinpath("worker.log").open("wb") as log:
            self._worker = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        stack.callback(self._worker.wait)
        stack.callback(self._worker.kill)

    def _see_worker_end(self) -> None:
        if self._worker is not None:
            assert self._worker.wait(PATIENCE) == 0, (self._folder / "worker.log").read_text()

    def _see_more_requests(self) -> None:
        until = self._users.asked + ENOUGH
        eventually(lambda: self._users.asked >= until)

    def _conclude(self, new: Generation) -> None:
        found = self.found
        found.failed, found.requests = self._users.failed, self._users.asked
        if self._scenario.bad:
            found.bad_traffic = YES if new.tried else NO
        if not found.operator:
            log = self._router.log.most_common(1)
            found.operator = f"deployed; in the router's log: {log[0][0]}" if log else "deployed"


def gist(said: str) -> str:
    """Return what a release command says, without what is another thing in each run."""
    verdict, *rest = [line.strip() for line in said.splitlines() if line.strip()]
    found = re.search(r"FAILED: (\w+) \(\w+\)", said)
    parts = [verdict]
    if found and found[0] not in verdict:  # time was up in the middle of the last request
        parts.append(found[0])
    telling = rf"check {found[1]}: \w+ -> failed: (.+)" if found else r"\| (\w+Error: .+)"
    told = [match[1] for line in rest if (match := re.search(telling, line))]
    return _shortened(": ".join([*parts, *told[-1:]]))


def last_error(log: str) -> str:
    """Return the last error that a server's log names."""
    told = re.findall(r"^(?:ERROR: +)?(\w+Error: .+|healthmw: .+)", log, re.MULTILINE)
    return _shortened(f"never ready; in its log: {told[-1] if told else 'nothing'}")


def _shortened(text: str) -> str:
    for pattern, figure in _FIGURES.items():
        text = re.sub(pattern, figure, text)
    return textwrap.shorten(text, _LONGEST, placeholder=" …")
