"""`healthmw watch`: a line for each change, and none for what stays as it is."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.servers import OKAY, answer, answering

if TYPE_CHECKING:
    from tests.cli.servers import Bench

BAD = answer(b"FAILED: database (timeout)", "503 Unavailable")
WORSE = answer(b"FAILED: database (stuck)", "503 Unavailable")
QUICK = ["watch", "--interval=0.01"]


def test_each_change_is_one_line(bench: Bench) -> None:
    replies = iter([OKAY, OKAY, BAD, BAD, WORSE, OKAY])
    with answering(lambda request: next(replies)) as place:
        run = bench.run(*QUICK, "--count=6", f"http://{place}")
    assert run.code == 0
    first, down, worse, up = run.out.splitlines()
    name = re.escape(f"http://{place}/health_check")
    clock = r"\d\d:\d\d:\d\d  "
    lasted = r"[\d.]+ s\)"
    assert re.fullmatch(f"{clock}OKAY      {name}: 200 OKAY", first)
    assert re.fullmatch(rf"{clock}FAILED    {name}: 503 .*timeout\) \(was OKAY, for {lasted}", down)
    assert re.fullmatch(rf"{clock}FAILED    {name}: 503 .*stuck\) \(still, for {lasted}", worse)
    assert re.fullmatch(rf"{clock}OKAY      {name}: 200 OKAY \(was FAILED, for {lasted}", up)
    assert run.err == ""


def test_the_last_look_is_the_exit_status(bench: Bench) -> None:
    replies = iter([OKAY, BAD])
    with answering(lambda request: next(replies)) as place:
        assert bench.run(*QUICK, "--count=2", f"http://{place}").code == 1
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert bench.run(*QUICK, "--count=1", f"http://127.0.0.1:{port}").code == 2


def test_json_is_a_line_for_each_change(bench: Bench) -> None:
    replies = iter([OKAY, BAD])
    with answering(lambda request: next(replies)) as place:
        run = bench.run(*QUICK, "--count=2", "--json", f"http://{place}")
    first, second = map(json.loads, run.out.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first.pop("time"))
    assert first == {
        "target": f"http://{place}/health_check",
        "verdict": "okay",
        "reason": "200 OKAY",
        "release": None,
        "breaker": None,
        "before": None,
        "seconds_before": None,
    }
    assert (second["verdict"], second["before"]) == ("failed", "okay")
    assert 0 < second["seconds_before"] < 30


def test_the_checks_of_a_health_are_told_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "watched", raising=False)
    (bench.folder / "watched.py").write_text(
        "from healthmw import Health\n"
        "health, runs = Health(), []\n"
        "health.add('disk', lambda: None)\n"
        "@health.probe('database')\n"
        "def database():\n"
        "    runs.append(1)\n"
        "    if len(runs) > 2:\n"
        "        raise OSError(f'away, {len(runs)}')\n"
    )
    run = bench.run(*QUICK, "--count=5", "watched:health")
    monkeypatch.delitem(sys.modules, "watched")
    assert run.code == 1
    told = [re.sub(r"^\S+ +| \(was OKAY, .*", "", line) for line in run.out.splitlines()]
    assert told == [
        "OKAY      watched:health",
        "OKAY      watched:health disk: okay",
        "OKAY      watched:health database: okay",
        "FAILED    watched:health",
        "FAILED    watched:health database: OSError: away, 3",
    ]


def test_targets_that_are_shown_alike_are_told_apart(bench: Bench) -> None:
    def reply(request: bytes) -> bytes:
        return BAD if b"?shop=2" in request else OKAY

    with answering(reply) as place:
        urls = [f"http://{place}/up?shop={number}" for number in (2, 1)]
        run = bench.run(*QUICK, "--count=2", *urls)
    assert run.code == 1
    told = [line.partition("  ")[2] for line in run.out.splitlines()]
    assert told == [
        f"FAILED    http://{place}/up: 503 FAILED: database (timeout)",
        f"OKAY      http://{place}/up (2): 200 OKAY",
    ]


def test_a_signal_ends_it(bench: Bench) -> None:
    with answering(OKAY) as place, bench.start("watch", f"http://{place}") as watch:
        assert watch.stdout is not None
        assert "200 OKAY" in watch.stdout.readline()
        watch.send_signal(signal.SIGTERM)
        _, err = watch.communicate(timeout=60)
    assert watch.returncode == 143
    assert err == ""


def test_a_system_that_knows_few_signals(bench: Bench) -> None:
    # As Windows, where nothing of this was ever tried.
    code = (
        "import select, signal, sys; del signal.SIGHUP, signal.SIGQUIT, select.poll;"
        " from healthmw.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    with answering(OKAY) as place:
        for words in (["watch", "--count=1", f"http://{place}"], ["completion", "fish"]):
            run = subprocess.run(
                [sys.executable, "-c", code, *words],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("changes", [False, True])
def test_it_ends_when_nobody_reads_any_more(bench: Bench, *, changes: bool) -> None:
    replies = itertools.cycle([OKAY, BAD] if changes else [OKAY])
    with (
        answering(lambda request: next(replies)) as place,
        bench.start(*QUICK, f"http://{place}") as watch,
    ):
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert "200 OKAY" in watch.stdout.readline()
        watch.stdout.close()  # as `| head -1` does
        try:
            watch.wait(timeout=60)
        finally:
            watch.kill()
        assert watch.stderr.read() == ""
    assert watch.returncode == 141  # as a shell has it for SIGPIPE
