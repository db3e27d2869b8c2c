"""The endpoint under real servers: verdicts, load, hung checks and the end of a process."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.boot import KINDS, Kind, Server, app_of, eventually, scenario
from tests.servers.checks import DEADLINE, MAX_AGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.transports import Answer

OKAY = (200, "okay", b"OKAY")
GRACE = 15.0  # seconds; the servers are told to allow 20
DEAD = (503, "failed", b"FAILED: database (failed)")


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def workers(kind: Kind) -> int:
    """Return how many processes are to serve."""
    return 4 if "preload" in kind.options else 2


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


@pytest.fixture
def dependency(tmp_path: Path) -> Iterator[Dependency]:
    dependency = Dependency(tmp_path / "dependency")
    dependency.start()
    yield dependency
    dependency.stop()


class Journal:
    """What the probes wrote: when each of them began, by process."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "journal"

    def runs(self, probe: str) -> dict[int, list[float]]:
        runs: dict[int, list[float]] = {}
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            name, pid, when = line.split()
            if name == probe:
                runs.setdefault(int(pid), []).append(float(when))
        return runs

    def count(self, probe: str) -> int:
        return sum(map(len, self.runs(probe).values()))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def ask(server: Server, times: int, at_once: int, path: str = "/health_check") -> list[Answer]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda _: server.get(path), range(times)))


def seen(answers: list[Answer]) -> set[tuple[int, str, bytes]]:
    return {(answer.status, answer["health-status"], answer.body) for answer in answers}


def test_every_worker_tells_the_truth_and_runs_its_background_checks(
    kind: Kind, workers: int, tmp_path: Path, dependency: Dependency, journal: Journal
) -> None:
    environ = scenario("well", tmp_path)
    with Server(kind.command(app_of(kind), workers), tmp_path, **environ) as server:

        def is_everywhere() -> bool:
            """Tell whether all workers run their background check; asking wakes WSGI's."""
            ask(server, 2 * workers, workers)
            runs = journal.runs("background")
            return len(runs) == workers and all(len(of_one) > 1 for of_one in runs.values())

        eventually(is_everywhere, server.tail)
        assert set(journal.runs("background")) == server.workers
        assert seen(ask(server, 40, 8)) == {OKAY}
        answer = server.get(method="HEAD")
        assert (answer.status, answer["content-length"], answer.body) == (200, "4", b"")
        assert answer["health-release"] == "v42"
        assert server.get("/health_check/nothing").status == 404
        assert server.get(method="POST").status == 405

        dependency.stop()
        eventually(lambda: seen(ask(server, 40, 8)) == {DEAD}, server.tail)
        assert seen(ask(server, 8, 8, "/health_check/live")) == {OKAY}
        assert server.get("/hello").status == 200, "the app goes on serving"

        dependency.start()
        eventually(lambda: seen(ask(server, 40, 8)) == {OKAY}, server.tail)


def test_a_rush_of_requests_runs_a_slow_check_once_for_as_long_as_its_result_holds(
    kind: Kind, workers: int, tmp_path: Path, journal: Journal
) -> None:
    environ = scenario("slow", tmp_path)
    with Server(kind.command(app_of(kind), workers), tmp_path, **environ) as server:
        assert seen(ask(server, 500, 50)) == {OKAY}
        eventually(  # long enough to see a second run: results do get old
            lambda: (
                seen(ask(server, 10, 10)) == {OKAY}
                and any(len(of_one) > 1 for of_one in journal.runs("slow_sync").values())
            ),
            server.tail,
        )

    for probe in ("slow_sync", "slow_async"):
        for times in journal.runs(probe).values():
            gaps = [later - before for before, later in itertools.pairwise(times)]
            assert all(gap >= MAX_AGE for gap in gaps), f"{probe} ran too often: {gaps}"


def app_state(server: Server) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(server.get("/hello").body)
    # Those of the server's own pool come and go with its requests.
    state["threads"] = [name for name in state["threads"] if "ThreadPool" not in name]
    return state


