"""Where `healthmw smoke` starts a server and asks it: ports, sockets, HTTPS, Procfiles."""

from __future__ import annotations

import shlex
import socket
import sys
from typing import TYPE_CHECKING

import pytest
import trustme

if TYPE_CHECKING:
    from tests.cli.servers import Bench


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_port_of_ones_own(bench: Bench) -> None:
    port = _free_port()
    run = bench.smoke("serve()", f"--port={port}")
    assert run.code == 0
    assert f"http://127.0.0.1:{port}/health_check" in run.out


def test_a_port_that_is_taken_before_the_start(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        run = bench.smoke("(here / 'started').write_text('yes'); serve()", f"--port={port}")
    assert run.code == 2
    assert f"port {port} is taken before the start: something else would answer there" in run.err
    assert run.out == ""
    assert not (bench.folder / "started").exists()


def test_all_addresses_are_asked_at_the_loopback(bench: Bench) -> None:
    run = bench.smoke("serve()", "--host=0.0.0.0")
    assert run.code == 0
    assert "http://127.0.0.1:" in run.out


def test_a_host_that_is_not_here(bench: Bench) -> None:
    run = bench.smoke("serve()", "--host=192.0.2.1")
    assert run.code == 2
    assert "--host 192.0.2.1: no free port can be found there" in run.err


def test_ipv6(bench: Bench) -> None:
    run = bench.smoke(
        """
        place = ("::1", int(os.environ["PORT"]))
        serve(listener=socket.create_server(place, family=socket.AF_INET6))
        """,
        "--host=::1",
    )
    assert run.code == 0
    assert "http://[::1]:" in run.out


_UNIX = """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(here / "app.sock"))
    listener.listen()
    serve(listener=listener)
"""


def test_a_unix_socket(bench: Bench) -> None:
    path = bench.folder / "app.sock"
    run = bench.smoke(_UNIX, f"--unix-socket={path}")
    assert run.code == 0
    assert f"unix:{path}:/health_check is well" in run.out


def test_a_unix_socket_that_is_taken(bench: Bench) -> None:
    path = bench.folder / "app.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        run = bench.smoke(_UNIX, f"--unix-socket={path}")
    assert run.code == 2
    assert f"{path} is taken before the start" in run.err


_TLS = """
    import ssl
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(here / "server.pem")
    plain = listen()
    while True:
        client, _ = plain.accept()
        try:
            with context.wrap_socket(client, server_side=True) as secure:
                secure.recv(65536)
                secure.sendall(answer())
        except OSError:
            pass  # the client did not like the certificate
"""


def test_https_with_a_private_ca(bench: Bench) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(bench.folder / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        bench.folder / "server.pem"
    )
    https = "--scheme=https"
    run = bench.smoke(_TLS, https, f"--cacert={bench.folder / 'ca.pem'}")
    assert run.code == 0
    assert "https://127.0.0.1:" in run.out

    run = bench.smoke(_TLS, https, "--insecure")
    assert run.code == 0

    run = bench.smoke(_TLS, https, timeout="3")
    assert run.code == 1
    assert "TLS: the certificate is not to be trusted: " in run.out
    assert "Nobody listens there" not in run.out


def test_a_ca_file_that_is_none(bench: Bench) -> None:
    (bench.folder / "ca.pem").write_text("no certificate")
    for file in ("ca.pem", "nowhere.pem"):
        run = bench.smoke("serve()", "--scheme=https", f"--cacert={file}")
        assert run.code == 2
        assert f"--cacert {file}: no certificates can be read from it" in run.err


def test_procfile(bench: Bench) -> None:
    command = shlex.join(
        bench.script("(here / 'argv').write_text(sys.argv[1]); serve()"),
    )
    (bench.folder / "Procfile").write_text(
        "# web: echo a comment\n"
        "release: healthmw smoke --procfile\r\n"
        "\n"
        "not a process line\n"
        f'web:   MODE=trial exec {command} "$PORT $MODE"\r\n'
        f"other-one: API_TOKEN=swordfish {command} other\n"
    )
    run = bench.run("smoke", "--procfile")
    assert run.code == 0
    port = run.out.partition("127.0.0.1:")[2].partition("/")[0]
    assert bench.wait_for("argv") == f"{port} "

    (bench.folder / "Procfile").rename(bench.folder / "My.procfile")
    run = bench.run("smoke", "--procfile", "My.procfile", "--process", "other-one")
    assert run.code == 0
    assert bench.wait_for("argv") == "other"
    assert "Starting  API_TOKEN=*** " in run.err
    assert "swordfish" not in run.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "Procfile can't be read: No such file or directory"),
        ("", "Procfile has no process 'web'; it has nothing"),
        (
            "worker: x\nrelease: y\n",
            "no process 'web'; it has worker, release: choose with --process",
        ),
        ("#web: x\nwebb: y\n", "it has webb"),
        ("web: x\nweb: y\n", "Procfile has the process 'web' 2 times: leave one"),
        ("web:\n", "Procfile has no process 'web'"),
    ],
)
def test_a_procfile_without_the_process(bench: Bench, text: str | None, said: str) -> None:
    if text is not None:
        (bench.folder / "Procfile").write_text(text)
    run = bench.run("smoke", "--procfile")
    assert run.code == 2
    assert said in run.err


def test_a_procfile_that_is_not_text(bench: Bench) -> None:
    (bench.folder / "Procfile").write_bytes(b"web: \xff\xfe\n")
    run = bench.run("smoke", "--procfile")
    assert run.code == 2
    assert "it is not UTF-8 text" in run.err


def test_a_procfile_line_whose_command_is_missing(bench: Bench) -> None:
    (bench.folder / "Procfile").write_text("web: no-such-command-anywhere --port $PORT\n")
    run = bench.run("smoke", "--procfile")
    assert run.code == 2
    assert "UNKNOWN  the shell could not find or run the command (exit status 127)" in run.out
    assert "no-such-command-anywhere" in run.out


def test_a_release_line_that_starts_itself_stops_at_once(bench: Bench) -> None:
    smoke = shlex.join([sys.executable, "-m", "healthmw", "smoke", "--procfile"])
    (bench.folder / "Procfile").write_text(f"release: {smoke} --process release\n")
    run = bench.run("smoke", "--procfile", "--process", "release")
    assert run.code == 1
    assert "exit status 2" in run.out
    assert "a smoke test within a smoke test" in run.out


def test_command_not_found(bench: Bench) -> None:
    run = bench.run("smoke", "--", "no-such-command-anywhere")
    assert run.code == 2
    assert "healthmw smoke: command not found: no-such-command-anywhere" in run.err


def test_a_command_that_is_not_executable(bench: Bench) -> None:
    file = bench.folder / "start"
    file.write_text("#!/bin/sh\n")
    run = bench.run("smoke", "--", str(file))
    assert run.code == 2
    assert "the command may not be executed" in run.err
    file.write_text("neither a script nor a program\n")
    file.chmod(0o755)
    run = bench.run("smoke", "--", str(file))
    assert run.code == 2
    assert "can't be started" in run.err
