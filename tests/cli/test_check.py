"""`healthmw check`: one look, one line, and what counts as well."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.cli.servers import OKAY, answer, answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.servers import Bench


def test_well(bench: Bench) -> None:
    with answering(OKAY) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 0
    assert run.out.startswith(f"OKAY  http://{place}/health_check: 200 OKAY, in ")
    assert run.out.count("\n") == 1
    assert run.err == ""


def test_degraded_is_well_and_told(bench: Bench) -> None:
    said = answer(b"OKAY", "200 OK", "Health-Status: degraded", "Health-Release: v42")
    with answering(said) as place:
        run = bench.run("check", f"http://{place}")
        strict = bench.run("check", "--strict", f"http://{place}")
    assert run.code == 0
    assert run.out.startswith("DEGRADED  http://")
    assert "(release v42)" in run.out
    assert strict.code == 1
    assert strict.out.startswith("FAILED  http://")


def test_not_well_says_why_on_one_line(bench: Bench) -> None:
    with answering(answer(b"FAILED: database (timeout)\nmore", "503 Unavailable")) as place:
        run = bench.run("check", f"http://{place}/up")
    assert run.code == 1
    assert run.out.startswith(f"FAILED  http://{place}/up: 503 FAILED: database (timeout), in ")
    assert run.out.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("OKAY\n", r"200, but the body is 'OKAY\n' and not exactly 'OKAY'"),
        ("OKAY.", "the body is 'OKAY.' and not exactly 'OKAY'"),
        (" OKAY", "the body is ' OKAY'"),
        ("okay", "the body is 'okay'"),
        ("", "the body is ''"),
        ("<html>" * 50, "the body is '<html>"),
        ("\x1b[2J\x07", r"the body is '\x1b[2J\x07'"),
    ],
)
def test_any_other_body_is_not_well(bench: Bench, body: str, said: str) -> None:
    with answering(answer(body.encode())) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert said in run.out
    assert len(run.out) < 250


@pytest.mark.parametrize("status", ["503 Unavailable", "500 Oops", "404 Not Found", "101 Early"])
def test_the_right_body_with_a_wrong_status_is_not_well(bench: Bench, status: str) -> None:
    with answering(answer(b"OKAY", status)) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert status[:3] in run.out


def test_an_html_error_page_is_told_by_its_status(bench: Bench) -> None:
    page = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<h1>Bad</h1>"
    with answering(page) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert "/health_check: 400 Bad Request, in" in run.out


def test_a_redirect_is_not_followed(bench: Bench) -> None:
    said = answer(b"", "301 Moved", "Location: https://example.com/login?next=secret")
    with answering(said) as place:
        run = bench.run("check", "--any-body", f"http://{place}")
    assert run.code == 1
    assert "301, a redirect to https://example.com/login: redirects are not followed" in run.out


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nOKAY", "the answer broke off in its body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nOK", "broke off"),
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers is not HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "what answers is not HTTP (LineTooLong)"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"OKAY" * 20_000, "the body is longer than 65,536 bytes"),
    ],
)
def test_no_whole_answer_is_not_well(bench: Bench, raw: bytes, said: str) -> None:
    with answering(raw) as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert said in run.out


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n2\r\nAY\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nOKAY",
        b"HTTP/1.1 299 Fine\r\nContent-Length: 4\r\n\r\nOKAY",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nOKAY",
    ],
    ids=["chunked", "until close", "another 2xx", "after a 100"],
)
def test_all_framings_of_the_body_are_read(bench: Bench, raw: bytes) -> None:
    with answering(raw) as place:
        assert bench.run("check", f"http://{place}").code == 0


def _drip(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        time.sleep(0.1)
        yield data[at : at + 1]


@pytest.mark.parametrize("at_once", [b"", OKAY[:-4]], ids=["the head", "the body"])
def test_by_the_byte_is_one_deadline(bench: Bench, at_once: bytes) -> None:
    def reply(request: bytes) -> Iterator[bytes]:
        yield at_once
        yield from _drip(OKAY[len(at_once) :] + b"." * 60)

    with answering(reply) as place:
        run = bench.run("check", "--timeout=0.35", f"http://{place}")
    assert run.code == 1
    assert "no whole answer within 0.35 s" in run.out
    assert run.seconds < 4


def test_expect_another_body(bench: Bench) -> None:
    with answering(answer("schön".encode())) as place:
        assert bench.run("check", "--expect", "schön", f"http://{place}").code == 0
        assert bench.run("check", "--any-body", f"http://{place}").code == 0
        assert bench.run("check", "--expect", "sch", f"http://{place}").code == 1
        assert bench.run("check", "--expect", "", f"http://{place}").code == 1
    with answering(answer(b"", "204 No Content")) as place:
        assert bench.run("check", "--expect", "", f"http://{place}").code == 0


def test_what_is_sent(bench: Bench) -> None:
    asked: list[list[str]] = []

    def reply(request: bytes) -> bytes:
        asked.append(request.decode("latin-1").splitlines())
        return OKAY

    with answering(reply) as place:
        bench.run("check", f"http://{place}")
        options = ["--group=release", "--header=host: example.com", "--header=X-Two: a"]
        url = f"http://ann:sword%20fish@{place}/up now?token=swordfish#x"
        run = bench.run("check", *options, "--header=X-Two:  b ", url)
        bench.run("check", "--header=authorization: Bearer swordfish", url)
    plain, rich, other = asked
    assert plain[0] == "GET /health_check HTTP/1.1"
    assert f"Host: {place}" in plain
    assert "Connection: close" in plain
    assert "Accept-Encoding: identity" in plain
    assert rich[0] == "GET /up%20now/release?token=swordfish HTTP/1.1"
    assert [line for line in rich if line.lower().startswith("host")] == ["host: example.com"]
    assert [line for line in rich if line.startswith("X-Two")] == ["X-Two: a", "X-Two: b"]
    assert "Authorization: Basic YW5uOnN3b3JkIGZpc2g=" in rich
    assert [line for line in other if line.lower().startswith("authorization")] == [
        "authorization: Bearer swordfish"
    ]
    assert run.code == 0
    assert run.out.startswith(f"OKAY  http://{place}/up%20now/release: ")
    assert "sword" not in run.out + run.err


def test_an_argument_that_is_not_utf8(bench: Bench) -> None:
    asked: list[bytes] = []

    def reply(request: bytes) -> bytes:
        asked.append(request)
        return answer(b"\xff")

    with answering(reply) as place:
        run = bench.run("check", "--expect", os.fsdecode(b"\xff"), f"http://{place}/\udcff")
    assert run.code == 0
    assert asked[0].startswith(b"GET /%FF HTTP/1.1")


def test_nobody_there_is_could_not_tell(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    run = bench.run("check", f"http://{place}")
    assert run.code == 2
    assert run.out.startswith(f"UNKNOWN  http://{place}/health_check: connection refused, in ")


def test_a_name_that_nobody_has(bench: Bench) -> None:
    run = bench.run("check", "--timeout=5", "http://no-such-host.invalid")
    assert run.code == 2
    assert run.out.startswith("UNKNOWN  http://no-such-host.invalid/health_check: ")
    for name in ("web..internal", f"{'x' * 64}.internal"):  # which no resolver is asked for
        run = bench.run("check", f"http://{name}")
        assert run.code == 2
        assert f"http://{name}/health_check: the host name can't be resolved" in run.out


def test_a_host_name_is_looked_up(bench: Bench) -> None:
    with answering(OKAY) as place:
        port = place.rpartition(":")[2]
        assert bench.run("check", f"http://localhost:{port}").code == 0


def test_a_unix_socket(bench: Bench) -> None:
    path = bench.folder / "app.sock"
    with answering(OKAY, unix_socket=path):
        for target in (f"unix:{path}", f"unix://{path}:/up"):
            run = bench.run("check", target)
            assert run.code == 0
        assert run.out.startswith(f"OKAY  unix:{path}:/up: 200 OKAY")
    path.unlink()
    run = bench.run("check", f"unix:{path}")
    assert run.code == 2
    assert "there is no such socket" in run.out


def test_the_next_address_of_a_name_is_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def two(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != "two.test":
            return real(host, port, *rest, **options)
        if options["flags"]:
            raise socket.gaierror
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with answering(OKAY) as place:
        port = place.rpartition(":")[2]
        assert bench.run("check", f"http://two.test:{port}").code == 0
    assert bench.run("check", f"http://two.test:{port}").code == 2


def test_a_black_hole_leaves_time_for_the_next_address(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def two(host: str, port: int, *rest: Any, **options: Any) -> Any:
        if host != "two.test":
            return real(host, port, *rest, **options)
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with answering(OKAY) as place, contextlib.ExitStack() as hole:
        port = int(place.rpartition(":")[2])
        hole.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(4):  # more than its queue holds: whoever comes next is not even refused
            client = hole.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
        assert bench.run("check", "--timeout=3", f"http://two.test:{port}").code == 0


def test_a_resolver_that_hangs_is_left_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def hang(host: str, port: int, **options: Any) -> Any:
        if not options["flags"]:
            over.wait(60)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    run = bench.run("check", "--timeout=0.3", "http://slow.test")
    over.set()
    assert run.code == 2
    assert "no connection in time" in run.out
    assert run.seconds < 30


def test_a_resolver_that_is_late(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(host: str, port: int, *_: Any, **__: Any) -> Any:
        time.sleep(0.3)
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", late)
    with answering(OKAY) as place:
        run = bench.run("check", "--timeout=0.2", f"http://{place}")
    assert run.code == 2
    assert "no connection in time" in run.out


def test_a_host_name_in_another_script(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def record(host: str, port: int, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", record)
    assert bench.run("check", "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.test").code == 2
    assert set(asked) == {"xn--bcher-kva.test"}


@contextlib.contextmanager
def _raw(greeting: bytes) -> Iterator[str]:
    """Accept one connection, say something at once or else reset it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            client, _ = listener.accept()
            with client:
                if greeting:
                    client.sendall(greeting)
                else:
                    client.recv(65536)
                    abort = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_connection_that_is_reset(bench: Bench) -> None:
    with _raw(b"") as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert "the connection was reset" in run.out


