"""`healthmw wait`: until all are well, and then the command in its place."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from healthmw import Health
from tests.cli.servers import OKAY, PLENTY, answer, answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.servers import Bench

BAD = answer(b"FAILED: database (timeout)", "503 Unavailable")


def _then(*first: bytes, then: bytes = OKAY) -> itertools.chain[bytes]:
    return itertools.chain(first, itertools.repeat(then))


def test_until_it_is_well(bench: Bench) -> None:
    replies = _then(BAD, BAD)
    with answering(lambda request: next(replies)) as place:
        run = bench.run("wait", f"--timeout={PLENTY}", "--interval=0.05", f"http://{place}")
    assert run.code == 0
    assert run.out.startswith(f"OKAY  http://{place}/health_check is well after ")
    assert "503 FAILED: database (timeout)" in run.err


def test_until_time_is_up(bench: Bench) -> None:
    with answering(BAD) as place:
        run = bench.run("wait", "--timeout=0.5", "--interval=0.1", f"http://{place}")
    assert run.code == 1
    said = f"FAILED  http://{place}/health_check was not well within 0.5 s: 503 FAILED: database"
    assert run.out.startswith(said)


def test_an_answer_that_never_comes(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        run = bench.run("wait", "--timeout=0.5", f"http://{place}")
    assert run.code == 1
    assert "no whole answer within 0.5 s" in run.out


def test_nobody_there_when_time_is_up(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    run = bench.run("wait", "--timeout=0.5", "--interval=0.1", f"http://{place}")
    assert run.code == 2
    assert run.out.startswith(f"UNKNOWN  http://{place}/health_check was not well within 0.5 s")


def test_passes_are_in_a_row(bench: Bench) -> None:
    replies = iter([OKAY, OKAY, BAD, OKAY, OKAY, OKAY])
    with answering(lambda request: next(replies)) as place:
        run = bench.run("wait", "--passes=3", "--interval=0.05", f"http://{place}")
    assert run.code == 0
    assert "200 OKAY, 3 times in a row" in run.out
    assert next(replies, None) is None


def test_well_but_not_often_enough(bench: Bench) -> None:
    with answering(OKAY) as place:
        options = ["--passes=1000", "--timeout=0.5", "--interval=0.2"]
        run = bench.run("wait", *options, f"http://{place}")
    assert run.code == 1
    assert "was not well 1000 times in a row within 0.5 s" in run.out


def test_all_must_be_well_in_the_same_round(bench: Bench) -> None:
    one, two = _then(OKAY, BAD), _then(BAD, OKAY)
    with answering(lambda r: next(one)) as first, answering(lambda r: next(two)) as second:
        urls = [f"http://{first}", f"http://{second}"]
        run = bench.run("wait", "--interval=0.05", "--json", *urls)
    assert run.code == 0
    assert run.json["well"] is True
    assert "1 of 2 well; " in run.err


def test_several_are_told_together(bench: Bench) -> None:
    with answering(OKAY) as first, answering(BAD) as second:
        urls = [f"http://{first}", f"http://{second}"]
        run = bench.run("wait", "--timeout=0.3", "--interval=0.1", *urls)
        assert run.code == 1
        assert first not in run.out
        assert run.out.startswith(f"FAILED  http://{second}")
        run = bench.run("wait", urls[0], urls[0])
    assert run.code == 0
    assert run.out.startswith("OKAY  all 2 targets are well after ")


def test_until_the_release_answers(bench: Bench) -> None:
    old, new = (answer(b"OKAY", "200 OK", f"Health-Release: {r}") for r in ("v41", "v42"))
    replies = _then(old, new, old, answer(), then=new)
    with answering(lambda request: next(replies)) as place:
        options = ["--release=v42", "--passes=3", "--interval=0.05"]
        run = bench.run("wait", *options, f"http://{place}")
        assert run.code == 0
        assert (
            "3 times in a row (release v42); release v41 answered 2 times, for the last" in run.out
        )
        assert "release without a name answered 1 time, for" in run.out
        assert "200 OKAY, but from release v41, not v42" in run.err

        options = ["--release=v43", "--timeout=0.3", "--interval=0.1", "--json"]
        run = bench.run("wait", *options, f"http://{place}")
    assert run.code == 1
    assert run.json["well"] is False
    assert run.json["other_releases"]["v42"] >= 1
    assert run.json["targets"][0]["verdict"] == "failed"


def test_a_release_may_have_as_long_a_name_as_a_health_lets_it_have(bench: Bench) -> None:
    release = "r" * 128
    Health(release=release)  # no longer one may be had
    with answering(answer(b"OKAY", "200 OK", f"Health-Release: {release}")) as place:
        options = [f"--release={release}", f"--timeout={PLENTY}", "--json"]
        run = bench.run("wait", *options, f"http://{place}")
    assert run.code == 0
    assert run.json["targets"][0]["answer"]["release"] == release


def test_it_becomes_the_command(bench: Bench) -> None:
    with answering(OKAY) as place:
        command = ["sh", "-c", 'echo $$ "$1"; exit 7', "sh", "a b"]
        with bench.start("wait", f"http://{place}", "--", *command) as wait:
            out, err = wait.communicate(timeout=60)
    assert wait.returncode == 7
    assert out == f"{wait.pid} a b\n"  # its output, and nothing of ours
    assert "OKAY  http://" in err
    assert "Starting  sh -c " in err


def test_a_password_in_the_command_is_not_shown(bench: Bench) -> None:
    with answering(OKAY) as place:
        words = ["echo", "redis://:s3cret@cache/0", "--password", "s3cret", "API_TOKEN=s3cret"]
        with bench.start("wait", f"http://{place}", "--", *words) as wait:
            out, err = wait.communicate(timeout=60)
    assert out == f"{' '.join(words[1:])}\n"  # the command itself has it
    assert "Starting  echo redis://***@cache/0 --password *** API_TOKEN=***" in err
    assert "s3cret" not in err


def test_the_command_has_nothing_of_what_the_target_did(bench: Bench) -> None:
    """An app may change the environment and the folder of its process, as it is imported."""
    (bench.folder / "elsewhere").mkdir()
    (bench.folder / "settled.py").write_text(
        "import os\n"
        "from healthmw import Health\n"
        "os.environ.update(NEW='1', OLD='changed', PATH='/nowhere')\n"
        "os.chdir('elsewhere')\n"
        "health = Health()\n"
        "health.add('it', lambda: None)\n"
    )
    command = ["sh", "-c", "echo $OLD-$NEW; pwd"]
    words = ["wait", f"--timeout={PLENTY}", "settled:health", "--", *command]
    with bench.start(*words, env={"OLD": "kept"}) as wait:
        out, err = wait.communicate(timeout=60)
    assert wait.returncode == 0, err
    assert out == f"kept-\n{bench.folder.resolve()}\n"


def test_the_command_is_started_where_the_folder_is_gone(bench: Bench) -> None:
    folder = bench.folder / "gone"
    folder.mkdir()
    with answering(OKAY) as place:
        words = f"rmdir {folder}; exec {sys.executable} -m healthmw wait http://{place} -- echo up"
        run = subprocess.run(
            ["sh", "-c", words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
        )
    assert run.stdout == "up\n", run.stderr


def test_the_command_is_not_left_deaf_to_sigpipe(bench: Bench) -> None:
    with answering(OKAY) as place:
        # Python ignores SIGPIPE, and exec hands that on unless somebody mends it.
        command = ["sh", "-c", "kill -s PIPE $$; echo survived"]
        with bench.start("wait", f"http://{place}", "--", *command) as wait:
            out, _ = wait.communicate(timeout=60)
    assert wait.returncode == -signal.SIGPIPE
    assert out == ""


def test_the_command_is_not_started_when_not_well(bench: Bench) -> None:
    with answering(BAD) as place:
        command = ["sh", "-c", "echo started"]
        words = ["wait", "--timeout=0.3", "--interval=0.1", f"http://{place}", "--", *command]
        with bench.start(*words) as wait:
            out, err = wait.communicate(timeout=60)
    assert wait.returncode == 1
    assert out == ""
    assert "FAILED  http://" in err


def test_a_command_that_is_not_there_is_told_before_the_wait(bench: Bench) -> None:
    run = bench.run("wait", "http://localhost:1", "--", "no-such-command-anywhere")
    assert run.code == 2
    assert "command not found: no-such-command-anywhere" in run.err
    assert run.seconds < 20


def test_a_command_that_is_not_executable_is_told_before_the_wait(bench: Bench) -> None:
    (bench.folder / "start.sh").write_text("#!/bin/sh\n")
    run = bench.run("wait", "http://localhost:1", "--", "./start.sh")
    assert run.code == 2
    assert "the command may not be executed: ./start.sh (is it a program, and" in run.err


def test_a_command_that_can_not_be_started(bench: Bench) -> None:
    file = bench.folder / "start"
    file.write_text("neither a script nor a program\n")
    file.chmod(0o755)
    with answering(OKAY) as place, bench.start("wait", f"http://{place}", "--", str(file)) as wait:
        _, err = wait.communicate(timeout=60)
    assert wait.returncode == 2
    assert "can't be started" in err


def test_a_signal_ends_the_wait_for_an_answer(bench: Bench) -> None:
    def reply(request: bytes) -> bytes:
        wait.send_signal(signal.SIGTERM)
        wait.wait(timeout=60)
        return OKAY

    with answering(reply) as place:
        options = ["--timeout=600", "--request-timeout=600"]
        with bench.start("wait", *options, f"http://{place}") as wait:
            out, _ = wait.communicate(timeout=60)
    assert wait.returncode == 143
    assert out == "INTERRUPTED  stopped by SIGTERM\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(bench: Bench, number: signal.Signals) -> None:
    with answering(BAD) as place:
        command = [sys.executable, "-c", "print('started')"]
        words = ["wait", "--timeout=600", f"http://{place}", "--", *command]
        with bench.start(*words) as wait:
            assert wait.stderr is not None
            assert "asking http://" in wait.stderr.readline()
            assert "503" in wait.stderr.readline()
            wait.send_signal(number)
            out, err = wait.communicate(timeout=60)
    assert wait.returncode == 128 + number
    assert out == ""
    assert f"INTERRUPTED  stopped by {number.name}" in err
    assert "was not well so far: 503" in err


def test_what_is_not_usable(bench: Bench) -> None:
    assert bench.run("wait").code == 2
    run = bench.run("wait", "http://localhost:1", "--")
    assert run.code == 2
    assert "there is no command after --" in run.err
    assert bench.run("wait", "gopher://localhost").code == 2
    run = bench.run("wait", "--release=", "http://localhost:1")
    assert run.code == 2
    assert "--release: no answer comes from a release '': " in run.err


def test_what_our_own_end_cuts_short_does_not_hide_what_was_seen(bench: Bench) -> None:
    asked: list[bytes] = []

    def reply(request: bytes) -> Iterator[bytes]:
        asked.append(request)
        if len(asked) > 1:
            time.sleep(3)
        yield answer(b"FAILED: database (failed)", "503 Unavailable")

    with answering(reply) as place:
        run = bench.run("wait", "--timeout=1", "--interval=0.1", f"http://{place}")
    assert run.code == 1
    assert "503 FAILED: database (failed)" in run.out
