"""What `healthmw smoke` makes of what a server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.servers import PLENTY

if TYPE_CHECKING:
    import pytest

    from tests.cli.servers import Bench


def test_a_well_server_passes(bench: Bench) -> None:
    run = bench.smoke("serve()")
    assert run.code == 0
    assert run.out.startswith("PASSED  http://127.0.0.1:")
    assert "/health_check is well after " in run.out
    assert "200 OKAY" in run.out
    assert "log" not in run.out


def test_a_server_that_binds_late_passes(bench: Bench) -> None:
    run = bench.smoke("time.sleep(1); serve()")
    assert run.code == 0
    assert "connection refused" in run.err


def test_a_server_that_is_not_ready_at_first_passes(bench: Bench) -> None:
    run = bench.smoke("""
        replies = [answer(b"FAILED: database (timeout)", "503 Service Unavailable")] * 2
        serve(lambda request: replies.pop() if replies else answer())
    """)
    assert run.code == 0
    assert "503 FAILED: database (timeout)" in run.err


def test_a_server_that_never_binds_fails_when_time_is_up(bench: Bench) -> None:
    run = bench.smoke("print('thinking', flush=True); time.sleep(600)", timeout="1.5")
    assert run.code == 1
    assert run.out.startswith("FAILED  ")
    assert "was not well within 1.5 s: connection refused" in run.out
    assert "No answer to " in run.out
    assert "Nobody listens there: does the server take its port from PORT?" in run.out
    assert "| thinking" in run.out
    assert 1.5 <= run.seconds < 20


def test_a_server_that_dies_early_fails_at_once(bench: Bench) -> None:
    run = bench.smoke("print('no such table: users', flush=True); sys.exit(3)", timeout="600")
    assert run.code == 1
    assert "the server ended by itself" in run.out
    assert "exit status 3" in run.out
    assert "| no such table: users" in run.out
    assert "Nobody listens there" not in run.out, "of what has ended that goes without saying"
    assert run.seconds < 60


def test_a_server_that_a_signal_killed_is_described_so(bench: Bench) -> None:
    run = bench.smoke("os.kill(os.getpid(), signal.SIGSEGV)")
    assert run.code == 1
    assert "killed by SIGSEGV" in run.out


def test_a_server_that_dies_of_its_first_answer_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # White box: the moment for which it is watched is short, and this machine may be slow.
    monkeypatch.setattr("healthmw.cli._trial._SETTLE", 60.0)
    run = bench.smoke("""
        def reply(request):
            yield answer()
            time.sleep(0.3)
            os._exit(6)
        serve(reply)
    """)
    assert run.code == 1
    assert "exit status 6" in run.out


def test_a_server_that_dies_while_it_answers_fails_at_once(bench: Bench) -> None:
    # The child keeps the connection open: only watching the process tells.
    run = bench.smoke(
        """
        def reply(request):
            if os.fork() == 0:
                time.sleep(600)
            os._exit(7)
        serve(reply)
        """,
        "--request-timeout=600",
        timeout="600",
    )
    assert run.code == 1
    assert "exit status 7" in run.out
    assert run.seconds < 60


def test_another_body_fails(bench: Bench) -> None:
    run = bench.smoke(r"serve(lambda request: answer(b'OKAY\n'))", timeout="4")
    assert run.code == 1
    assert r"within 4 s: 200, but the body is 'OKAY\n' and not exactly 'OKAY'" in run.out
    assert "The last answer: 200 OK\n    OKAY\n" in run.out


def test_a_long_page_is_shown_in_part(bench: Bench) -> None:
    run = bench.smoke("""
        page = b"<html>\\n" + b"<p>x</p>\\n" * 40
        serve(mortal(lambda request: answer(page, "404 Not Found")))
    """)
    assert run.code == 1
    assert "The last answer: 404 Not Found\n    <html>\n    <p>x</p>\n" in run.out
    assert run.out.count("<p>x</p>") == 19
    assert "    ...\n" in run.out


def test_an_empty_body_is_told(bench: Bench) -> None:
    run = bench.smoke("serve(mortal(lambda request: answer(b'', '503 Service Unavailable')))")
    assert run.code == 1
    assert "The last answer: 503 Service Unavailable\n    (its body is empty)" in run.out


def test_an_answer_by_the_byte_has_a_deadline(bench: Bench) -> None:
    run = bench.smoke(
        """
        def reply(request):
            yield answer(b"OKAY" * 30)[:-120]
            yield from drip(b"OKAY" * 30, 0.2)
        serve(mortal(reply))
        """,
        "--request-timeout=0.7",
        "--json",
    )
    assert run.code == 1
    assert run.json["server"]["exit_status"] == 9
    assert run.json["answer"] is None
    assert run.seconds < 20, "a drip of 24 seconds a request"


def test_silence_has_a_deadline(bench: Bench) -> None:
    run = bench.smoke("listener = listen(); time.sleep(600)", timeout="3")
    assert run.code == 1
    assert "no whole answer within " in run.out
    assert "Nobody listens" not in run.out
    assert run.seconds < 30


def test_the_last_word_of_a_server_is_told_though_time_ran_out_in_a_later_request(
    bench: Bench,
) -> None:
    run = bench.smoke(
        """
        replies = [answer(b"FAILED: database (timeout)", "503 Service Unavailable")]
        serve(lambda request: replies.pop() if replies else time.sleep(600))
        """,
        "--request-timeout",
        "60",
        timeout="5",
    )
    assert run.code == 1
    first = run.out.splitlines()[0]
    assert first.endswith("was not well within 5 s: 503 FAILED: database (timeout)")


def test_a_slow_answer_that_is_in_time_passes(bench: Bench) -> None:
    assert bench.smoke("serve(lambda request: drip(answer(), 0.01))").code == 0


def test_an_endless_body_is_cut(bench: Bench) -> None:
    run = bench.smoke("""
        def reply(request):
            yield b"HTTP/1.1 200 OK\\r\\n\\r\\n"
            while True:
                yield b"OKAY" * 4096
        serve(mortal(reply))
    """)
    assert run.code == 1
    assert "The last answer: 200 OK\n    OKAYOKAY" in run.out
    assert "    ...\n" in run.out
    assert len(run.out) < 2000


def test_the_question_is_the_one_that_check_asks(bench: Bench) -> None:
    run = bench.smoke(
        """
        def reply(request):
            right = request.startswith(b"GET /up/release HTTP") and b"X-Token: swordfish" in request
            return answer(b"fine") if right else answer(b"what?", "404 Not Found")
        serve(reply)
        """,
        "--path=/up",
        "--group=release",
        "--header=X-Token: swordfish",
        "--expect=fine",
    )
    assert run.code == 0
    assert "swordfish" not in run.out + run.err


def test_strict_refuses_degraded(bench: Bench) -> None:
    server = "serve(lambda request: answer(b'OKAY', '200 OK', 'Health-Status: degraded'))"
    run = bench.smoke(server)
    assert run.code == 0
    assert "200 OKAY (degraded)" in run.out
    mortal = server.replace("serve(lambda request:", "serve(mortal(lambda request:") + ")"
    run = bench.smoke(mortal, "--strict", "--json")
    assert run.code == 1
    assert run.json["answer"]["health"] == "degraded"


def test_strict_passes_okay(bench: Bench) -> None:
    server = "serve(lambda request: answer(b'OKAY', '200 OK', 'Health-Status: okay'))"
    assert bench.smoke(server, "--strict").code == 0


def test_passes_must_be_in_a_row(bench: Bench) -> None:
    run = bench.smoke(
        """
        bad = answer(b"FAILED", "503 Service Unavailable")
        replies = [answer(), answer(), bad, answer()]
        serve(lambda request: replies.pop() if replies else answer())
        """,
        "--passes=3",
        "--interval=0.05",
        "--json",
    )
    assert run.code == 0
    answered = run.json["requests"] - run.err.count("connection refused")
    assert answered >= 5  # OKAY, FAILED, and then three times OKAY
    assert "3 times in a row" in run.json["reason"]


def test_the_release_is_shown(bench: Bench) -> None:
    run = bench.smoke("serve(lambda r: answer(b'OKAY', '200 OK', 'Health-Release: v42'))")
    assert "(release v42)" in run.out


def test_warm_up_paths_come_first(bench: Bench) -> None:
    server = """
        errors = [answer(b"", "500 Oops")]
        def reply(request):
            path = request.split()[1].decode()
            with open(here / "paths", "a") as file:
                print(path, file=file)
            if path == "/slow" and errors:
                return errors.pop()
            return answer(b"", "302 Found", "Location: /login") if path == "/" else answer()
        serve(reply)
    """
    assert bench.smoke(server, "--warm-up=/", "--warm-up=/slow", "--interval=0.05").code == 0
    assert bench.wait_for("paths").split() == ["/", "/slow", "/slow", "/health_check"]


def test_a_warm_up_path_that_is_missing_fails(bench: Bench) -> None:
    run = bench.smoke(
        """
        def reply(request):
            return answer() if b"/health_check" in request else answer(b"", "404 Not Found")
        serve(mortal(reply))
        """,
        "--warm-up=/nowhere",
    )
    assert run.code == 1
    assert "The last answer: 404 Not Found" in run.out


def test_json(bench: Bench) -> None:
    run = bench.smoke(
        """
        print("hello", flush=True)
        headers = ["Health-Status: degraded", "Health-Release: v1"]
        serve(lambda request: answer(b"OKAY", "200 OK", *headers))
        """,
        "--json",
    )
    assert run.code == 0
    found = run.json
    assert found["verdict"] == "passed"
    assert found["exit_status"] == 0
    assert found["url"].startswith("http://127.0.0.1:")
    assert found["url"].endswith("/health_check")
    assert 0 < found["seconds"] < float(PLENTY)
    assert found["requests"] >= 1
    assert found["answer"] == {
        "status": 200,
        "body": "OKAY",
        "health": "degraded",
        "release": "v1",
    }
    assert found["server"]["exit_status"] is None
    assert found["server"]["killed"] == 0
    assert found["server"]["left"] == []
    assert found["log"] == ["hello"]
    assert found["log_lines"] == 1


def test_json_of_a_failure(bench: Bench) -> None:
    run = bench.smoke("sys.exit(3)", "--json")
    assert run.code == 1
    assert run.json["verdict"] == "failed"
    assert run.json["exit_status"] == 1
    assert run.json["answer"] is None
    assert run.json["server"]["exit_status"] == 3


def test_json_when_it_could_not_tell(bench: Bench) -> None:
    run = bench.run("smoke", "--json", "--", "no-such-command-anywhere")
    assert run.code == 2
    assert run.json == {
        "verdict": "unknown",
        "exit_status": 2,
        "reason": "command not found: no-such-command-anywhere",
    }
