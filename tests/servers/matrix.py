"""The server matrix: each server that the docs name, and one whole life under it.

A row is booted once and taken through everything in turn, so that all of them take a few minutes.
`python -m tests.servers.matrix` writes the page of the documentation from what the last run found.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers.boot import ROOT, Server, eventually, scenario

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.transports import Answer

FOUND = ROOT / "build" / "server-matrix.json"
PAGE = ROOT / "docs" / "reference" / "server-matrix.md"

GRACE = 15.0  # seconds from TERM to the end; the servers are told to allow 5
RUSH, AT_ONCE = 200, 20

RULE = "|---|---|---|---|---|---|---|---|"  # below the heads of the table

YES, NO, NONE = "yes", "NO", "–"  # noqa: RUF001 - a dash, for what a server doesn't have


@dataclass(frozen=True, kw_only=True)
class Row:
    """A server, and how it is told to run the app of its interface."""

    command: str
    interface: str
    workers: int = 1
    renewal: str = ""
    """How its processes are replaced: `HUP`, `file`, `requests`, or not at all."""

    def words(self, port: int) -> list[str]:
        app = f"tests.servers.matrix_{self.interface}"
        command = self.command.format(port=port, app=app)
        program, *options = command.split()
        beside = Path(sys.executable).parent / program
        if beside.exists():
            return [str(beside), *options]
        return [sys.executable, "-m", program, *options]


UVICORN = "uvicorn --port {port} --timeout-graceful-shutdown 5 {app}:app"
HYPERCORN = "hypercorn --bind 127.0.0.1:{port} --graceful-timeout 5 {app}:app"
GRANIAN = "granian --port {port} --workers 2 {app}:app"
GUNICORN = "gunicorn --bind 127.0.0.1:{port} --graceful-timeout 5 --workers 2 {app}:app"
GTHREAD = "--worker-class gthread --threads 8"
UWSGI = "uwsgi --http-socket 127.0.0.1:{port} --master --need-app --die-on-term --module {app}:app"
UWSGI += " --worker-reload-mercy 5 --processes 2"

ROWS = {
    "uvicorn": Row(
        command=f"{UVICORN} --loop asyncio --workers 2", interface="asgi", workers=2, renewal="HUP"
    ),
    "uvicorn, uvloop, --reload": Row(
        command=f"{UVICORN} --loop uvloop --reload", interface="asgi", renewal="file"
    ),
    "hypercorn, asyncio, --reload": Row(
        command=f"{HYPERCORN} --reload", interface="asgi", renewal="file"
    ),
    "hypercorn, trio": Row(
        command=f"{HYPERCORN} --worker-class trio --workers 2", interface="asgi", workers=2
    ),
    "granian, ASGI": Row(
        command=f"{GRANIAN} --interface asgi", interface="asgi", workers=2, renewal="HUP"
    ),
    "granian, WSGI": Row(
        command=f"{GRANIAN} --interface wsgi", interface="wsgi", workers=2, renewal="HUP"
    ),
    "daphne": Row(command="daphne --port {port} {app}:app", interface="asgi"),
    "gunicorn, sync": Row(command=GUNICORN, interface="wsgi", workers=2, renewal="HUP"),
    "gunicorn, sync, --preload": Row(
        command=f"{GUNICORN} --preload", interface="wsgi", workers=2, renewal="HUP"
    ),
    "gunicorn, sync, --max-requests": Row(
        command=f"{GUNICORN} --max-requests 60 --max-requests-jitter 20",
        interface="wsgi",
        workers=2,
        renewal="requests",
    ),
    "gunicorn, gthread": Row(
        command=f"{GUNICORN} {GTHREAD}", interface="wsgi", workers=2, renewal="HUP"
    ),
    "gunicorn, gthread, --preload": Row(
        command=f"{GUNICORN} {GTHREAD} --preload", interface="wsgi", workers=2, renewal="HUP"
    ),
    "gunicorn, gevent": Row(
        command=f"{GUNICORN} --worker-class gevent", interface="wsgi", workers=2, renewal="HUP"
    ),
    "gunicorn, gevent, --preload, --max-requests": Row(
        command=f"{GUNICORN} --worker-class gevent --preload --max-requests 60",
        interface="wsgi",
        workers=2,
        renewal="requests",
    ),
    "gunicorn, uvicorn worker": Row(
        command=f"{GUNICORN} --worker-class uvicorn_worker.UvicornWorker",
        interface="asgi",
        workers=2,
        renewal="HUP",
    ),
    "gunicorn, uvicorn worker, --preload": Row(
        command=f"{GUNICORN} --worker-class uvicorn_worker.UvicornWorker --preload",
        interface="asgi",
        workers=2,
        renewal="HUP",
    ),
    "waitress": Row(
        command="waitress-serve --listen 127.0.0.1:{port} --threads 8 {app}:app", interface="wsgi"
    ),
    "uWSGI, prefork": Row(command=UWSGI, interface="wsgi", workers=2, renewal="HUP"),
    "uWSGI, prefork, --lazy-apps": Row(
        command=f"{UWSGI} --enable-threads --lazy-apps",
        interface="wsgi",
        workers=2,
        renewal="HUP",
    ),
    "uWSGI, threads, --max-requests": Row(
        command=f"{UWSGI} --threads 4 --max-requests 60",
        interface="wsgi",
        workers=2,
        renewal="requests",
    ),
    "cheroot": Row(
        command="cheroot --bind 127.0.0.1:{port} --threads 8 {app}:app", interface="wsgi"
    ),
    "Werkzeug's development server": Row(
        command="tests.servers.matrix_wsgi {port}", interface="wsgi", renewal="file"
    ),
    "Django's development server": Row(
        command="tests.servers.matrix_django runserver 127.0.0.1:{port}",
        interface="wsgi",
        renewal="file",
    ),
}


@dataclass(kw_only=True)
class Findings:
    """What a life under a server came to. Each is a verdict, and no figure."""

    boots: str = NO
    truth: str = NO
    rush: str = NO
    background: str = NO
    renewal: str = NO
    steady: str = NO
    ends: str = NO
    error: str = ""
    """Where it went wrong: for the one who mends it, and not for the page."""

    def line(self, name: str) -> str:
        """Return its line of the table."""
        verdicts = [getattr(self, field.name) for field in fields(self) if field.name != "error"]
        return "| " + " | ".join([name, *verdicts]) + " |"


class Dependency:
    """A server that something depends on, at a path of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener: socket.socket | None = None

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(1000)

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._path.unlink()
            self._listener = None