def test_tls_with_what_does_not_speak_it(bench: Bench) -> None:
    with _raw(b"220 mail.example.com ESMTP\r\n") as place:
        run = bench.run("check", f"https://{place}")
    assert run.code == 2
    assert f"https://{place}/health_check: TLS: wrong version number (does it speak TLS" in run.out


def test_a_socket_path_that_can_not_be(bench: Bench) -> None:
    run = bench.run("check", f"unix:/{'x' * 200}")
    assert run.code == 2
    assert "path too long" in run.out


def test_a_bug_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # White box: no input is known that brings this about, and waiting for ever would be the price.
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("healthmw.cli._target.HTTPTarget.observe", bug)
    with pytest.raises(ZeroDivisionError):
        bench.run("check", "http://localhost:1", "http://localhost:2")


def test_https(bench: Bench) -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    mine, other = bench.folder / "mine.pem", bench.folder / "other.pem"
    ca.cert_pem.write_to_path(mine)
    stranger.cert_pem.write_to_path(other)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    untrusted = "UNKNOWN  https://{}/health_check: TLS: the certificate is not to be trusted: "
    with answering(OKAY, tls=context) as place:
        run = bench.run("check", f"--cacert={mine}", f"https://{place}")
        assert run.code == 0
        assert run.out.startswith(f"OKAY  https://{place}/health_check: 200 OKAY")
        assert bench.run("check", "--insecure", f"https://{place}").code == 0
        for options in ([], [f"--cacert={other}"]):
            run = bench.run("check", *options, f"https://{place}")
            assert run.code == 2
            assert run.out.startswith(untrusted.format(place))
            assert "(give its CA with --cacert)" in run.out
        run = bench.run("check", f"--cacert={mine}", f"https://localhost:{place.split(':')[1]}")
        assert run.code == 2
        assert "Hostname mismatch" in run.out
        assert "--cacert" not in run.out, "its CA is known"


