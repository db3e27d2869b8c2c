"""One server with the app of the matrix, what it depends on, and the means to do them harm."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import redis

from tests.abuse.systems.app import LIMIT, NAME
from tests.abuse.systems.faults import Took
from tests.faults.proxy import LoopThread, Mode, Proxy
from tests.servers.boot import KINDS, ROOT, Server
from tests.services.servers import PASSWORD, Redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.abuse.systems.faults import Fault

PATIENCE = 45.0
"""Seconds until a thing counts as not happening; far more than a slow machine needs."""

CELLS = ("critical-request", "critical-background", "minor-request", "minor-background")

_PAUSE = 0.05
_THREADS = 16
"""Those of a server for WSGI."""
_numbers = itertools.count(os.getpid() % 20000 * 4)


class Client:
    """A connection that is kept: a process without files can take no new one."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._http.connect()

    def get(self, path: str) -> tuple[int, dict[str, str], str]:
        self._http.request("GET", path)
        response = self._http.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read().decode()

    def verdict(self, cell: str) -> Verdict:
        return Verdict(*self.get(f"/{cell}/?format=json"))

    def close(self) -> None:
        self._http.close()


class Verdict:
    """What one `Health` says."""

    def __init__(self, code: int, headers: dict[str, str], body: str) -> None:
        self.code = code
        self.status = headers.get("health-status", f"none at all: {code} {body}")
        self.checks: dict[str, Any] = json.loads(body).get("checks", {}) if body[:1] == "{" else {}
        self.body = body

    @property
    def amiss(self) -> dict[str, str]:
        """The reasons of the checks that are not well."""
        ours = {
            name.removesuffix(":responseTime"): entries[0]["healthmw"]
            for name, entries in self.checks.items()
            if name.endswith(":responseTime")
        }
        return {name: one["reason"] for name, one in ours.items() if one["status"] != "okay"}

    def __repr__(self) -> str:
        return f"{self.code} {self.status} {self.amiss}"


