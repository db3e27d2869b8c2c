"""Puts one subject through all faults: `python -m tests.faults.trial NAME` prints a row as JSON.

It runs in a process of its own, whose threads and files are those of one app with one check.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trustme

from healthmw import Reason, Status
from healthmw import _threads as healthmw_threads
from tests.faults.app import App, Held, Witness
from tests.faults.proxy import LoopThread, Mode, Proxy, Terminator
from tests.faults.subject import Address, Fault, Subject, overrides, subjects
from tests.faults.table import MISSING, chosen
from tests.services.servers import PASSWORD, MissingServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from healthmw import Result

ROUNDS = 100
_HOST = "127.0.0.1"
_NAME = "fault-table.invalid"
_NO_NAME = f"{'x' * 64}.invalid"  # too long a label: C's resolver says no without asking around
_WRONG = f"not-{PASSWORD}"

# Seconds for the probe. A fault at which it has to wait is worth little, for it waits a hundred
# times. Where it is to fail at once, it gets so much that no slow machine makes a timeout of it.
_SHORT, _LONG = 0.1, 5.0
# Seconds that the check gives it beyond: the probe's own limit is to end the run.
_MORE = 1.0
# Seconds beyond the check's limit within which an answer has to be there, on any machine.
_LATE = 20.0

# The part of its time after which a probe has waited. Some that are refused ask again until then.
_WAITED = 0.8

_EITHER = ("failed or timeout", "timeout or failed", "failed", "timeout")

_HANGS = frozenset({Fault.FROZEN, Fault.SILENT, Fault.DRIP})


@dataclass(kw_only=True)
class Cell:
    """What was found. A cell that can't be has nothing but `none`, the reason."""

    verdict: str = ""
    reason: str = ""
    rounds: int = 0
    slowest: float = 0.0
    in_time: bool = False
    before: Held | None = None
    after: Held | None = None
    recovered: str = ""
    """The verdict once all is well again; or, in brackets, why that can't be seen."""
    details: list[str] | None = None
    none: str = ""
    error: str = ""

    def summary(self) -> str:
        """Return it as a line for whoever watches."""
        return " | ".join(
            filter(
                None,
                [
                    f"none: {self.none}" if self.none else f"{self.verdict} ({self.reason})",
                    "; ".join(self.details or []),
                    f"AMISS: {self.amiss()}" if self.amiss() else "",
                ],
            )
        )

    def amiss(self) -> str:
        """Say what is wrong with the cell, or nothing."""
        if self.none:
            return ""
        if self.error:
            return self.error
        if not self.in_time:
            return f"an answer took {self.slowest:.1f} s"
        if self.before is None or self.after is None or not self.after <= self.before:
            return f"open before: {self.before}, after {self.rounds} rounds: {self.after}"
        if self.recovered != Status.OKAY and not self.recovered.startswith("("):
            return f"it did not recover: {self.recovered}"
        return ""