def test_several_targets_are_asked_at_once(bench: Bench) -> None:
    def slow(request: bytes) -> bytes:
        time.sleep(0.6)
        return OKAY

    with answering(slow) as one, answering(slow) as two, answering(slow) as three:
        run = bench.run("check", *(f"http://{place}" for place in (one, two, three)))
    assert run.code == 0
    assert run.out.count("OKAY  http") == 3
    assert run.seconds < 1.8


def test_one_bad_one_makes_it_bad(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with answering(OKAY) as well, answering(answer(b"FAILED", "503 No")) as sick:
        run = bench.run("check", f"http://{well}", nobody, f"http://{sick}")
        assert run.code == 1
        assert [line.split()[0] for line in run.out.splitlines()] == ["OKAY", "UNKNOWN", "FAILED"]
        assert bench.run("check", f"http://{well}", nobody).code == 2


def test_json(bench: Bench) -> None:
    with answering(answer(b"OKAY", "200 OK", "Health-Status: okay")) as place:
        run = bench.run("check", "--json", f"http://{place}")
    assert run.json["exit_status"] == 0
    (found,) = run.json["targets"]
    nobody = bench.run("check", "--json", f"http://{place}")
    assert nobody.json["exit_status"] == 2
    assert nobody.json["targets"][0]["verdict"] == "unknown"
    assert nobody.json["targets"][0]["answer"] is None
    assert 0 <= found.pop("seconds") < 30
    assert found == {
        "target": f"http://{place}/health_check",
        "verdict": "okay",
        "reason": "200 OKAY",
        "answer": {"status": 200, "body": "OKAY", "health": "okay", "release": None},
    }


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("gopher://ann:swordfish@db/app", "there is no probe for gopher://; known are amqp,"),
        (
            "postgresql://ann:swordfish@db:port/app",
            "postgresql://db:port/app: a DSN looks like postgresql://HOST:PORT",
        ),
        ("localhost:8000", "is not a target: give http://"),
        ("http://", "names no host"),
        ("http://ann:swordfish@host:99999/", "'http://host:99999/' is not a URL"),
        ("http://[::1/", "is not a URL"),
        ("http://ann:swordfish#1@host/", "'http://host/' is not a URL: "),
        ("http://ann:swordfish\N{ACCOUNT OF}@host/", "'http://host/' is not a URL: "),
        ("ann:swordfish@db:5432/app", "'***@db:5432/app' is not a target: give http://"),
        ("postgresql:/ann:swordfish@db/app?x=1", "'***@db/app' is not a target: give http://"),
        ("redis://db:port/0?password=sword@swordfish", "redis://***: "),
        ("redis://:sword?swordfish@db:port/0", "redis://***: "),
        ("unix:", "is not a Unix socket and a path"),
        ("unix:/run/x.sock:up", "is not a Unix socket and a path"),
    ],
)
def test_what_is_no_target(bench: Bench, target: str, said: str) -> None:
    run = bench.run("check", target)
    assert run.code == 2
    assert said in run.err
    assert "swordfish" not in run.err
    assert run.out == ""