class Stopwatch:
    """Measures how long the app's own route takes, and that of the bare app, in turn."""

    def __init__(self, *ports: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.systems.stopwatch", *map(str, ports)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measure(1)

    def measure(self, rounds: int, first: str = "") -> Took:
        """Measure so many answers, or fewer where they take long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{rounds} {first}\n")
        self._process.stdin.flush()
        ours, bare = json.loads(self._process.stdout.readline())
        return Took(
            ours=round(statistics.median(ours)),
            bare=round(statistics.median(bare)),
            in_all=sum(ours) / sum(bare),
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)


class Hole:
    """A network namespace with a listener, to which packets can be made to vanish."""

    def __init__(self) -> None:
        number = next(_numbers)
        self._name = f"hmw{number}"
        self._here, self._there = f"hh{number}", f"ht{number}"
        self._net = f"10.{200 + number // 16384 % 50}.{number // 64 % 256}.{number % 64 * 4}"
        base, _, last = self._net.rpartition(".")
        mine, self.host = f"{base}.{int(last) + 1}", f"{base}.{int(last) + 2}"
        self.port = 7
        self._process: subprocess.Popen[bytes] | None = None
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there)
            _ip("link", "set", self._there, "netns", self._name)
            _ip("addr", "add", f"{mine}/30", "dev", self._here)
            _ip("link", "set", self._here, "up")
            inside = ("netns", "exec", self._name, "ip")
            _ip(*inside, "addr", "add", f"{self.host}/30", "dev", self._there)
            _ip(*inside, "link", "set", self._there, "up")
            listen = (
                "import socket\n"
                f"with socket.create_server(({self.host!r}, {self.port})) as s:\n"
                "    print('up', flush=True)\n"
                "    while True:\n"
                "        s.accept()[0].close()\n"
            )
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._name, sys.executable, "-c", listen],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()
        except BaseException:
            self.close()
            raise

    def swallow(self) -> None:
        """Send its packets to an Ethernet address that nobody has."""
        _ip(
            "neigh", "replace", self.host, "lladdr", "02:00:00:00:00:99", "dev", self._here,
            "nud", "permanent",
        )  # fmt: skip

    def mend(self) -> None:
        _ip("neigh", "del", self.host, "dev", self._here)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            assert self._process.stdout is not None
            self._process.stdout.close()
        for command in (("link", "del", self._here), ("netns", "del", self._name)):
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                _ip(*command)


def _ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True, stdin=subprocess.DEVNULL)


class Disk:
    """A file system of one megabyte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        subprocess.run(["mount", *options], check=True, capture_output=True)

    def fill(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 1024)

    def mend(self) -> None:
        (self.folder / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)


class Stage:
    """All of it. Use as a context manager: in the block the app answers, and all is well."""

    def __init__(self, interface: str, folder: Path) -> None:
        self.interface = interface
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._holders: list[tuple[threading.Thread, Client]] = []
        self.without: dict[str, str] = {}
        """The checks that there can't be on this machine, and why."""

    def __enter__(self) -> Self:
        with self._stack:
            self._set_up()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set_up(self) -> None:
        keep = self._stack.callback
        self.redis = Redis()
        keep(self.redis.close)
        self.redis.start()
        loop = LoopThread()
        keep(loop.close)
        self.proxy = Proxy(loop, self.redis.port)
        keep(self.proxy.close)
        self.named = Proxy(loop, self.redis.port)
        keep(self.named.close)
        environ = {
            "REDIS": f"redis://:{PASSWORD}@127.0.0.1:{self.proxy.port}/0",
            "NAMED": f"{NAME}:{self.named.port}",
        }
        self.hole = self._try("hole", Hole)
        if self.hole is not None:
            environ["HOLE"] = f"{self.hole.host}:{self.hole.port}"
        self.disk = self._try("folder", lambda: Disk(self._folder / "disk"))
        if self.disk is not None:
            environ["FOLDER"] = str(self.disk.folder)
        self.server = self._serve(self.interface, self._folder, environ)
        bare_folder = self._folder / "bare"
        bare_folder.mkdir()
        self.bare = self._serve(f"bare_{self.interface}", bare_folder, {})
        port = self.server.port
        self.clients = {cell: Client(port) for cell in (*CELLS, "app", "hurt")}
        self._hurting = [self.clients["hurt"], Client(self.bare.port)]
        for client in {*self.clients.values(), *self._hurting}:
            keep(client.close)
        self._stopwatch = Stopwatch(port, self.bare.port)
        keep(self._stopwatch.close)

    def _serve(self, app: str, folder: Path, environ: dict[str, str]) -> Server:
        kind = KINDS["uvicorn asyncio" if self.interface == "asgi" else "gunicorn gthread"]
        target = f"tests.abuse.systems.app:{app}"
        extra: tuple[str, ...] = ("--factory", "--timeout-keep-alive", "600", "--no-access-log")
        if self.interface == "wsgi":
            extra = ("--keep-alive", "600", "--timeout", "300", "--threads", str(_THREADS))
            target += "()"
        return self._stack.enter_context(Server(kind.command(target, 1, *extra), folder, **environ))

    def _try(self, check: str, make: Callable[[], Any]) -> Any:
        """Make what only root can, and not in every container."""
        try:
            made = make()
        except (OSError, subprocess.CalledProcessError) as exc:
            said = getattr(exc, "stderr", b"") or b""
            self.without[check] = f"{exc} {said.decode(errors='replace')}"
            return None
        self._stack.callback(made.close)
        return made

    # Looking

    def held(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.clients["app"].get("/held")[2])
        return found | {"connections": self.proxy.open}

    def timed(
        self, rounds: int, poll: Callable[[str, threading.Event], None], first: str = ""
    ) -> Took:
        """Measure the app's own route while `poll(cell, over)` goes on for each cell.

        Each round another route may be asked `first`, and its answer not be waited for.
        """
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            measured = pool.submit(self._stopwatch.measure, rounds, first)
            measured.add_done_callback(lambda _: over.set())
            self.all_cells(lambda cell: poll(cell, over))
            return measured.result()

    def settled(self) -> dict[str, int]:
        """Return what is held at most, in a while in which nothing happens but polls."""
        seen = [self._after_a_round() for _ in range(6)]
        return {name: max(held[name] for held in seen) for name in seen[0]}

    def _after_a_round(self) -> dict[str, int]:
        for cell in CELLS:
            self.clients[cell].verdict(cell)
        time.sleep(_PAUSE)
        return self.held()

    def all_cells(self, work: Callable[[str], None]) -> None:
        """Do this for all cells at once, each over its own connection."""
        failures: list[BaseException] = []

        def run(cell: str) -> None:
            try:
                work(cell)
            except BaseException as exc:  # noqa: BLE001 - raised again by who waits
                exc.add_note(f"in the cell {cell}, {self.interface}")
                failures.append(exc)

        threads = [threading.Thread(target=run, args=(cell,), daemon=True) for cell in CELLS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5 * PATIENCE)
            assert not thread.is_alive(), "it hangs"
        if failures:
            raise failures[0]

    # Harm

    @contextlib.contextmanager
    def inflicted(self, fault: Fault) -> Iterator[None]:
        begin, end = self._means(fault)
        try:
            begin()
            yield
        finally:
            end()

    def _means(self, fault: Fault) -> tuple[Callable[[], object], Callable[[], object]]:
        if fault.hurts:
            return (lambda: self._hurt(fault)), self._heal
        if fault.name == "black hole":
            return self.hole.swallow, self.hole.mend
        if fault.name == "disk full":
            return self.disk.fill, self.disk.mend
        return {
            "stopped": (self.proxy.refuse, self.proxy.listen),
            "paused": (self.redis.pause, self.redis.resume),
            "slow": (self._drip, self._forward),
            "garbage": (lambda: self._answers(Mode.GARBAGE), self._forward),
            "reset": (self._cut, self._forward),
            "connection limit": (self._limit, lambda: self._admit(1000)),
        }[fault.name]

    def _hurt(self, fault: Fault) -> None:
        for client in self._hurting:
            # Checks that were under way give back the files that they had, one by one.
            calm, give_up = 0, time.monotonic() + PATIENCE
            while calm < (10 if fault.hurts == "files" else 1):
                status, _, harm = client.get(f"/hurt?{fault.hurts}")
                assert status == 200, harm
                calm = calm + 1 if harm == "0" else 0
                assert time.monotonic() < give_up
                time.sleep(_PAUSE)
        if fault.hurts == "threads" and self.interface == "wsgi":
            for server in (self.server, self.bare):
                self._hold_threads(server)

    def _hold_threads(self, server: Server) -> None:
        """Leave one of the server's threads for all that is asked."""
        for _ in range(_THREADS - 1):
            client = Client(server.port)
            holder = threading.Thread(target=client.get, args=("/hurt?wait",), daemon=True)
            holder.start()
            self._holders.append((holder, client))

    def _heal(self) -> None:
        for client in self._hurting:
            status, _, body = client.get("/heal")
            assert status == 200, body
        while self._holders:
            holder, client = self._holders.pop()
            holder.join(PATIENCE)
            client.close()

    def _answers(self, mode: Mode) -> None:
        self.proxy.mode = mode

    def _forward(self) -> None:
        self.proxy.mode = Mode.FORWARD

    def _drip(self) -> None:
        self.proxy.interval = 0.9 * LIMIT
        self._answers(Mode.DRIP)

    def _cut(self) -> None:
        self.proxy.cut_after = 3
        self._answers(Mode.CUT)

    def _limit(self) -> None:
        self._admit(1)
        self.proxy.drop()

    def _admit(self, number: int) -> None:
        give_up = time.monotonic() + PATIENCE
        if number == 1:
            self._operator = redis.Redis(
                port=self.redis.port, password=PASSWORD, single_connection_client=True
            )
        self._operator.config_set("maxclients", number)
        if number > 1:
            self._operator.close()
        assert time.monotonic() < give_up
