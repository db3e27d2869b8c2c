"""Probes of what lies between machines: names, certificates, clocks."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from healthmw import Degraded
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import CertificateProbe, ClockProbe, DNSProbe
from tests.fakes import FakeServer, full_listener, silent
from tests.probes.time_server import TimeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

PATIENT = 20.0

# Names


async def test_a_name_that_resolves() -> None:
    probe = DNSProbe("localhost", expect=["127.0.0.0/8", "::1"], timeout=PATIENT)
    found = await probe()
    assert set(found) == {"latency_seconds", "addresses"}
    assert int(found["addresses"]) >= 1
    assert repr(probe) == "<DNSProbe localhost>"
    await DNSProbe("localhost", timeout=PATIENT)()


async def test_a_name_that_leads_elsewhere() -> None:
    probe = DNSProbe("localhost", expect=["10.0.0.1"], timeout=PATIENT)
    with pytest.raises(ProbeFailedError, match=r"localhost resolves to .*, which is not expected"):
        await probe()


async def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(ProbeFailedError, match=r"can't resolve nowhere\.invalid"):
        await DNSProbe("nowhere.invalid", timeout=PATIENT)()


async def test_a_resolver_that_hangs_holds_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    asked = []

    def hang(*args: Any) -> list[Any]:
        asked.append(args)
        answers.wait(PATIENT)
        return [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    probe = DNSProbe("slow.example", timeout=0.05)
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(ProbeTimeoutError, match=r"slow\.example was not resolved within 0\.05"):
            await probe()
    assert threading.active_count() <= before + 1
    assert len(asked) == 1
    answers.set()
    found = await DNSProbe("slow.example", expect=["192.0.2.1"], timeout=PATIENT)()
    assert found["addresses"] == 1


# Certificates

HOST = "shop.test"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def cafile(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@contextmanager
def serving(certificate: trustme.LeafCert) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with FakeServer(silent, tls=context) as server:
        yield server.port


def valid_for(authority: trustme.CA, days: float, name: str = HOST) -> trustme.LeafCert:
    now = datetime.now(UTC)
    return authority.issue_cert(
        name, not_before=now - timedelta(days=90), not_after=now + timedelta(days=days)
    )


def certificate_probe(port: int, cafile: Path | None, **options: Any) -> CertificateProbe:
    given: dict[str, Any] = {"server_name": HOST, "timeout": PATIENT, "cafile": cafile}
    return CertificateProbe("127.0.0.1", port, **given | options)


async def not_trusted(shown: trustme.LeafCert, cafile: Path | None, why: str) -> None:
    with serving(shown) as port, pytest.raises(ProbeFailedError, match=f"to be trusted: {why}"):
        await certificate_probe(port, cafile)()


async def test_a_certificate_that_is_well(authority: trustme.CA, cafile: Path) -> None:
    with serving(valid_for(authority, 60)) as port:
        probe = certificate_probe(port, cafile)
        found = await probe()
        assert isinstance(found, dict)
        assert 59 < found["days_left"] < 61
        assert found["latency_seconds"] > 0
        assert repr(probe) == f"<CertificateProbe 127.0.0.1:{port}>"


async def test_one_that_expires_soon(authority: trustme.CA, cafile: Path) -> None:
    with serving(valid_for(authority, 10.5)) as port:
        found = await certificate_probe(port, cafile)()
        assert isinstance(found, Degraded)
        assert found.detail == "the certificate expires in 10.5 days"
        assert 10 < float(found.measurements["days_left"]) < 11
        with pytest.raises(ProbeFailedError, match=r"the certificate expires in 10\.5 days"):
            await certificate_probe(port, cafile, failed_below=14)()
        assert isinstance(await certificate_probe(port, cafile, degraded_below=None)(), dict)


async def test_one_that_has_expired(authority: trustme.CA, cafile: Path) -> None:
    await not_trusted(valid_for(authority, -1), cafile, "certificate has expired")


async def test_one_for_another_host(authority: trustme.CA, cafile: Path) -> None:
    mismatch = r"Hostname mismatch.*'shop\.test'"
    await not_trusted(valid_for(authority, 60, "other.test"), cafile, mismatch)


async def test_one_of_an_authority_that_nobody_here_knows(authority: trustme.CA) -> None:
    await not_trusted(valid_for(authority, 60), None, "unable to get local issuer certificate")


async def test_one_that_signed_itself(authority: trustme.CA, cafile: Path) -> None:
    await not_trusted(self_signed(), cafile, "self-signed certificate")


def self_signed() -> trustme.LeafCert:
    """Make a certificate that is its own issuer."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=60))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return trustme.LeafCert(secret, certificate.public_bytes(pem), [])


async def test_a_server_without_tls(cafile: Path) -> None:
    def hello(client: socket.socket, _: threading.Event) -> None:
        client.sendall(b"220 mail.test ESMTP\r\n" * 20)
        silent(client, _)

    with FakeServer(hello) as server:
        with pytest.raises(ProbeFailedError, match="no TLS handshake: "):
            await certificate_probe(server.port, cafile)()
        server.wait_until_left()