@pytest.mark.parametrize("command", ["check", "wait", "watch"])
@pytest.mark.parametrize(
    "option",
    ["--header=X: swordfish", "--expect=OKAY", "--any-body", "--cacert=ca.pem", "--insecure"],
)
def test_an_option_for_http_is_refused_where_nothing_is_asked_by_it(
    bench: Bench, command: str, option: str
) -> None:
    for target in ("redis://:hush@localhost:1", "app:health"):
        run = bench.run(command, option, "http://localhost:1", target)
        assert run.code == 2
        shown = target.replace(":hush@", "")
        assert f"{command}: {option.partition('=')[0]} means nothing to {shown}," in run.err
        assert "hush" not in run.err
        assert "swordfish" not in run.err


@pytest.mark.parametrize("command", ["check", "wait", "watch"])
def test_a_dependency_has_no_groups(bench: Bench, command: str) -> None:
    run = bench.run(command, "--group=release", "redis://localhost:1")
    assert run.code == 2
    assert "--group means nothing to redis://localhost:1, a dependency: ask that" in run.err


def test_a_broken_pipe_is_not_a_failure(bench: Bench) -> None:
    with answering(OKAY) as place, bench.start("check", f"http://{place}") as check:
        assert check.stdout is not None
        check.stdout.close()
        assert check.stderr is not None
        assert check.stderr.read() == ""
    assert check.returncode == 0


def test_check_starts_without_what_it_does_not_need(bench: Bench) -> None:
    source = (
        "import sys; from healthmw.cli import main; code = main(sys.argv[1:]);"
        "print(*sys.modules); sys.exit(code)"
    )
    with answering(OKAY) as place:
        done = subprocess.run(
            [sys.executable, "-c", source, "check", f"http://{place}"],
            capture_output=True,
            text=True,
            check=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")},
        )
    loaded = set(done.stdout.split())
    heavy = {"anyio", "asyncio", "dataclasses", "inspect", "subprocess", "ctypes", "json", "queue"}
    assert "healthmw.cli._check" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize("command", ["check", "wait"])
def test_what_comes_before_the_answer_is_not_the_answer(bench: Bench, command: str) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    with answering(b"HTTP/1.1 100 Continue\r\n\r\n" + early + early + OKAY) as place:
        run = bench.run(command, "--timeout=1", f"http://{place}")
    assert run.code == 0, run.out
    with answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n") as place:
        run = bench.run(command, "--timeout=1", f"http://{place}")
    assert run.code == 1
    assert "101 Switching Protocols" in run.out


def test_nothing_but_early_hints_is_no_answer(bench: Bench) -> None:
    with answering(b"HTTP/1.1 103 Early Hints\r\n\r\n") as place:
        run = bench.run("check", f"http://{place}")
    assert run.code == 1
    assert "closed the connection without an answer" in run.out


@pytest.mark.parametrize("command", ["check", "wait", "watch"])
def test_what_can_not_be_asked_is_json_too(bench: Bench, command: str) -> None:
    words = [command, "--json", "no_such_module:health", "redis://:swordfish@cache:port"]
    run = bench.run(*words)
    assert run.code == 2
    assert "there is no module 'no_such_module'" in run.err
    assert run.json["exit_status"] == 2
    assert run.json["verdict"] == "unknown"
    assert "there is no module 'no_such_module'" in run.json["reason"]
    assert "swordfish" not in run.out + run.err


def test_a_port_of_0_is_none(bench: Bench) -> None:
    run = bench.run("check", "http://ann:swordfish@localhost:0/")
    assert run.code == 2
    assert "'http://localhost:0/': there is no port 0" in run.err
