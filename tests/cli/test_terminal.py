"""What the command line looks like: on a terminal, in a pipe, and its help."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.cli.servers import OKAY, answer, answering
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cli.servers import Bench


def _on_a_terminal(*words: str, command: Sequence[str] = (), **env: str) -> str:
    """Run the command line on a pseudo-terminal, and return all that it writes there.

    `command` is what to run in its place.
    """
    main, side = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "TERM"}}
    with subprocess.Popen(
        command or [sys.executable, "-m", "healthmw", *words],
        stdin=side,
        stdout=side,
        stderr=side,
        env={**inherited, "TERM": "xterm", **env},
    ) as process:
        os.close(side)
        written = b""
        while True:
            try:
                more = os.read(main, 65536)
            except OSError:  # Linux: the last writer is gone
                break
            if not more:
                break
            written += more
    os.close(main)
    assert process.returncode in {0, 1}
    return written.decode()


def test_one_living_line_on_a_terminal(bench: Bench) -> None:
    bad = answer(b"FAILED: database (timeout)", "503 Unavailable")
    replies = [OKAY, bad, bad, bad]
    with answering(lambda request: replies.pop()) as place:
        shown = _on_a_terminal("wait", "--interval=0.3", f"http://{place}")
    assert "\r\x1b[2K" in shown
    assert shown.count("\r\n") == 1, "all but the verdict was overwritten"
    last = shown.rpartition("\x1b[2K")[2]
    assert last.startswith("\x1b[1;32mOKAY\x1b[0m  http://")
    times = re.findall(r"\x1b\[2K +([0-9.]+) s  503 FAILED", shown)
    assert len(set(times)) > 3, "the clock goes on between the answers"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wait", "--timeout=1"], "s  asking {url}, http"),
        (["watch", "--timeout=1", "--count=1"], "{url} (2)"),
    ],
)
def test_what_is_asked_is_shown_before_any_answer(
    bench: Bench, words: list[str], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # that says nothing
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        shown = _on_a_terminal(*words, f"http://{place}", f"http://{place}", COLUMNS="120")
    before, answered, _ = shown.partition("no whole answer within")
    assert answered
    assert said.format(url=f"http://{place}/health_check") in before


def test_no_color_leaves_the_living_line(bench: Bench) -> None:
    with answering(answer(b"FAILED", "503 Unavailable")) as place:
        options = ["--timeout=0.3", "--interval=0.1"]
        shown = _on_a_terminal("wait", *options, f"http://{place}", NO_COLOR="1")
        coloured = _on_a_terminal("wait", *options, f"http://{place}", NO_COLOR="")
    assert "\x1b[2K" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)
    assert "\x1b[1;31mFAILED\x1b[0m" in coloured


def test_a_dumb_terminal_gets_lines(bench: Bench) -> None:
    with answering(OKAY) as place:
        shown = _on_a_terminal("wait", f"http://{place}", TERM="dumb")
    assert "\x1b" not in shown
    assert "s  200 OKAY\r\n" in shown


def test_a_pipe_gets_sparse_lines(bench: Bench) -> None:
    with answering(answer(b"FAILED", "503 Unavailable")) as place:
        run = bench.run("wait", "--timeout=1", "--interval=0.05", f"http://{place}")
    assert run.code == 1
    asking, first = run.err.splitlines()
    assert asking.endswith(f" s  asking http://{place}/health_check")
    assert first.endswith(" s  503 FAILED")
    assert "\x1b" not in run.out + run.err


def test_a_long_wait_says_now_and_then_that_nothing_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # White box: the clock of the progress runs 400 times as fast.
    fast = SimpleNamespace(monotonic=lambda: time.monotonic() * 400)
    monkeypatch.setattr("healthmw.cli._output.time", fast)
    with answering(answer(b"FAILED", "503 Unavailable")) as place:
        run = bench.run("wait", "--timeout=200", "--interval=0.01", f"http://{place}")
    assert run.code == 1
    _asking, first, *more = run.err.splitlines()
    assert first.endswith("s  503 FAILED")
    assert more
    assert all(re.fullmatch(r" *([0-9]+ min )?[0-9]+ s  503 FAILED", line) for line in more)
    assert "within 200 s" in run.out


def test_changing_answers_are_not_told_each(bench: Bench) -> None:
    number = iter(range(10_000))

    def reply(request: bytes) -> bytes:
        return answer(f"FAILED: {next(number)}".encode(), "503 Unavailable")

    with answering(reply) as place:
        run = bench.run("wait", "--timeout=1.5", "--interval=0.05", f"http://{place}")
    assert next(number) > 5
    assert run.err.count("\n") <= 3, "at most one line a second"


def test_a_stream_that_can_not_say_it(bench: Bench) -> None:
    with (
        answering(answer("schön".encode(), "503 Unavailable")) as place,
        bench.start("check", f"http://{place}", env={"PYTHONIOENCODING": "ascii"}) as check,
    ):
        out, err = check.communicate(timeout=60)
    assert check.returncode == 1
    assert "503 sch?n" in out
    assert err == ""


def test_streams_that_are_closed(bench: Bench) -> None:
    with answering(OKAY) as place:
        words = f"{sys.executable} -m healthmw wait http://{place} >&- 2>&-"
        assert subprocess.run(["sh", "-c", words], check=False, timeout=60).returncode == 0


def test_the_overview(bench: Bench) -> None:
    for word in ("--help", "-h", "help"):
        run = bench.run(word)
        assert run.code == 0
        assert "examples:\n  healthmw smoke -- gunicorn app:app" in run.out
        assert all(f"\n  {name} " in run.out for name in ("smoke", "check", "watch", "completion"))
    run = bench.run()
    assert run.code == 2
    assert "usage: healthmw COMMAND" in run.err
    assert run.out == ""


@pytest.mark.parametrize("command", ["smoke", "check", "wait", "watch", "completion"])
def test_help_teaches_by_example(
    bench: Bench, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = bench.run(command, "--help")
    assert run.code == 0
    assert f"examples:\n  healthmw {command} " in run.out
    assert "exit status:\n  0 " in run.out
    assert max(map(len, run.out.splitlines())) <= 80


def test_a_watch_is_a_living_table(bench: Bench) -> None:
    bad = answer(b"FAILED: database (timeout)", "503 Unavailable")
    replies = [bad, OKAY, OKAY]
    with answering(lambda request: replies.pop()) as place:
        words = ["watch", "--count=3", "--interval=0.05", f"http://{place}"]
        shown = _on_a_terminal(*words, COLUMNS="120", PYTHONIOENCODING="utf-8")
        replies[:] = [OKAY]
        plain = _on_a_terminal(words[0], "--count=1", words[-1], PYTHONIOENCODING="ascii")
    assert "\x1b[2K" in shown
    last = shown.rpartition("last runs")[2]
    assert f"http://{place}/health_check: 503 FAILED: database (timeout)" in last
    assert last.count("\x1b[1;31mFAILED") == 2, "in the table, and before what is so"
    assert re.search(r"\d\.\d s ago", last), "when it changed"
    assert "breaker" not in shown, "nothing has one"
    assert re.search("[▁▂▃▄▅▆▇█]{3}", last)
    assert shown.endswith("\x1b[?25h"), "the cursor is shown again"
    assert plain.isascii()


def test_the_table_has_what_the_server_tells_of_its_past(bench: Bench) -> None:
    entry = {
        "componentId": "search",
        "status": "fail",
        "time": "2026-01-01T00:00:00Z",
        "output": "OSError: away",
        "healthmw": {
            "status": "failed",
            "reason": "circuit_open",
            "critical": False,
            "ageSeconds": 83,
            "durationSeconds": 0.25,
            "lastChange": (datetime.now(UTC) - timedelta(minutes=10)).isoformat(),
            "breaker": {"state": "open"},
            "history": {"recentSeconds": [0.1, 0.05, 0.1]},
        },
    }
    text = json.dumps({
        "status": "warn", "releaseId": "v42", "healthmw": {"group": "ready", "status": "degraded"},
        "checks": {"search:responseTime": [entry]},
    })  # fmt: skip
    reply = answer(text.encode()).replace(b"text/plain", b"application/health+json")
    with answering(reply) as place:
        words = ["watch", "--count=1", f"http://{place}"]
        shown = _on_a_terminal(*words, COLUMNS="120", PYTHONIOENCODING="utf-8")
        narrow = _on_a_terminal(*words, COLUMNS="70", PYTHONIOENCODING="utf-8")
    table, narrow = (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in (shown, narrow))
    row = r"  search +FAILED +1 min  250 ms  █▅█ +open +10 min ago"
    assert re.search(row, table), table
    assert f"http://{place}/health_check v42  DEGRADED" in table
    assert f"FAILED   http://{place}/health_check search: circuit_open: OSError: away" in table
    assert re.search(row, narrow), narrow


@pytest.mark.parametrize("columns", [30, 40, 50])
def test_a_narrow_terminal_keeps_names_and_verdicts(bench: Bench, columns: int) -> None:
    entry = {"status": "fail", "output": "OSError: away", "time": "2026-01-01T00:00:00Z",
             "healthmw": {"status": "failed", "breaker": {"state": "half_open"}}}  # fmt: skip
    text = json.dumps({"status": "fail", "checks": {"search": [entry]}})
    reply = answer(text.encode()).replace(b"text/plain", b"application/health+json")
    with answering(reply) as place:
        shown = _on_a_terminal(
            "watch", "--count=1", f"http://{place}", COLUMNS=str(columns), PYTHONIOENCODING="utf-8"
        )
    table = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"^ +status ", table, re.MULTILINE), table
    assert re.search(r"^  search +FAILED ", table, re.MULTILINE), table
    assert ("half_open" in table) == (columns > 30), table


def _frames(shown: str) -> list[list[str]]:
    """Return the lines of each picture that a living table drew over the one before."""
    pictures = re.split(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", shown)
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", one).splitlines() for one in pictures]


@pytest.mark.parametrize(("lines", "bad"), [("24", 1), ("24", 12), ("10", 1), ("10", 4)])
def test_a_low_terminal_shows_what_fails(bench: Bench, lines: str, bad: int) -> None:
    (bench.folder / "watched.py").write_text(
        "from healthmw import Health\n"
        "health = Health()\n"
        "def away():\n"
        "    raise OSError('away')\n"
        "for number in range(30):\n"
        "    health.add(f'well{number}', lambda: None)\n"
        f"for number in range({bad}):\n"
        "    health.add(f'bad{number}', away)\n"
    )
    words = ["watch", "--count=2", "--interval=0.05", "watched:health"]
    shown = _on_a_terminal(*words, COLUMNS="80", LINES=lines)
    *frames, last = (frame for frame in _frames(shown) if "FAILED" in "".join(frame))
    assert frames
    for frame in frames:
        assert len(frame) <= int(lines)
        text = "\n".join(frame)
        told = re.findall(r"FAILED +watched:health bad(\d+): OSError: away", text)
        assert told == [str(number) for number in range(bad)]
        assert re.search(r"^\.\.\. and \d+ that are okay", text, re.MULTILINE)
        rows = re.findall(r"^  bad\d+ +FAILED", text, re.MULTILINE)
        hidden = re.search(r" that are okay and (\d+) that are not$", text, re.MULTILINE)
        assert len(rows) + (int(hidden[1]) if hidden else 0) >= bad
    assert sum("  well" in line for line in last) == 30, "in the end all of it stays to be read"


def test_what_the_app_logs_stands_above_the_table(bench: Bench) -> None:
    (bench.folder / "logging_app.py").write_text(
        "import logging\n"
        "from healthmw import Health\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "health = Health()\n"
        "health.add('payments', lambda: logging.getLogger('app').info('asked for payments'))\n"
    )
    words = ["watch", "--count=3", "--interval=0.05", "logging_app:health"]
    frames = _frames(_on_a_terminal(*words, COLUMNS="80"))
    assert sum(frame[0] == "asked for payments" for frame in frames) == 3
    assert not any("asked" in line for frame in frames for line in frame[1:])


def test_what_the_app_logs_goes_where_standard_error_does(bench: Bench) -> None:
    (bench.folder / "noisy.py").write_text(
        "import sys\n"
        "from healthmw import Health\n"
        "health = Health()\n"
        "health.add('payments', lambda: print('asked for payments', file=sys.stderr))\n"
    )
    words = [sys.executable, "-m", "healthmw", "watch", "--count=1", "noisy:health"]
    shell = ["sh", "-c", 'exec "$@" 2>errors', "sh", *words]
    shown = _on_a_terminal(command=shell)
    assert "OKAY" in shown
    assert "asked" not in shown
    assert (bench.folder / "errors").read_text() == "asked for payments\n"


def test_a_watch_without_rich_is_lines(bench: Bench) -> None:
    (bench.folder / "rich.py").write_text("raise ImportError")
    with answering(OKAY) as place:
        shown = _on_a_terminal("watch", "--count=1", f"http://{place}")
    assert "last runs" not in shown
    assert re.search(r"OKAY\x1b\[0m +http://127\S+: 200 OKAY\r\n", shown)


def test_version(bench: Bench) -> None:
    assert bench.run("--version").out == f"healthmw {version('healthmw')}\n"


def test_an_unknown_command(bench: Bench) -> None:
    run = bench.run("smok")
    assert run.code == 2
    assert run.err == "healthmw: there is no command 'smok': did you mean `healthmw smoke`?\n"
    run = bench.run("xyzzy")
    assert run.code == 2
    assert "`healthmw --help` lists the commands" in run.err


_SMOKE = ["--", "true"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what is to be started? Give -- COMMAND, or --procfile"),
        (["--"], "what is to be started?"),
        (["gunicorn", "app:app"], "put -- before the command: healthmw smoke -- gunicorn app:app"),
        (["gunicorn", *_SMOKE], "what is 'gunicorn'? Options come before --, the command after it"),
        (["--procfile", "Procfile", *_SMOKE], "give either --procfile or -- COMMAND, not both"),
        (["--process=web", *_SMOKE], "--process is a line of a Procfile: give --procfile too"),
        (["--cacert=x", *_SMOKE], "--cacert and --insecure are for --scheme https"),
        (["--insecure", *_SMOKE], "--cacert and --insecure are for --scheme https"),
        (["--env=PORT=1", *_SMOKE], "--env PORT: give the port with --port"),
        (["--env=X", *_SMOKE], "--env: a variable looks like NAME=VALUE"),
        (["--path=up", *_SMOKE], "--path: 'up' does not begin with a slash: /up"),
        (["--warm-up=up", *_SMOKE], "--warm-up: 'up' does not begin with a slash: /up"),
        (["--timeout=0", *_SMOKE], "--timeout: '0' is not a number of seconds above 0"),
        (["--timeout=100000", *_SMOKE], "seconds above 0 and up to 86400 (a day)"),
        (["--timeout=nan", *_SMOKE], "--timeout: 'nan' is not"),
        (["--timeout=soon", *_SMOKE], "--timeout: 'soon' is not"),
        (["--grace=-1", *_SMOKE], "--grace: '-1' is not"),
        (["--passes=0", *_SMOKE], "--passes: '0' is not a whole number above 0"),
        (["--passes=two", *_SMOKE], "--passes: 'two' is not"),
        (["--port=65536", *_SMOKE], "--port: '65536' is not a port"),
        (["--port=http", *_SMOKE], "--port: 'http' is not a port"),
        (["--group=a/b", *_SMOKE], "--group: 'a/b' is not the name of a group"),
        (["--header=swordfish", *_SMOKE], "--header: a header looks like 'Name: value'"),
        (["--header=X: a\r\nY: b", *_SMOKE], "--header: a header looks like 'Name: value'"),
        (["--header=X: \N{SNOWMAN}", *_SMOKE], "--header: a header looks like 'Name: value'"),
        (["--time=3", *_SMOKE], "unrecognized arguments: --time\n"),
    ],
)
def test_wrong_usage_says_how_to_mend_it(bench: Bench, words: list[str], said: str) -> None:
    run = bench.run("smoke", *words)
    assert run.code == 2
    assert said in run.err
    assert "swordfish" not in run.err
    assert run.out == ""


def test_an_interrupted_check_says_nothing_more(bench: Bench) -> None:
    # Nothing but the signal: no traceback.
    def reply(request: bytes) -> bytes:
        os.kill(check.pid, 2)
        return OKAY[:-1]

    with answering(reply) as place, bench.start("check", f"http://{place}") as check:
        _, err = check.communicate(timeout=60)
    assert check.returncode == 130
    assert err == ""


_DSN = "redis://:swordfish@cache"


@pytest.mark.parametrize(
    "words",
    [
        [_DSN],
        ["check", "--timeout", _DSN, "app:health"],
        ["check", "--group", _DSN, "app:health"],
        ["check", "--headr=X-Token: swordfish", "http://localhost"],
        ["check", "--tokn=swordfish", "http://localhost"],
        ["check", "unix:ann:swordfish@host"],
        ["smoke", "--port", _DSN, *_SMOKE],
        ["smoke", "--path", _DSN, *_SMOKE],
        ["smoke", "--scheme", _DSN, *_SMOKE],
        ["smoke", "--host", _DSN, *_SMOKE],
        ["smoke", "--procfile", "Procfile", "--process", _DSN],
        ["smoke", "--json", "--", _DSN],
        ["wait", "--passes", _DSN, "app:health"],
        ["completion", _DSN],
    ],
)
def test_a_password_in_the_wrong_place_is_not_repeated(bench: Bench, words: list[str]) -> None:
    run = bench.run(*words)
    assert run.code == 2
    assert run.err
    assert "swordfish" not in run.err + run.out


def test_a_redirect_is_told_without_its_password(bench: Bench) -> None:
    moved = answer(b"", "302 Found", "Location: http://ann:swordfish@elsewhere/up")
    with answering(lambda request: moved) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert "a redirect to http://***@elsewhere/up" in run.out


@pytest.mark.parametrize("command", ["check", "wait", "smoke"])
def test_a_chunk_of_a_size_below_nothing_is_no_http(bench: Bench, command: str) -> None:
    wrong = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nOKAY\r\n0\r\n\r\n"
    if command == "smoke":
        run = bench.smoke(f"serve(lambda request: {wrong!r})", timeout="2")
    else:
        with answering(lambda request: wrong) as place:
            run = bench.run(command, "--timeout=1", f"http://{place}")
    assert run.code in {1, 2}
    assert "what answers is not HTTP" in run.out


@pytest.mark.parametrize("asked", ["hangs up", "quits"])
def test_no_server_is_left_behind_by_who_leaves(bench: Bench, asked: str) -> None:
    """Who closes the terminal, or types Ctrl-backslash."""
    server = bench.script("print('up', flush=True); time.sleep(600)")
    words = [sys.executable, "-m", "healthmw", "smoke", "--grace=5", "--", *server]
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process, and soon another program
        os.environ["TERM"] = "xterm"
        os.execv(words[0], words)  # noqa: S606 - there is none
    written = b""
    while b"\x1b[2K" not in written:
        written += os.read(terminal, 65536)
    until_sync(lambda: len(bench.processes()) > 1)  # the smoke test itself, and the server
    if asked == "quits":
        os.write(terminal, b"\x1c")
        with contextlib.suppress(OSError):
            while os.read(terminal, 65536):
                pass
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + (3 if asked == "quits" else 1)
    assert bench.processes() == []