async def test_a_server_that_says_nothing(cafile: Path) -> None:
    with FakeServer(silent) as server:
        with pytest.raises(ProbeTimeoutError, match=r"no TLS handshake within 0\.2 s"):
            await certificate_probe(server.port, cafile, timeout=0.2)()
        server.wait_until_left()
    with pytest.raises(ProbeFailedError, match=r"^can't connect: "):
        await certificate_probe(server.port, cafile)()
    with full_listener() as port, pytest.raises(ProbeTimeoutError):
        await certificate_probe(port, cafile, timeout=0.2)()


# Clocks


async def test_a_clock_that_is_right() -> None:
    with TimeServer(chatter=True) as server:
        probe = ClockProbe("127.0.0.1", port=server.port, degraded_above=PATIENT, timeout=PATIENT)
        found = await probe()
        assert isinstance(found, dict)
        assert set(found) == {"offset_seconds", "latency_seconds"}
        assert abs(found["offset_seconds"]) < PATIENT
        assert repr(probe) == "<ClockProbe 127.0.0.1>"


@pytest.mark.parametrize(("ahead", "side"), [(25.0, "behind"), (-25.0, "ahead of")])
async def test_a_clock_that_is_wrong(ahead: float, side: str) -> None:
    with TimeServer(ahead=ahead) as server:
        found = await ClockProbe("127.0.0.1", port=server.port, timeout=PATIENT)()
        assert isinstance(found, Degraded)
        assert found.detail.endswith(f" s {side} that of 127.0.0.1")
        assert 0 < float(found.measurements["offset_seconds"]) / ahead < 2
        with pytest.raises(ProbeFailedError, match=f"the clock is .* s {side} that of"):
            await ClockProbe("127.0.0.1", port=server.port, timeout=PATIENT, failed_above=2)()


async def test_a_clock_in_another_era(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 15 * 365 * 86400)  # NTP's wraps in 2036
    with TimeServer() as server:
        found = await ClockProbe(
            "127.0.0.1", port=server.port, degraded_above=PATIENT, timeout=PATIENT
        )()
    assert isinstance(found, dict)


@pytest.mark.parametrize("wrong", [{"stratum": 0}, {"stratum": 16}, {"first": 0xE4}, {"first": 35}])
async def test_a_server_that_does_not_know_the_time(wrong: dict[str, int]) -> None:
    unknown = pytest.raises(ProbeFailedError, match="says that it does not know the time itself")
    with TimeServer(**wrong) as server, unknown:
        await ClockProbe("127.0.0.1", port=server.port, timeout=PATIENT)()


async def test_a_time_server_that_does_not_answer() -> None:
    late = pytest.raises(ProbeTimeoutError, match=r"no time within 0\.1 s")
    with TimeServer(silent=True) as server, late:
        await ClockProbe("127.0.0.1", port=server.port, timeout=0.1)()
    with pytest.raises(ProbeFailedError):  # refused, or nothing at all
        await ClockProbe("127.0.0.1", port=server.port, timeout=0.5)()


@pytest.mark.parametrize("silent", [False, True])
async def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*_: Any) -> list[Any]:
        addresses = ["::1", "127.0.0.1"]
        return [(0, socket.SOCK_DGRAM, 17, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with TimeServer() as server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        if silent:
            other.bind(("::1", server.port))
        found = await ClockProbe(
            "time.example", port=server.port, degraded_above=PATIENT, timeout=4.0
        )()
    assert isinstance(found, dict)


def test_the_time_is_known_while_the_apps_threads_are_all_busy() -> None:
    class NoneIsFree(ThreadPoolExecutor):
        def submit(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("this would wait for a thread")

    async def main() -> object:
        asyncio.get_running_loop().set_default_executor(NoneIsFree())
        return await ClockProbe("127.0.0.1", port=server.port, timeout=PATIENT)()

    with TimeServer() as server:
        assert asyncio.run(main())


# Options

WRONG: Any = "443"


@pytest.mark.parametrize(
    ("make", "error", "complaint"),
    [
        (lambda: DNSProbe(""), ValueError, "name must not be empty"),
        (lambda: DNSProbe("x", expect=["db"]), ValueError, "expect: 'db' does not appear"),
        (lambda: DNSProbe("x", expect="10.0.0.1"), TypeError, r"write \['10.0.0.1'\]"),
        (lambda: DNSProbe("x", timeout=0), ValueError, "timeout=.* must be"),
        (lambda: CertificateProbe(""), ValueError, "host must not be empty"),
        (lambda: CertificateProbe("x", 0), ValueError, "port=0 must be 1 or more"),
        (lambda: CertificateProbe("x", WRONG), ValueError, "port must be a whole number, not str"),
        (
            lambda: CertificateProbe("x", cafile="/nope.pem"),
            ValueError,
            "cafile.*'/nope.pem'.*No su",
        ),
        (lambda: CertificateProbe("x", cafile=__file__), ValueError, "cafile: .*test_network"),
        (lambda: CertificateProbe("x", failed_below=30), ValueError, "degraded_below=21 is less"),
        (lambda: CertificateProbe("x", timeout=-1), ValueError, "timeout=.* must be"),
        (lambda: ClockProbe(""), ValueError, "server must not be empty"),
        (lambda: ClockProbe("x", port=65536), ValueError, "port=65536 must be 65535 or less"),
        (lambda: ClockProbe("x", port=WRONG), ValueError, "port must be a whole number, not str"),
        (lambda: ClockProbe("x", failed_above=0.5), ValueError, r"degraded_above=1\.0 is more"),
    ],
)
def test_bad_options(make: Callable[[], object], error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        make()