class Trial:
    """One subject, its server, the way there, and the faults."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.server = subject.server = subject.new_server()
        self._closing = contextlib.ExitStack()
        self._closing.callback(self.server.close)
        self._loop = LoopThread()
        self._closing.callback(self._loop.close)
        self.proxy = Proxy(self._loop, self.server.port)
        self._closing.callback(self.proxy.close)
        self.names = Names()
        self._closing.enter_context(self.names)
        self._certificates = Certificates(folder)
        self.address = Address(host=_HOST, port=self.proxy.port, password=PASSWORD)
        self._short = _SHORT
        try:
            subject.reached_at(self.proxy.port)
            self.server.start()
            subject.ready()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._closing.close()

    def run(self) -> dict[str, Cell]:
        cells: dict[str, Cell] = {}
        for fault in Fault:
            began = time.monotonic()
            try:
                cell = self._cell(fault)
            except Exception:  # noqa: BLE001 - written down, and the other cells go on
                cell = Cell(error=traceback.format_exc())
                self.server.mend()
                self.proxy.listen()
            cells[fault.value] = cell
            took = time.monotonic() - began
            print(f"{took:5.1f} s  {fault:16} {cell.summary()}", file=sys.stderr, flush=True)
        return cells

    def _cell(self, fault: Fault) -> Cell:
        if fault in self.subject.no:
            return Cell(none=self.subject.no[fault])
        case = _CASES[fault]
        wavers = fault in self.subject.wavers
        hangs = wavers or (fault in _HANGS and fault not in self.subject.blind)
        cell = case(self, self._short if hangs else _LONG)
        if not hangs and not cell.rounds:
            cell = case(self, self._short)
        if wavers and cell.reason in _EITHER:
            cell.reason = _EITHER[0]
        return cell

    # What the cells are made of

    @contextlib.contextmanager
    def app(self, limit: float, **address: Any) -> Iterator[App]:
        probe = self.subject.probe(replace(self.address, **address), limit)
        app = App(probe, timeout=limit + _MORE, connections=lambda: self.proxy.open)
        try:
            yield app
        finally:
            app.close()

    def rounds(
        self,
        app: App,
        limit: float,
        cell: Cell,
        *,
        first: int = 0,
        each: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Ask a hundred times and write down what was answered.

        Not where the first answer has needed the long limit: the same is then to be done with the
        short one.
        """
        seen: dict[tuple[str, str], None] = {}
        details: dict[str, None] = {}
        for number in range(first, ROUNDS):
            each(number)
            result = app.ask()
            reason = Reason.TIMEOUT if result.reason is Reason.STUCK else result.reason
            seen[result.status.value, reason.value] = None
            details[result.detail] = None
            cell.slowest = max(cell.slowest, result.duration)
            if number == 0 and _waited(result, limit):
                break
            cell.rounds = number + 1
        cell.verdict = " or ".join(dict.fromkeys(status for status, _ in seen))
        cell.reason = " or ".join(dict.fromkeys(reason for _, reason in seen))
        cell.details = [*details][:5]
        cell.in_time = cell.slowest < limit + _MORE + _LATE

    def kept(
        self,
        limit: float,
        inflict: Callable[[], contextlib.AbstractContextManager[object]],
        *,
        each: Callable[[int], None] = lambda _: None,
        **address: Any,
    ) -> Cell:
        """All is well, and the probe has its connection; then the fault; then all is well again."""
        cell = Cell()
        with self.app(limit, **address) as app:
            well = app.ask_until_well()
            if not well.ok:
                raise AssertionError(f"not well before the fault: {_told(well)}")
            cell.before = app.held()
            with inflict():
                self.rounds(app, limit, cell, each=each)
            if cell.rounds:
                self._recovered(app, cell)
        return cell

    def new(
        self,
        limit: float,
        inflict: Callable[[], contextlib.AbstractContextManager[object]],
        *,
        no_recovery: str = "",
        **address: Any,
    ) -> Cell:
        """The fault is there before the probe."""
        cell = Cell()
        with self.app(limit, **address) as app:
            with inflict():
                first = app.ask()
                if _waited(first, limit):
                    return Cell()
                cell.before = app.held()
                self.rounds(app, limit, cell, first=1)
                cell.after = app.held_again(cell.before)
            if no_recovery:
                cell.recovered = f"({no_recovery})"
            else:
                result = app.ask_until_well()
                cell.recovered = _told(result)
        return cell

    def _recovered(self, app: App, cell: Cell) -> None:
        cell.recovered = _told(app.ask_until_well())
        assert cell.before is not None
        cell.after = app.held_again(cell.before)

    @contextlib.contextmanager
    def answers(self, mode: Mode) -> Iterator[None]:
        self.proxy.mode = mode
        try:
            yield
        finally:
            self.proxy.mode = Mode.FORWARD

    # The cells

    def well(self, limit: float) -> Cell:
        with self.app(limit) as app:
            slowest = 0.0
            for _ in range(5):
                slowest = max(slowest, app.ask_until_well().duration)
                self.proxy.drop()
        # Not so short that a slow machine, or a thorough driver, could not even connect in it.
        self._short = min(max(_SHORT, 4 * slowest), 3 * _SHORT)
        return self.kept(limit, contextlib.nullcontext)

    def refused(self, limit: float) -> Cell:
        @contextlib.contextmanager
        def inflict() -> Iterator[None]:
            self.proxy.refuse()
            try:
                yield
            finally:
                self.proxy.listen()

        return self.kept(limit, inflict)

    def password(self, limit: float) -> Cell:
        if not overrides(self.subject, "accept"):
            why = self.subject.new_password
            return self.new(limit, contextlib.nullcontext, no_recovery=why, password=_WRONG)

        @contextlib.contextmanager
        def inflict() -> Iterator[None]:
            try:
                yield
            finally:
                self.subject.accept(_WRONG)

        try:
            return self.new(limit, inflict, password=_WRONG)
        finally:
            self.subject.accept(PASSWORD)

    def frozen(self, limit: float) -> Cell:
        @contextlib.contextmanager
        def inflict() -> Iterator[None]:
            self.server.pause()
            try:
                yield
            finally:
                self.server.resume()

        return self.kept(limit, inflict)

    def killed(self, limit: float) -> Cell:
        @contextlib.contextmanager
        def inflict() -> Iterator[None]:
            self.server.kill()
            self.proxy.refuse()
            try:
                yield
            finally:
                self.server.start()
                self.proxy.listen()

        return self.kept(limit, inflict)

    def restarted(self, limit: float) -> Cell:
        def restart(number: int) -> None:
            if number == 0:
                self.server.restart()
            else:
                self.proxy.drop(politely=bool(number % 2))

        return self.kept(limit, contextlib.nullcontext, each=restart)

    def silent(self, limit: float) -> Cell:
        return self.kept(limit, lambda: self.answers(Mode.SILENT))

    def garbage(self, limit: float) -> Cell:
        return self.kept(limit, lambda: self.answers(Mode.GARBAGE))

    def reset(self, limit: float) -> Cell:
        """Cut each connection a bit later than the one before, all the way through the answers."""
        with self.app(_LONG) as app:
            app.ask_until_well()
            self.proxy.drop()
            app.ask_until_well()  # a connection without what a client asks but once
            answered = self.proxy.answered
        share = self.subject.surely_before

        def cut(number: int) -> None:
            self.proxy.cut_after = 1 + int(share * (answered - 1) * number / ROUNDS)

        return self.kept(limit, lambda: self.answers(Mode.CUT), each=cut)

    def drip(self, limit: float) -> Cell:
        self.proxy.interval = limit / 2  # so no byte is waited for longer than the limit
        return self.kept(limit, lambda: self.answers(Mode.DRIP))

    def dns(self, limit: float) -> Cell:
        if self.subject.resolver:
            why = self.subject.resolver
            return self.new(limit, contextlib.nullcontext, no_recovery=why, host=_NO_NAME)

        @contextlib.contextmanager
        def inflict() -> Iterator[None]:
            self.names.resolve = False
            self.proxy.drop()
            try:
                yield
            finally:
                self.names.resolve = True

        return self.kept(limit, inflict, host=_NAME)

    def full(self, limit: float) -> Cell:
        return self.new(limit, self.subject.fill)

    def expired(self, limit: float) -> Cell:
        return self._tls(limit, "expired")

    def misnamed(self, limit: float) -> Cell:
        return self._tls(limit, "misnamed")

    def _tls(self, limit: float, bad: str) -> Cell:
        """Speak TLS with a good certificate, then with a bad one, then with the good one again."""
        with contextlib.ExitStack() as stack:
            if overrides(self.subject, "present"):
                proxy = self.proxy

                def show(which: str) -> None:
                    self.subject.present(*self._certificates.files(which))
            else:
                hello = self.subject.before_tls
                terminator = Terminator(self._loop, self.server.port, hello)
                stack.callback(terminator.close)
                proxy = Proxy(self._loop, terminator.port)
                stack.callback(proxy.close)
                stack.callback(self.subject.reached_at, self.proxy.port)
                self.subject.reached_at(proxy.port)

                def show(which: str) -> None:
                    terminator.context = self._certificates.context(which)

            @contextlib.contextmanager
            def inflict() -> Iterator[None]:
                show(bad)
                proxy.drop()
                try:
                    yield
                finally:
                    show("good")

            show("good")
            plain, self.proxy = self.proxy, proxy
            stack.callback(setattr, self, "proxy", plain)
            return self.kept(limit, inflict, port=proxy.port, ca=self._certificates.authority)


