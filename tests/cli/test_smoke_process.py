"""What `healthmw smoke` does with the processes of a server: none is left, whatever they do."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.cli.servers import PLENTY

if TYPE_CHECKING:
    from tests.cli.servers import Bench

_SYS_EXIT = {"x86_64": 60, "aarch64": 93}
"""The number of exit(2) as the kernel has it: it ends one thread."""

# After each test the fixture `bench` looks for processes that were left behind.


def test_workers_are_stopped_with_their_master(bench: Bench) -> None:
    run = bench.smoke("""
        listener = listen()
        for _ in range(3):
            if os.fork() == 0:
                serve(listener=listener)
        signal.pause()
    """)
    assert run.code == 0
    assert "killed" not in run.out


def test_a_server_that_ignores_term_is_killed_after_the_grace(bench: Bench) -> None:
    run = bench.smoke("signal.signal(signal.SIGTERM, signal.SIG_IGN); serve()", "--grace=0.5")
    assert run.code == 0
    assert re.search(r"Note: 1 process had not ended \d\.\d s after TERM: killed\.", run.out)
    assert run.seconds >= 0.5


def test_a_server_gets_its_grace_to_end_in_order(bench: Bench) -> None:
    run = bench.smoke("""
        def end(*_):
            time.sleep(0.5)
            (here / "ended").write_text("in order")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        serve()
    """)
    assert run.code == 0
    assert "Note" not in run.out
    assert bench.wait_for("ended") == "in order"


def test_a_daemonised_child_is_stopped_too(bench: Bench) -> None:
    run = bench.smoke("""
        def daemon():
            def end(*_):
                (here / "daemon").write_text("got TERM")
                os._exit(0)
            signal.signal(signal.SIGTERM, end)
            (here / "ready").write_text("yes")
            while True:
                time.sleep(60)
        daemonise(daemon)
        while not (here / "ready").exists():
            time.sleep(0.01)
        serve()
    """)
    assert run.code == 0
    assert bench.wait_for("daemon") == "got TERM"
    assert "Note" not in run.out


def test_a_daemonised_child_that_ignores_term_is_killed(bench: Bench) -> None:
    run = bench.smoke(
        """
        def daemon():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (here / "ready").write_text("yes")
            while True:
                time.sleep(60)
        daemonise(daemon)
        while not (here / "ready").exists():
            time.sleep(0.01)
        serve()
        """,
        "--grace=0.5",
        "--json",
    )
    assert run.code == 0
    assert run.json["server"]["killed"] == 1


@pytest.mark.skipif(platform.machine() not in _SYS_EXIT, reason="its system call number is unknown")
def test_a_process_whose_first_thread_has_ended_is_still_one(bench: Bench) -> None:
    run = bench.smoke(
        f"""
        def daemon():
            import ctypes
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Thread(target=time.sleep, args=(600,)).start()
            (here / "pid").write_text(str(os.getpid()))
            ctypes.CDLL(None).syscall({_SYS_EXIT[platform.machine()]}, 0)
        daemonise(daemon)
        def zombie():
            return (here / "pid").exists() and ") Z" in Path(
                f"/proc/{{(here / 'pid').read_text()}}/stat"
            ).read_text()
        while not zombie():
            time.sleep(0.01)
        serve()
        """,
        "--grace=0.3",
    )
    assert run.code == 0
    pid = int(bench.wait_for("pid"))
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_supervisor_tells_its_children_itself(bench: Bench) -> None:
    run = bench.smoke("""
        def child():
            os.setsid()
            def end(*_):
                with open(here / "terms", "a") as file:
                    print("TERM", file=file)
            signal.signal(signal.SIGTERM, end)
            (here / "ready").write_text("yes")
            time.sleep(0.1)
            while not (here / "stop").exists():
                time.sleep(0.01)
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            child()
        def end(*_):
            os.kill(pid, signal.SIGTERM)
            while not (here / "terms").exists():
                time.sleep(0.01)
            time.sleep(0.3)  # time enough for a second TERM from elsewhere
            (here / "stop").write_text("now")
            os.waitpid(pid, 0)
            os._exit(0)
        while not (here / "ready").exists():
            time.sleep(0.01)
        signal.signal(signal.SIGTERM, end)
        serve()
    """)
    assert run.code == 0
    assert bench.wait_for("terms").split() == ["TERM"]


def test_a_server_that_daemonises_itself_is_told_to_stay(bench: Bench) -> None:
    run = bench.smoke("""
        first = Path(f"/proc/{os.getpid()}")
        def daemon():
            while first.exists():
                time.sleep(0.01)
            serve()
        daemonise(daemon)
    """)
    assert run.code == 1
    assert "exit status 0" in run.out
    assert "smoke needs a server that stays in the foreground" in run.out


def test_the_children_of_a_dead_server_are_stopped(bench: Bench) -> None:
    run = bench.smoke(
        """
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        sys.exit(5)
    """,
        "--grace=0.3",
    )
    assert run.code == 1
    assert "exit status 5" in run.out


def test_a_real_time_signal_has_a_number(bench: Bench) -> None:
    run = bench.smoke("os.kill(os.getpid(), signal.SIGRTMIN + 1)")
    assert f"killed by signal {signal.SIGRTMIN + 1}" in run.out


def test_where_there_is_no_proc_the_group_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # White box: it is the way on other systems than Linux.
    monkeypatch.setattr("healthmw.cli._descendants.sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr("healthmw.cli._descendants._PROC", bench.folder / "no-proc")
    server = """
        signal.signal(signal.SIGTERM, {handler})
        if os.fork() == 0:
            signal.pause()
        serve()
    """
    assert bench.smoke(server.format(handler="signal.SIG_DFL")).code == 0
    run = bench.smoke(server.format(handler="signal.SIG_IGN"), "--grace=0.3")
    assert run.code == 0
    assert re.search(r"had not ended \d\.\d s after TERM: killed\.", run.out)


def test_what_can_not_be_ended_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # White box: a process that survives SIGKILL hangs in the kernel, and can't be made to order.
    monkeypatch.setattr("healthmw.cli._process._KILL_LIMIT", 0.0)
    server = """
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (here / "ready").write_text("yes")
            while True:
                time.sleep(60)
        while not (here / "ready").exists():
            time.sleep(0.01)
        serve()
    """
    run = bench.smoke(server, "--grace=0.5")
    pid = int(run.out.partition("Note: these could not be ended, pid ")[2].rstrip(".\n"))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert run.code == 0


def test_other_children_of_this_process_are_spared(bench: Bench) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as other:
        try:
            assert bench.smoke("serve()").code == 0
            assert other.poll() is None
        finally:
            other.kill()


def test_a_hundred_megabytes_of_log(bench: Bench) -> None:
    command = bench.script("""
        line = b"x" * 1023 + b"\\n"
        for _ in range(100):
            sys.stdout.buffer.write(line * 1024)
        print("the last line", flush=True)
        (here / "written").write_text("all")
        serve()
    """)
    # Not `ru_maxrss`: a process inherits the peak of the one that started it.
    source = (
        "import re, sys; from healthmw.cli import main; code = main(sys.argv[1:]);"
        "status = open('/proc/self/status').read();"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1]); sys.exit(code)"
    )
    options = ["smoke", f"--timeout={PLENTY}", "--log-lines=2"]
    done = subprocess.run(
        [sys.executable, "-c", source, *options, "--json", "--", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report, peak = done.stdout.splitlines()
    assert bench.wait_for("written") == "all"
    assert '"log_lines": 102401' in report
    assert "the last line" in report
    assert int(peak) < 80 * 1024, "KiB: it kept the log in memory"


def test_a_log_without_newlines_is_bounded_and_shown(bench: Bench) -> None:
    run = bench.smoke("""
        sys.stdout.write("y" * 3_000_000)
        sys.stdout.flush()
        sys.exit(1)
    """)
    assert run.code == 1
    assert "| yyyy" in run.out
    assert len(run.out) < 2000


def test_escape_sequences_in_the_log_are_taken_out(bench: Bench) -> None:
    run = bench.smoke(r"""
        sys.stdout.buffer.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \xff\ttab\r\n")
        sys.stdout.flush()
        sys.exit(1)
    """)
    assert "| red bell? \N{REPLACEMENT CHARACTER}" in run.out
    assert "\x1b" not in run.out


def test_the_log_that_is_shown_is_about_the_trial_and_not_about_the_stop(bench: Bench) -> None:
    server = """
        def end(*_):
            print(*["goodbye"] * 50, sep="\\n", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        def reply(request):
            print("the reason", flush=True)
            print('127.0.0.1 - "GET /health_check HTTP/1.1" 503', flush=True)
            print('127.0.0.1 - - "GET /health_check?full 1.1" 503 - as hypercorn', flush=True)
            print('127.0.0.1:5 - - "GET /health_check" 503 9 as daphne', flush=True)
            print('127.0.0.1 - "GET /health HTTP/1.1" 200', flush=True)
            return answer(b"FAILED", "503 Service Unavailable")
        serve(reply)
    """
    run = bench.smoke(server, "--log-lines=4", timeout="4")
    assert run.code == 1
    said, _, log = run.out.partition("The server's log, 4 of ")
    assert said
    head, *lines = log.splitlines()
    assert head.endswith("lines (those about healthmw's own requests are left out):")
    assert lines == ["  | the reason", '  | 127.0.0.1 - "GET /health HTTP/1.1" 200'] * 2


def test_what_is_said_at_the_stop_fills_the_rest(bench: Bench) -> None:
    server = """
        def end(*_):
            print("three", "four", "five", sep="\\n", flush=True)
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("one", "two", sep="\\n", flush=True)
        time.sleep(600)
    """
    run = bench.smoke(server, "--log-lines=4", timeout="2")
    assert run.code == 1
    assert run.out.endswith("5 lines:\n  | one\n  | two\n  | three\n  | four\n")


def test_the_number_of_log_lines_can_be_chosen(bench: Bench) -> None:
    run = bench.smoke(
        """
        print(*range(1, 51), sep="\\n", flush=True)
        sys.exit(1)
    """,
        "--log-lines=2",
    )
    assert "The server's log, 2 of 50 lines:\n  | 49\n  | 50\n" in run.out


def test_the_environment_of_the_server(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("CHANGED", "no")
    run = bench.smoke(
        """
        assert os.getpid() == os.getpgrp() == os.getsid(0), "Ctrl-C would reach it"
        assert sys.stdin.read() == ""
        names = ["PORT", "HOST", "HEALTHMW_SMOKE", "INHERITED", "CHANGED", "TOKEN"]
        (here / "env").write_text("\\n".join(os.environ[name] for name in names))
        serve()
        """,
        "--env=TOKEN=swordfish=1",
        "--env=CHANGED=yes",
        "--header=Authorization: Bearer swordfish",
    )
    assert run.code == 0
    port, *rest = bench.wait_for("env").splitlines()
    assert f"http://127.0.0.1:{port}/health_check" in run.out
    assert rest == ["127.0.0.1", "1", "yes", "yes", "swordfish=1"]
    assert "swordfish" not in run.out + run.err


def test_port_and_host_are_filled_in(bench: Bench) -> None:
    command = bench.script("""
        (here / "argv").write_text(" ".join(sys.argv[1:]))
        serve()
    """)
    run = bench.run("smoke", "--", *command, "--bind={host}:{port}", "$PORT")
    assert run.code == 0
    port = run.out.partition("127.0.0.1:")[2].partition("/")[0]
    assert bench.wait_for("argv") == f"--bind=127.0.0.1:{port} $PORT"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_server_and_then_smoke(bench: Bench, number: signal.Signals) -> None:
    command = bench.script("""
        def end(*_):
            (here / "ended").write_text("in order")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        daemonise(lambda: time.sleep(600))
        def reply(request):
            (here / "asked").write_text("yes")
            time.sleep(600)
        serve(reply)
    """)
    with bench.start("smoke", "--timeout=600", "--request-timeout=600", "--", *command) as smoke:
        bench.wait_for("asked")
        smoke.send_signal(number)
        out, _ = smoke.communicate(timeout=60)
    assert smoke.returncode == 128 + number
    assert out.startswith(f"INTERRUPTED  stopped by {number.name}")
    assert bench.wait_for("ended") == "in order"


def test_a_second_signal_cuts_the_grace_short(bench: Bench) -> None:
    command = bench.script("""
        signal.signal(signal.SIGTERM, lambda *_: (here / "term").write_text("yes"))
        (here / "ready").write_text("yes")
        while True:
            time.sleep(60)
    """)
    options = ["--timeout=600", "--grace=600", "--json"]
    with bench.start("smoke", *options, "--", *command) as smoke:
        bench.wait_for("ready")
        smoke.send_signal(signal.SIGTERM)
        bench.wait_for("term")
        smoke.send_signal(signal.SIGTERM)
        out, _ = smoke.communicate(timeout=60)
    assert smoke.returncode == 143
    assert '"verdict": "interrupted"' in out
    assert '"killed": 1' in out


def test_a_signal_while_a_server_that_was_well_is_stopped_is_no_pass(bench: Bench) -> None:
    command = bench.script("""
        signal.signal(signal.SIGTERM, lambda *_: (here / "term").write_text("yes"))
        serve()
    """)
    with bench.start("smoke", "--grace=600", "--json", "--", *command) as smoke:
        bench.wait_for("term")
        smoke.send_signal(
            signal.SIGINT
        )  # of two, the second one cuts the grace short: so does this
        out, _ = smoke.communicate(timeout=60)
    assert smoke.returncode == 130, "`&& deploy` would go on"
    found = json.loads(out)
    assert found["verdict"] == "passed"
    assert found["exit_status"] == 130
    assert found["server"]["killed"] == 1


def test_a_hangup_that_is_ignored_stays_so(bench: Bench) -> None:
    command = bench.script("""
        (here / "ready").write_text("yes")
        while not (here / "go").exists():
            time.sleep(0.02)
        serve()
    """)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        smoke = bench.start("smoke", f"--timeout={PLENTY}", "--", *command)
    finally:
        signal.signal(signal.SIGHUP, before)
    with smoke:
        bench.wait_for("ready")
        smoke.send_signal(signal.SIGHUP)
        (bench.folder / "go").write_text("on")
        smoke.communicate(timeout=60)
    assert smoke.returncode == 0


def test_handlers_and_subreaper_are_put_back(bench: Bench) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert bench.smoke("serve()").code == 0
    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before


def test_nobody_reads_the_verdict(bench: Bench) -> None:
    source, sink = os.pipe()
    os.close(source)
    try:
        command = bench.script("serve()")
        with bench.start("smoke", "--", *command, stdout=sink, stderr=sink) as smoke:
            assert smoke.wait(timeout=60) == 0
    finally:
        os.close(sink)
