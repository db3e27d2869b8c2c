"""Targets without a server: a `Health`, and a dependency by its DSN, run in this very process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import queue
import re
import sys
import threading
import time
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from healthmw import Health, Status
from healthmw._breaker_state import BreakerState
from healthmw._scrub import scrub, scrub_exception
from healthmw.cli._exit import CouldNotTell
from healthmw.cli._target import Observation
from healthmw.cli._text import clean, limit
from healthmw.render.text import render, render_verbose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from healthmw import Report, Result
    from healthmw._model import Measurement

_TO_BE_TRIED = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN})
# Shares of the time limit: what a probe says of its own end tells more than what the engine says of
# its check, then of the group, and what is left to say here tells least.
_PROBES_SHARE = 0.9
_CHECKS_SHARE = 0.93
_GROUPS_SHARE = 0.95
_GRACE = 0.5  # seconds over the time limit for the engine's report: the machine may be busy
_CLOSING = 3.0  # seconds after that to close what the probes opened: they need one

# What a check says reaches the screen as part of the verdict, and not a second time by logging's
# last resort. Where the app has set up logging its handlers get everything, as ever.
logging.getLogger("healthmw").addHandler(logging.NullHandler())


class InProcess:
    """A `Health` as a target. Every look has an event loop of its own, and closes what it opened.

    A probe may hold up that loop, which no time limit can end. So it runs in a thread that is left
    behind in such a case, and no second one is started while the first has not come back.
    """

    def __init__(
        self,
        name: str,
        health: Health,
        *,
        group: str | None = None,
        strict: bool = False,
        checks: bool = True,
        secrets: Iterable[str] = (),
    ) -> None:
        self.name = name
        self._health = health
        self._group = group or "ready"
        self._strict = strict
        self._checks = checks
        """Whether the checks are worth telling apart: False for the only one of a DSN."""
        self._secrets = tuple(secrets)
        self._thread: threading.Thread | None = None

    def observe(self, timeout: float) -> Observation:
        """Run the group once; `timeout` in seconds."""
        start = time.monotonic()
        if self._thread is not None and self._thread.is_alive():
            time.sleep(min(timeout, 0.1))  # or else a wait would turn round and round
            return self._late("the last look has not come back", start)
        back: queue.SimpleQueue[Report | Exception] = queue.SimpleQueue()

        def run() -> None:
            logger, without_secrets = logging.getLogger("healthmw"), _WithoutSecrets(self._secrets)
            logger.addFilter(without_secrets)
            try:
                anyio.run(self._run, timeout, back.put)
            except Exception as exc:  # noqa: BLE001 - handed over, and told
                back.put(exc)
            finally:
                logger.removeFilter(without_secrets)

        self._thread = threading.Thread(target=run, name="healthmw-in-process", daemon=True)
        self._thread.start()
        try:
            found = back.get(timeout=timeout + _GRACE)
        except queue.Empty:
            return self._late(f"something blocks the event loop for over {limit(timeout)}", start)
        seconds = time.monotonic() - start
        self._thread.join(_CLOSING)
        if isinstance(found, Exception):
            return self._late(f"it can't be run: {scrub_exception(found, self._secrets)}", start)
        return self._of(found, seconds)

    async def _run(self, timeout: float, tell: Callable[[Report], None]) -> None:
        for check in self._health.checks.values():
            # A breaker spaces its trials for the sake of those who call the dependency. Here nobody
            # does: each look is one, and the operator says how often (`--interval`).
            if check.breaker is not None and check.breaker.state in _TO_BE_TRIED:
                check.breaker.reset()
        async with self._health as health:
            deadline = health.deadline
            health.deadline = min(deadline, timeout * _GROUPS_SHARE)
            try:
                tell(await health.run(self._group, fresh=True))
            finally:
                health.deadline = deadline

    def _of(self, report: Report, seconds: float) -> Observation:
        well = report.ok and not (self._strict and report.status is Status.DEGRADED)
        lines = render_verbose(report, details=True).splitlines()[1:] if self._checks else []
        return Observation(
            well=well,
            text=clean(scrub(self._text(report, well=well), self._secrets)),
            seconds=seconds,
            health=report.status.value,
            release=report.release,
            lines=[clean(scrub(line, self._secrets)) for line in lines],
            report=self._as_json(report) if self._checks else None,
        )

    def _text(self, report: Report, *, well: bool) -> str:
        """Say what is at fault, and with the probes' own words: an operator may see them."""
        if report.status is Status.OKAY:
            return "OKAY"
        faults = report.at_fault
        if report.reason is not None or not faults:
            return render(report).removeprefix("FAILED: ")
        said = "; ".join(self._fault(one) for one in faults)
        if report.status is Status.DEGRADED:
            return f"OKAY, degraded by {said}" if well else f"degraded by {said}"
        return said

    def _fault(self, one: Result) -> str:
        if not self._checks:
            return one.detail or one.reason.value
        return f"{one.name} ({one.reason}){f': {one.detail}' if one.detail else ''}"

    def _as_json(self, report: Report) -> dict[str, Any]:
        return {
            "group": report.group,
            "status": report.status.value,
            "release": report.release,
            "checks": {
                one.name: {
                    "status": one.status.value,
                    "reason": one.reason.value,
                    "critical": one.critical,
                    "detail": scrub(one.detail, self._secrets),
                    "seconds": round(one.duration, 3),
                    "measurements": {
                        name: _as_json(value) for name, value in one.measurements.items()
                    },
                    "breaker": self._breaker(one.name),
                }
                for one in report.results.values()
            },
        }

    def _breaker(self, name: str) -> str | None:
        breaker = self._health.check(name).breaker
        return None if breaker is None else breaker.state.value

    def _late(self, text: str, start: float) -> Observation:
        return Observation(well=False, text=clean(text), seconds=time.monotonic() - start)