def pace(server: Server) -> float:
    """Return how long another route of the app takes, in seconds (median)."""
    times = []
    for _ in range(30):
        began = time.perf_counter()
        assert server.get("/hello").status == 200
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def test_checks_that_hang_for_ever_take_one_thread_and_one_task_and_nobodys_time(
    kind: Kind, tmp_path: Path, journal: Journal
) -> None:
    polls = 200
    with Server(kind.command(app_of(kind)), tmp_path, **scenario("hung", tmp_path)) as server:
        assert server.get("/health_check/well").body == b"OKAY"
        quiet, before = pace(server), app_state(server)

        def poll(number: int) -> tuple[float, Answer]:
            path = "" if number % 4 else "/well"
            began = time.monotonic()
            answer = server.get(f"/health_check{path}")
            return time.monotonic() - began, answer

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(poll, range(polls)))
            after, busy = app_state(server), pace(server)

    assert journal.count("hung_sync") == 1, "no second thread is sent after the first"
    assert journal.count("hung_async") == 1, "no second task is sent after the first"
    # One that hangs; and for the hung task of a WSGI app, the event loop it hangs on.
    more = 1 if kind.interface == "asgi" else 2
    assert len(after["threads"]) <= len(before["threads"]) + more, after
    assert len(after["tasks"]) <= len(before["tasks"]) + 1, after
    assert max(took for took, _ in answers) < DEADLINE + 5, "every answer leaves on time"
    for number, (_, answer) in enumerate(answers):
        if number % 4:
            assert answer.status == 503
            assert b"sync (" in answer.body
            assert b"async (" in answer.body
            assert b"well" not in answer.body
        else:
            assert answer.body == b"OKAY", "a check beside them is still right"
    assert busy < 10 * quiet + 0.05, "another route of the app is not slowed"


def test_each_worker_ends_on_term_while_its_probes_are_stuck(
    kind: Kind, workers: int, tmp_path: Path, journal: Journal
) -> None:
    environ = scenario("ending", tmp_path)
    with Server(kind.command(app_of(kind), workers), tmp_path, **environ) as server:

        def are_stuck() -> bool:
            """Tell whether two probes of each kind hang in all workers."""
            ask(server, 2 * workers, 2 * workers)
            return all(
                len(runs) == workers and all(len(of_one) == 2 for of_one in runs.values())
                for runs in (journal.runs("hung_sync"), journal.runs("hung_async"))
            )

        eventually(are_stuck, server.tail)
        assert server.end(signal.SIGTERM) < GRACE, server.tail()
        assert server.exit_status in {0, -signal.SIGTERM}, server.tail()
        assert "SIGKILL" not in server.tail()


@pytest.mark.parametrize("lifespan", ["on", "off"])
@pytest.mark.parametrize("name", ["uvicorn asyncio", "uvicorn uvloop"])
def test_a_server_ends_when_it_is_interrupted_while_its_probes_are_stuck(
    name: str, lifespan: str, tmp_path: Path
) -> None:
    command = KINDS[name].command(app_of(KINDS[name]), 1, "--lifespan", lifespan)
    with Server(command, tmp_path, **scenario("ending", tmp_path)) as server:
        assert server.get().status == 503
        # TERM ends uvicorn by TERM; INT lets it run to its end, and there asyncio waits for tasks.
        assert server.end(signal.SIGINT) < GRACE, server.tail()
        assert server.exit_status in {0, -signal.SIGINT}, server.tail()


def test_what_ran_before_the_fork_is_not_mistaken_for_the_childs_own(
    tmp_path: Path, dependency: Dependency, journal: Journal
) -> None:
    kind, workers = KINDS["gunicorn preload"], 4
    environ = {**scenario("well", tmp_path), "RUN_AT_IMPORT": "1"}
    with Server(kind.command(app_of(kind), workers), tmp_path, **environ) as server:

        def is_everywhere() -> bool:
            ask(server, 2 * workers, workers)
            return journal.runs("background").keys() > server.workers  # and the parent's

        eventually(is_everywhere, server.tail)
        eventually(lambda: seen(ask(server, 40, 8)) == {OKAY}, server.tail)


def test_uvicorns_root_path_is_respected(tmp_path: Path, dependency: Dependency) -> None:
    kind = KINDS["uvicorn asyncio"]
    command = kind.command(app_of(kind), 1, "--root-path", "/api/v1")
    with Server(command, tmp_path, **scenario("well", tmp_path)) as server:
        # uvicorn takes the prefix to be cut off by the proxy before it, and puts it back.
        eventually(lambda: server.get("/health_check").body == b"OKAY", server.tail)
        assert server.get("/health_check/database").body == b"OKAY"
        assert server.get("/health_check/nothing").status == 404
        assert server.get("/other").status == 404


def test_gunicorns_script_name_is_respected(tmp_path: Path, dependency: Dependency) -> None:
    kind = KINDS["gunicorn sync"]
    environ = {**scenario("well", tmp_path), "SCRIPT_NAME": "/api"}
    with Server(kind.command(app_of(kind)), tmp_path, up="/api/hello", **environ) as server:
        eventually(lambda: server.get("/api/health_check").body == b"OKAY", server.tail)
        assert server.get("/api/health_check/database").body == b"OKAY"