class _Served(Server):
    """A server on a port that is picked for it: not all of them tell their own."""

    def __init__(self, row: Row, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        super().__init__(row.words(port), folder, **scenario("matrix", folder))
        self.port = port

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"the server ended: {self.tail()}"
        try:
            return self.get().status > 0
        except OSError:
            return False

    @property
    def pid(self) -> int:
        return self._process.pid

    def family(self) -> set[int]:
        """Return the pids of all processes that it has begun and that have not ended."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                words = stat.read_text().rpartition(")")[2].split()
                if words[0] != "Z" and int(words[3]) == self.pid:  # its session
                    found.add(int(stat.parent.name))
        return found


class Life:
    """One life under one server."""

    def __init__(self, row: Row, folder: Path) -> None:
        self._row = row
        self._folder = folder
        self._dependency = Dependency(folder / "dependency")
        self._server = _Served(row, folder)
        self._touched = folder / "touched.py"
        self._touched.write_text("# here\n")
        self.found = Findings()

    def live(self) -> Findings:
        """Go through it all; note how far that went."""
        self._dependency.start()
        try:
            self._go_through()
        except Exception as exc:  # noqa: BLE001 - what is found goes into the table
            self.found.error = f"{type(exc).__name__}: {exc}\n{self._server.tail()[-6000:]}"
        finally:
            self._server.kill()
            self._dependency.stop()
        return self.found

    def _go_through(self) -> None:
        found = self.found
        with self._server:
            self._until_all_say(200, b"OKAY")
            found.boots = YES
            self._dependency.stop()
            self._until_all_say(503, b"FAILED: database (failed)")
            self._dependency.start()
            self._until_all_say(200, b"OKAY")
            found.truth = YES
            self._rush()
            found.rush = YES
            eventually(lambda: len(self._at_work()) == self._row.workers, self._explain)
            found.background = YES
            self._renew()
            self._stay()
            self._end()
            found.ends = YES

    def _ask(self, times: int, at_once: int) -> list[Answer]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda _: self._server.get(), range(times)))

    def _until_all_say(self, status: int, body: bytes) -> None:
        said: set[tuple[int, bytes]] = set()

        def all_do() -> bool:
            with suppress(OSError):  # a worker that is being replaced may hang up
                said.clear()
                said.update((one.status, one.body) for one in self._ask(12, 4))
                return said == {(status, body)}
            return False

        eventually(all_do, lambda: f"{said} {self._explain()}")

    def _rush(self) -> None:
        answers = {(one.status, one.body) for one in self._ask(RUSH, AT_ONCE)}
        assert answers == {(200, b"OKAY")}, answers

    def _at_work(self) -> set[int]:
        """Return the processes that have just run their background check; asking wakes WSGI's."""
        journal = self._folder / "journal"
        with suppress(OSError):
            self._ask(4 * self._row.workers, 4)
        since = time.monotonic() - 2.0
        runs = [line.split() for line in journal.read_text().splitlines()]
        family = self._server.family()
        recent = {int(pid) for _, pid, when in runs if float(when) > since}
        return recent & family

    def _explain(self) -> str:
        return (
            f"at work {self._at_work()} of {self._server.family()}: {self._server.tail()[-3000:]}"
        )

    def _renew(self) -> None:
        """Have every worker replaced: the old ones end, and new ones do their work."""
        if not self._row.renewal:
            self.found.renewal = NONE
            return
        old = self._at_work()
        if self._row.renewal == "HUP":
            os.kill(self._server.pid, signal.SIGHUP)
        elif self._row.renewal == "file":
            # A watcher that looks at whole seconds is to see it, too.
            stamp = time.time() + 5
            self._touched.write_text("# and changed\n")
            os.utime(self._touched, (stamp, stamp))

        def are_replaced() -> bool:
            new = self._at_work()
            gone = not old & self._server.family()
            return gone and len(new) == self._row.workers

        eventually(are_replaced, self._explain)
        self._until_all_say(200, b"OKAY")
        self.found.renewal = YES

    def _stay(self) -> None:
        """See that threads and open files don't grow with the requests."""
        if self._row.renewal == "requests":  # its processes do not last
            self.found.steady = NONE
            return
        self._ask(RUSH, AT_ONCE)  # the server's own pools are full then
        before = self._held()
        self._ask(RUSH, AT_ONCE)
        slack = 4 * self._row.workers  # threads of probes come and go

        def has_not_grown() -> bool:
            after = self._held()
            return all(now <= then + slack for now, then in zip(after, before, strict=True))

        eventually(has_not_grown, lambda: f"{before} -> {self._held()}")
        self.found.steady = YES

    def _held(self) -> tuple[int, int]:
        """Return how many threads and open files all processes have."""

        def count(what: str) -> int:
            total = 0
            for pid in self._server.family():
                with suppress(OSError):
                    total += len(os.listdir(f"/proc/{pid}/{what}"))  # noqa: PTH208 - only counted
            return total

        return count("task"), count("fd")

    def _end(self) -> None:
        """TERM ends all of it in time, while a probe is stuck in each worker."""
        self._folder.joinpath("stuck").touch()

        def are_stuck() -> bool:
            with suppress(OSError):
                return {one["health-status"] for one in self._ask(12, 4)} == {"degraded"}
            return False

        eventually(are_stuck, self._explain)
        began = time.monotonic()
        os.kill(self._server.pid, signal.SIGTERM)
        eventually(lambda: self._server.exit_status is not None, self._explain)
        eventually(lambda: not self._server.family(), self._explain)
        took = time.monotonic() - began
        assert took < GRACE, f"it took {took:.0f} s"
        assert "SIGKILL" not in self._server.tail(), "its master had to kill a worker"


def live(name: str, folder: Path) -> Findings:
    """Boot the server of that name once and take it through everything."""
    folder.mkdir()
    return Life(ROWS[name], folder).live()


def write(found: dict[str, Findings]) -> None:
    """Keep what was found, so that the page can be made of it."""
    FOUND.parent.mkdir(exist_ok=True)
    kept = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    kept.update({name: asdict(findings) for name, findings in found.items()})
    FOUND.write_text(json.dumps(kept, indent=2) + "\n")


def page(rows: Iterable[str]) -> str:
    """Return the page of the documentation, its table made of `rows`."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(f"{RULE}\n")
    after = rest[rest.index("\n\n") :]
    return f"{head}{RULE}\n" + "\n".join(rows) + after


def main() -> None:
    found = {name: Findings(**kept) for name, kept in json.loads(FOUND.read_text()).items()}
    PAGE.write_text(page(found[name].line(name) for name in ROWS), encoding="utf-8")


if __name__ == "__main__":
    main()