def _as_json(value: Measurement) -> Measurement:
    """Return `value` as the endpoint has it: JSON knows no NaN."""
    return value if isinstance(value, str) or math.isfinite(value) else str(value)


def named(text: str, *, group: str | None, strict: bool) -> InProcess:
    """Return the target for `module:attribute`. Raises `CouldNotTell` where it names no `Health`.

    The current directory is looked in first, as servers do.
    """
    module_name, _, attribute = text.partition(":")
    try:
        here = str(Path.cwd())
    except OSError:
        raise CouldNotTell(f"{text}: the current directory is gone: change into it anew") from None
    if here not in sys.path:
        sys.path.insert(0, here)
    module = _module(module_name)
    try:
        found = reduce(getattr, attribute.split("."), module)
    except AttributeError:
        raise CouldNotTell(f"{text}: {module_name} has no {attribute!r}; {_hint(module)}") from None
    except Exception as exc:  # noqa: BLE001 - an app's own code may raise anything
        raise CouldNotTell(f"{text}: looking it up failed: {scrub_exception(exc)}") from None
    if not isinstance(found, Health):
        raise CouldNotTell(
            f"{text} is no Health but of the type {type(found).__name__!r}; {_hint(module)}"
        )
    if group is not None and group not in found:
        known = ", ".join([*found.groups, *found.checks])
        raise CouldNotTell(f"{text}: there is no group or check {group!r}, only {known}")
    try:
        found.validate()
    except ValueError as exc:
        raise CouldNotTell(f"{text}: {exc}") from None
    return InProcess(text, found, group=group, strict=strict)


def _module(name: str) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the verdict's place: `--json` is parsed
            return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise CouldNotTell(
                f"there is no module {exc.name!r} in {Path.cwd()} or installed;"
                " run this in the folder where the server is started"
            ) from None
        raise _broken(name, exc) from None
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 - SystemExit, a panic of an extension, or anything
        raise _broken(name, exc) from None


def _broken(name: str, exc: BaseException) -> CouldNotTell:
    return CouldNotTell(
        f"importing {name!r} failed: {scrub_exception(exc)};"
        f" `python -c 'import {name}'` shows where"
    )


class _WithoutSecrets(logging.Filter):
    """Takes the password of a DSN out of log lines, in whatever form it comes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        if self._secrets:
            record.msg, record.args = scrub(record.getMessage(), self._secrets), ()
        return True


def _hint(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Health)]
    if not names:
        return f"{module.__name__} has no Health; name the module that makes it"
    return "did you mean " + " or ".join(f"{module.__name__}:{name}" for name in names) + "?"


def dependency(text: str, *, name: str, timeout: float, strict: bool) -> InProcess:
    """Return the target for the DSN `text`. Raises `CouldNotTell` where no probe can be made."""
    from urllib.parse import unquote

    from healthmw.exceptions import MissingExtraError
    from healthmw.probes import probe_from_dsn

    found = re.match(r"[^:]+://[^:/?#]*:(.*)@", text)
    secrets = {found[1], unquote(found[1])} if found else set()
    try:
        probe = probe_from_dsn(text, timeout=timeout * _PROBES_SHARE)
    except (ValueError, MissingExtraError) as exc:
        raise CouldNotTell(f"{name}: {scrub(str(exc), secrets)}") from None
    except Exception as exc:  # noqa: BLE001 - a third party's probe may raise anything
        raise CouldNotTell(f"{name}: {scrub_exception(exc, secrets)}") from None
    health = Health(deadline=timeout)
    health.add("dependency", probe, timeout=timeout * _CHECKS_SHARE)
    return InProcess(name, health, strict=strict, checks=False, secrets=secrets)