_CASES: dict[Fault, Callable[[Trial, float], Cell]] = {
    Fault.WELL: Trial.well,
    Fault.REFUSED: Trial.refused,
    Fault.PASSWORD: Trial.password,
    Fault.FROZEN: Trial.frozen,
    Fault.KILLED: Trial.killed,
    Fault.RESTARTED: Trial.restarted,
    Fault.SILENT: Trial.silent,
    Fault.GARBAGE: Trial.garbage,
    Fault.RESET: Trial.reset,
    Fault.DRIP: Trial.drip,
    Fault.DNS: Trial.dns,
    Fault.FULL: Trial.full,
    Fault.EXPIRED: Trial.expired,
    Fault.MISNAMED: Trial.misnamed,
}


def _waited(result: Result, limit: float) -> bool:
    """Tell whether the probe has used up the long limit, whatever it said then."""
    return limit == _LONG and result.duration > _WAITED * limit


class Names:
    """A resolver that knows one name of ours, while it works. Python's, not C's."""

    def __init__(self) -> None:
        self.resolve = True
        self._real = socket.getaddrinfo

    def __enter__(self) -> None:
        vars(socket)["getaddrinfo"] = self._look_up

    def __exit__(self, *_: object) -> None:
        vars(socket)["getaddrinfo"] = self._real

    def _look_up(self, host: Any, *args: Any, **options: Any) -> Any:
        if host in {_NAME, _NAME.encode()}:
            if not self.resolve:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = _HOST
        return self._real(host, *args, **options)


