"""Targets without a server: `module:attribute`, and dependencies by their URL."""

from __future__ import annotations

import json
import re
import socket
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.plugins import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.servers import Bench

_BEGIN = """\
from pathlib import Path
from healthmw import CircuitBreaker, Degraded, Health
here = Path(__file__).parent
health = Health(release="v42")
"""

BAD = """
@health.probe("disk")
def disk():
    pass

@health.probe("database")
async def database():
    raise RuntimeError("postgresql://ann:swordfish@db/app is away")
"""

GOOD = """
@health.probe("disk")
def disk():
    return {"free_bytes": 7}
"""

ODD = """
@health.probe("cache", critical=False)
def cache():
    raise OSError("cold")
"""


@pytest.fixture
def app(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module of a name of its own, and return that name."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    names: list[str] = []

    def write(source: str) -> str:
        names.append(f"shop{len(names)}_{bench.folder.name}")
        (bench.folder / f"{names[-1]}.py").write_text(_BEGIN + textwrap.dedent(source))
        return names[-1]

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_well(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(GOOD)
    run = bench.run("check", f"{name}:health")
    assert run.code == 0
    assert run.out.startswith(f"OKAY  {name}:health: OKAY, in ")
    assert run.out.endswith("(release v42)\n")
    assert run.err == ""


def test_not_well_says_what_the_probe_said_without_secrets(
    bench: Bench, app: Callable[[str], str]
) -> None:
    name = app(BAD)
    run = bench.run("check", f"{name}:health")
    assert run.code == 1
    said = "database (failed): RuntimeError: postgresql://ann:***@db/app is away, in "
    assert run.out.startswith(f"FAILED  {name}:health: {said}")
    assert run.out.count("\n") == 1
    assert run.err == ""  # and not a second time in the log


def test_verbose_has_a_line_for_each_check(bench: Bench, app: Callable[[str], str]) -> None:
    run = bench.run("check", "--verbose", f"{app(BAD)}:health")
    _, disk, database = run.out.splitlines()
    assert disk.startswith("  [+] disk okay (")
    assert database.startswith("  [-] database failed (")
    assert database.endswith("): RuntimeError: postgresql://ann:***@db/app is away")


def test_json(bench: Bench, app: Callable[[str], str]) -> None:
    run = bench.run("check", "--json", f"{app(GOOD + ODD)}:health")
    (found,) = run.json["targets"]
    assert (found["verdict"], found["answer"]) == ("degraded", None)
    report = found["report"]
    assert (report["group"], report["status"], report["release"]) == ("ready", "degraded", "v42")
    assert report["checks"]["disk"]["measurements"] == {"free_bytes": 7}
    cache = report["checks"]["cache"]
    assert 0 <= cache.pop("seconds") < 30
    assert cache == {
        "status": "failed",
        "reason": "failed",
        "critical": False,
        "detail": "OSError: cold",
        "measurements": {},
        "breaker": None,
    }


def test_json_has_no_number_that_json_has_not(bench: Bench, app: Callable[[str], str]) -> None:
    name = app("health.add('it', lambda: {'lag': float('inf'), 'share': float('nan'), 'n': 2})")
    run = bench.run("check", "--json", f"{name}:health")
    found = json.loads(run.out, parse_constant=pytest.fail)
    measured = found["targets"][0]["report"]["checks"]["it"]["measurements"]
    assert measured == {"lag": "inf", "share": "nan", "n": 2}


def test_degraded_is_well_unless_strict(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(GOOD + ODD)
    run = bench.run("check", f"{name}:health")
    assert run.code == 0
    assert run.out.startswith("DEGRADED  ")
    assert "OKAY, degraded by cache (failed): OSError: cold, in" in run.out
    run = bench.run("check", "--strict", f"{name}:health")
    assert run.code == 1
    assert run.out.startswith("FAILED  ")
    assert "health: degraded by cache (failed): OSError: cold, in" in run.out


def test_a_group_or_a_check(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(BAD)
    assert bench.run("check", "--group=live", f"{name}:health").code == 0
    assert bench.run("check", "--group=disk", f"{name}:health").code == 0
    assert bench.run("check", "--group=release", f"{name}:health").code == 1
    run = bench.run("check", "--group=relase", f"{name}:health")
    assert run.code == 2
    assert "no group or check 'relase', only ready, live, startup, release, disk" in run.err


def test_no_check_is_not_well(bench: Bench, app: Callable[[str], str]) -> None:
    run = bench.run("check", f"{app('')}:health")
    assert run.code == 1
    assert "no check is registered" in run.out


def test_an_attribute_of_an_attribute(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(GOOD + "\nclass settings:\n    mine = health\n")
    assert bench.run("check", f"{name}:settings.mine").code == 0


def test_what_the_app_prints_does_not_disturb_the_verdict(
    bench: Bench, app: Callable[[str], str]
) -> None:
    run = bench.run("check", "--json", f"{app('print(chr(104) + chr(105))' + GOOD)}:health")
    assert run.json["exit_status"] == 0
    assert run.err == "hi\n"


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [
        (GOOD, "helth", "has no 'helth'; did you mean {name}:health?"),
        (GOOD, "here", "is no Health but of the type 'PosixPath'; did you mean {name}:health?"),
        ("del health", "health", "{name} has no Health; name the module that makes it"),
        ("import nowhere_at_all", "health", "importing '{name}' failed: ModuleNotFoundError: No"),
        ("raise OSError('redis://a:swordfish@b')", "health", "OSError: redis://a:***@b; `python"),
        ("raise SystemExit('set DEBUG')", "health", "importing '{name}' failed: SystemExit: set"),
        ("raise BaseException('a panic')", "health", "importing '{name}' failed: BaseException: a"),
        ("health.group('mine', checks=['x'])", "health", "group 'mine' names 'x', which is no"),
    ],
)
def test_what_names_no_health(
    bench: Bench, app: Callable[[str], str], source: str, attribute: str, said: str
) -> None:
    name = app(source)
    run = bench.run("check", f"{name}:{attribute}")
    assert run.code == 2
    assert said.format(name=name) in run.err
    assert "swordfish" not in run.err
    assert run.out == ""


def test_an_import_can_be_interrupted(bench: Bench, app: Callable[[str], str]) -> None:
    run = bench.run("check", f"{app('raise KeyboardInterrupt')}:health")
    assert run.code == 130
    assert run.out + run.err == ""


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.web"])
def test_a_module_that_is_not_there(bench: Bench, app: Callable[[str], str], name: str) -> None:
    run = bench.run("check", f"{name}:health")
    assert run.code == 2
    assert "there is no module 'no_such_" in run.err
    assert str(bench.folder) in run.err
    assert "run this in the folder where the server is started" in run.err


def test_a_folder_that_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bench.folder / "release-1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    run = bench.run("check", "shop:health")
    assert run.code == 2
    assert "shop:health: the current directory is gone" in run.err


def test_no_look_is_longer_than_its_limit_and_tells_who_was_late(
    bench: Bench, app: Callable[[str], str]
) -> None:
    name = app(
        GOOD
        + textwrap.dedent("""
        import anyio
        @health.probe("slow", timeout=60)
        async def slow():
            await anyio.sleep(60)
        health.deadline = 60
        """)
    )
    run = bench.run("check", "--timeout=1", "--verbose", f"{name}:health")
    assert run.code == 1
    assert run.seconds < 30
    verdict, disk, slow = run.out.splitlines()
    assert "health: slow (timeout): not back within the group's deadline of 0.95 s, in" in verdict
    assert disk.startswith("  [+] disk okay")
    assert slow.startswith("  [-] slow failed (timeout)")
    assert sys.modules[name].health.deadline == 60


def test_a_blocked_event_loop_is_left_behind_and_not_begun_again(
    bench: Bench, app: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmw.cli._in_process._CLOSING", 3600)  # nothing is being closed
    name = app(
        """
        import threading
        free = threading.Event()
        runs = []
        @health.probe("blocks")
        async def blocks():
            runs.append(1)
            free.wait(60)
        """
    )
    options = ["--timeout=3", "--request-timeout=0.2", "--interval=0.1"]
    run = bench.run("wait", *options, f"{name}:health")
    module = sys.modules[name]
    module.free.set()
    assert run.code == 1
    assert run.seconds < 30
    assert "something blocks the event loop for over 0.2 s" in run.err
    assert "the last look has not come back" in run.out
    assert module.runs == [1]


def test_what_does_not_close_does_not_hold_up_the_verdict(
    bench: Bench, app: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healthmw.cli._in_process._CLOSING", 0.2)  # what a test can wait for
    name = app(
        """
        import threading
        free = threading.Event()
        class Probe:
            async def __call__(self):
                pass
            async def aclose(self):
                free.wait(60)
        health.add("database", Probe())
        """
    )
    run = bench.run("check", f"{name}:health")
    sys.modules[name].free.set()
    assert run.code == 0
    assert run.seconds < 30
    assert run.out.startswith(f"OKAY  {name}:health: OKAY, in ")


def test_a_health_that_fails_itself_is_told(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(
        """
        class Broken(Health):
            async def run(self, *args, **options):
                raise RuntimeError("redis://ann:swordfish@cache")
        health = Broken()
        """
    )
    run = bench.run("check", f"{name}:health")
    assert run.code == 1
    assert "it can't be run: RuntimeError: redis://ann:***@cache, in " in run.out


def test_wait_until_a_dependency_is_up_whatever_its_breaker_says(
    bench: Bench, app: Callable[[str], str]
) -> None:
    name = app(
        """
        runs = []
        closed = []
        breaker = CircuitBreaker(consecutive_failures=1, open_for=3600)
        class Probe:
            async def __call__(self):
                runs.append(1)
                if len(runs) < 4:
                    raise RuntimeError("away")
            async def aclose(self):
                closed.append(1)
        health.add("database", Probe(), breaker=breaker)
        """
    )
    run = bench.run("wait", "--timeout=45", "--interval=0.05", f"{name}:health")
    assert run.code == 0
    assert "database (failed): RuntimeError: away" in run.err
    assert f"{name}:health is well after" in run.out
    assert len(sys.modules[name].runs) == len(sys.modules[name].closed) == 4


def test_what_waits_own_end_cuts_short_does_not_hide_what_was_seen(
    bench: Bench, app: Callable[[str], str]
) -> None:
    name = app(
        """
        import anyio
        runs = []
        @health.probe("database")
        async def database():
            runs.append(1)
            if len(runs) > 1:
                await anyio.sleep(60)
            raise RuntimeError("away")
        """
    )
    run = bench.run("wait", "--timeout=1", "--interval=0.1", f"{name}:health")
    assert run.code == 1
    assert len(sys.modules[name].runs) > 1
    assert "within 1 s: database (failed): RuntimeError: away" in run.out


def test_wait_becomes_the_command(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(GOOD)
    with bench.start("wait", f"{name}:health", "--", "sh", "-c", "echo $$; exit 7") as wait:
        out, err = wait.communicate(timeout=60)
    assert (wait.returncode, out) == (7, f"{wait.pid}\n")
    assert f"OKAY  {name}:health is well after " in err


def test_wait_for_a_release(bench: Bench, app: Callable[[str], str]) -> None:
    name = app(GOOD)
    assert bench.run("wait", "--release=v42", f"{name}:health").code == 0
    options = ["--release=v43", "--timeout=0.3", "--interval=0.1"]
    run = bench.run("wait", *options, f"{name}:health")
    assert run.code == 1
    assert "OKAY, but from release v42, not v43" in run.out


def test_a_port_and_a_database(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = bench.run("check", f"tcp://127.0.0.1:{port}", "sqlite://")
        assert run.code == 0
        assert f"OKAY  tcp://127.0.0.1:{port}: OKAY, in " in run.out
    run = bench.run("wait", "--timeout=0.3", "--interval=0.1", f"tcp://127.0.0.1:{port}")
    assert run.code == 1
    assert "can't connect: " in run.out
    run = bench.run("check", "--json", "sqlite:///nowhere.db")
    assert run.code == 1
    (found,) = run.json["targets"]
    assert found["reason"] == "the database file does not exist"
    assert "report" not in found


def test_a_dependency_that_says_nothing_is_told_in_its_probes_words(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for scheme, within in {"redis": "0.9", "postgresql": "0.93"}.items():
            run = bench.run("check", "--timeout=1", f"{scheme}://127.0.0.1:{port}/0")
            assert run.code == 1
            # psycopg's own limit is in whole seconds, so there the engine comes first.
            assert re.search(rf"/0: (no answer|not back) within {within} s, in", run.out), run.out


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://ann:swordfish@127.0.0.1:{port}/shop?application_name=x",
        "postgresql+asyncpg://ann:swordfish@127.0.0.1:{port}/shop",
        "mysql+pymysql://ann:swordfish@127.0.0.1:{port}/shop",
        "redis://ann:swordfish@127.0.0.1:{port}/0",
    ],
)
def test_a_dependency_that_is_away_and_its_password(bench: Bench, dsn: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run = bench.run("check", "--verbose", dsn.format(port=port))
    assert run.code == 1
    assert run.out.startswith(f"FAILED  {dsn.partition('://')[0]}://127.0.0.1:{port}/")
    assert "refused" in run.out.lower() or "Connect call failed" in run.out
    assert "swordfish" not in run.out + run.err
    assert "application_name" not in run.out


SILLY = """\
# A probe that gives away what it was told.
class Probe:
    def __init__(self, url, *, timeout):
        if "nowhere" in url:
            raise RuntimeError(f"can't use {url}")
        self._password = url.partition("@")[0].rpartition(":")[2]
        self._timeout = timeout

    async def __call__(self):
        raise RuntimeError(f"{self._password} was refused within {self._timeout:g} s")
"""


def test_another_packages_probe_can_not_give_the_password_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, bench.folder, "silly", SILLY)
    run = bench.run("check", "silly://ann:swordfish@host/")
    assert run.code == 1
    assert "*** was refused within 9 s" in run.out  # of 10: so that its own words are heard
    run = bench.run("check", "silly://ann:swordfish@nowhere/")
    assert run.code == 2
    assert "RuntimeError: can't use silly://ann:***@nowhere/" in run.err


def test_a_look_up_that_raises_is_told_without_secrets(
    bench: Bench, app: Callable[[str], str]
) -> None:
    name = app("""
    class Settings:
        @property
        def health(self):
            raise ValueError("postgresql://ann:swordfish@db/app is no DSN")
    settings = Settings()
    """)
    run = bench.run("check", f"{name}:settings.health")
    assert run.code == 2
    assert "looking it up failed: ValueError: postgresql://ann:***@db/app is no DSN" in run.err
