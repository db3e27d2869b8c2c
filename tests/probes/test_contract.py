"""The contract of probes, for each that needs no server of its own kind. A new one adds its line.

Those that talk to real servers are in `tests/services/test_contract.py`.
"""

from __future__ import annotations

import contextlib
import ssl
from tempfile import gettempdir
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import trustme

from healthmw.probes import (
    CertificateProbe,
    ClockProbe,
    DirectoryProbe,
    DiskProbe,
    DNSProbe,
    EventLoopProbe,
    FileDescriptorProbe,
    HeartbeatProbe,
    HTTPProbe,
    Latch,
    LoadProbe,
    MemoryProbe,
    SettingsProbe,
    SQLAlchemyProbe,
    TCPProbe,
    beat,
)
from healthmw.testing import check_probe
from tests.fakes import FakeServer, http, silent
from tests.probes.time_server import TimeServer
from tests.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from healthmw._probe import Probe

PASSWORD = "s3cr3t/b4it"

OKAY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"

backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A relay to an HTTP server that says OK."""
    with FakeServer(http(OKAY)) as server, Relay(server.port) as relay:
        yield relay


@backends
def test_http(relay: Relay, backend: str) -> None:
    url = f"http://app:s3cr3t%2Fb4it@127.0.0.1:{relay.port}/?token={PASSWORD}"
    check_probe(
        lambda: HTTPProbe(url, headers={"Authorization": PASSWORD}, timeout=1),
        rounds=10,
        down=relay.down,
        hangs=relay.hangs,
        within=20,
        secrets=[PASSWORD],
        backend=backend,
    )


def latch() -> Latch:
    made = Latch("model")
    made.set("model")
    return made


# Probes that ask this machine, and for which there is nothing to wait: they need no relay.
LOCAL: dict[str, Callable[[], Probe]] = {
    "DirectoryProbe": lambda: DirectoryProbe(gettempdir()),
    "DiskProbe": DiskProbe,
    "FileDescriptorProbe": FileDescriptorProbe,
    "LoadProbe": LoadProbe,
    "MemoryProbe": lambda: MemoryProbe(failed_above=None),
    "SettingsProbe": lambda: SettingsProbe(["SECRET"], source={"SECRET": PASSWORD}),
    "sqlite": lambda: SQLAlchemyProbe(sa.create_engine("sqlite://", poolclass=sa.NullPool)),
    # Not aiosqlite: a connection that is cancelled while it opens is left to the garbage collector.
}


@pytest.mark.parametrize("make", LOCAL.values(), ids=LOCAL)
def test_local(make: Callable[[], Probe]) -> None:
    check_probe(make, secrets=[PASSWORD])


@backends
def test_tcp(relay: Relay, backend: str) -> None:
    check_probe(lambda: TCPProbe("127.0.0.1", relay.port), down=relay.down, backend=backend)


@backends
@pytest.mark.parametrize(
    "make", [latch, EventLoopProbe, lambda: DNSProbe("localhost")], ids=["latch", "loop", "dns"]
)
def test_local_async(make: Callable[[], Probe], backend: str) -> None:
    check_probe(make, backend=backend)


def test_heartbeat(tmp_path: Path) -> None:
    path = tmp_path / "worker"
    beat(path)

    @contextlib.contextmanager
    def down() -> Iterator[None]:
        path.unlink()
        yield
        beat(path)

    check_probe(lambda: HeartbeatProbe(path, 3600), down=down)


@backends
def test_certificate(backend: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FakeServer(silent, tls=context) as server, Relay(server.port) as relay:
        check_probe(
            lambda: CertificateProbe(
                "127.0.0.1", relay.port, cafile=tmp_path / "ca.pem", timeout=1
            ),
            down=relay.down,
            hangs=relay.hangs,
            within=20,
            backend=backend,
        )


@backends
def test_clock(backend: str) -> None:
    with TimeServer() as server:
        check_probe(
            lambda: ClockProbe("127.0.0.1", port=server.port, timeout=1),
            hangs=server.hangs,
            within=20,
            backend=backend,
        )