class Certificates:
    """An authority, and what it has signed: in order, out of date, and for another host."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)  # a server may run as another user
        self.authority = folder / "authority.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        past = datetime(2001, 1, 1, tzinfo=UTC)
        self._issued = {
            "good": authority.issue_cert(_HOST, _NAME),
            "expired": authority.issue_cert(_HOST, _NAME, not_after=past),
            "misnamed": authority.issue_cert("other.example"),
        }
        self._folder = folder

    def context(self, which: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued[which].configure_cert(context)
        return context

    def files(self, which: str) -> tuple[Path, Path]:
        """Return a certificate and its key as files that any user may read."""
        certificate, key = self._folder / f"{which}.pem", self._folder / f"{which}.key"
        certificate.write_bytes(b"".join(b.bytes() for b in self._issued[which].cert_chain_pems))
        key.write_bytes(self._issued[which].private_key_pem.bytes())
        return certificate, key


def _told(result: Result) -> str:
    if result.status is Status.OKAY:
        return Status.OKAY.value
    return f"{result.status} ({result.reason}): {result.detail}"


def main(word: str) -> int:
    (name,) = [word] if word in subjects() else chosen([word])
    # Idle threads that linger for another run would count as open for longer than we like to wait.
    healthmw_threads.THREADS._idle_seconds = 0.5
    witness = Witness()
    witness.watch(sys)
    with tempfile.TemporaryDirectory(prefix="healthmw-faults-") as folder:
        try:
            trial = Trial(subjects()[name](), Path(folder))
        except MissingServerError as exc:
            print(exc)
            return MISSING
        try:
            cells = trial.run()
        finally:
            trial.close()
    row = {
        "name": name,
        "cells": {fault: asdict(cell) for fault, cell in cells.items()},
        "amiss": {fault: amiss for fault, cell in cells.items() if (amiss := cell.amiss())},
        "secrets": witness.secrets,
        "complaints": witness.complaints,
    }
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
