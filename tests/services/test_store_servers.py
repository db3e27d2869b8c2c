"""The probes of Memcached, LDAP, mail and S3 against real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest
import trio
from botocore.config import Config
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from healthmw.cli import main
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import LDAPProbe, MemcachedProbe, S3Probe, SMTPProbe
from tests.probes.running import Runner
from tests.services.servers import PASSWORD, Server
from tests.services.store_servers import OTHER_NAME, S3, Mail, Memcached, Slapd
from tests.waiting import foreign_threads, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from healthmw._probe import Probe

PATIENCE = 20.0

Lend = Any  # the fixture `lend`, whose type says less than its use


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def fails(run: Runner, probe: Probe) -> str:
    with pytest.raises(ProbeFailedError) as info:
        run.outcome(probe)
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return str(info.value)


def hangs(run: Runner, probe: Probe, server: Server) -> None:
    """See that a frozen server is a timeout, that leaves no thread behind, and then forgotten."""
    threads = foreign_threads()
    server.pause()
    for _ in range(2):
        with pytest.raises(ProbeTimeoutError):
            run(probe)
    server.resume()
    until_sync(server.ready)
    assert foreign_threads() <= threads
    run(probe)


# Memcached

MEMCACHED: dict[str, Callable[[Memcached], Any]] = {
    "address": lambda server: server.address,
    "url": lambda server: f"memcached://{server.address}/",
    "client": lambda server: Client(server.address, key_prefix=b"shop:"),
    "pool": lambda server: PooledClient(server.address, max_pool_size=1),
    "hash": lambda server: HashClient([("127.0.0.1", server.port)], use_pooling=True),
}


@pytest.fixture
def memcached(lend: Lend) -> Memcached:
    server: Memcached = lend(Memcached)
    return server


def stats(server: Memcached) -> dict[bytes, Any]:
    client = Client(server.address, timeout=PATIENCE)
    try:
        found: dict[bytes, Any] = client.stats()
        return found
    finally:
        client.close()


@pytest.mark.parametrize("kind", MEMCACHED)
@pytest.mark.parametrize("mode", ["roundtrip", "ping"])
def test_memcached_is_well_over_one_connection(
    kind: str, mode: Any, memcached: Memcached, run: Runner
) -> None:
    before = stats(memcached)
    target = MEMCACHED[kind](memcached)
    probe = MemcachedProbe(target, mode=mode, timeout=PATIENCE)
    for _ in range(5):
        assert run(probe)["servers"] == 1
    run.together(probe, 10)
    after = stats(memcached)
    # Of these, each call of stats() made one.
    assert after[b"total_connections"] - before[b"total_connections"] == 2
    assert after[b"curr_items"] == 0
    assert after[b"cmd_set"] - before[b"cmd_set"] == (15 if mode == "roundtrip" else 0)
    run.close_probe(probe)
    until_sync(lambda: stats(memcached)[b"curr_connections"] < after[b"curr_connections"])
    run(probe)


@pytest.mark.parametrize("kind", MEMCACHED)
def test_memcached_comes_and_goes(kind: str, memcached: Memcached, run: Runner) -> None:
    probe = MemcachedProbe(MEMCACHED[kind](memcached), timeout=1.0)
    run(probe)
    memcached.restart()
    run(probe)  # the restart goes unnoticed
    memcached.kill()
    assert f"{memcached.address}: ConnectionRefusedError" in fails(run, probe)
    memcached.start()
    run(probe)


def test_memcached_hangs(memcached: Memcached, run: Runner) -> None:
    probe = MemcachedProbe(memcached.address, timeout=0.3)
    run(probe)
    hangs(run, probe, memcached)


def test_one_of_two_servers_is_degraded_and_none_is_failed(
    memcached: Memcached, run: Runner
) -> None:
    for target in (
        f"memcached://127.0.0.1:1,{memcached.address}",
        HashClient([("127.0.0.1", 1), ("127.0.0.1", memcached.port)]),
    ):
        probe = MemcachedProbe(target)
        complaint, measured = run.outcome(probe)
        assert str(complaint).startswith("127.0.0.1:1: ConnectionRefusedError")
        assert measured["servers"] == 1
    assert "127.0.0.1:1: " in fails(run, MemcachedProbe("memcached://127.0.0.1:1,127.0.0.1:2"))


# LDAP


@pytest.fixture
def slapd(lend: Lend) -> Slapd:
    server: Slapd = lend(Slapd)
    return server


def test_ldap_binds(slapd: Slapd, run: Runner) -> None:
    login: Any = {"bind_dn": slapd.bind_dn, "password": PASSWORD}
    probes = [
        LDAPProbe(slapd.url(), timeout=PATIENCE),
        LDAPProbe(slapd.url(), **login, clear_text=True, timeout=PATIENCE),
        LDAPProbe(slapd.url(), **login, starttls=True, verify=slapd.trust, timeout=PATIENCE),
        LDAPProbe(slapd.url(tls=True), **login, verify=slapd.trust, timeout=PATIENCE),
        LDAPProbe(slapd.url(tls=True), **login, verify=False, timeout=PATIENCE),
    ]
    for probe in probes:
        assert set(run(probe)) == {"latency_seconds"}
        run.together(probe, 3)
        trio.run(probe)


@pytest.mark.parametrize("tls", [False, True])
def test_ldap_refuses(tls: bool, slapd: Slapd, run: Runner) -> None:
    login: Any = {"bind_dn": slapd.bind_dn, "password": f"not-{PASSWORD}"}
    url, trust = slapd.url(tls=tls), slapd.trust
    probe = LDAPProbe(url, **login, starttls=not tls, verify=trust)
    assert fails(run, probe) == "the bind was refused: invalid credentials"
    stranger = LDAPProbe(url, **login, starttls=not tls)
    assert "TLS failed: " in fails(run, stranger)
    assert "certificate verify failed" in fails(run, stranger)
    misnamed = LDAPProbe(url.replace("127.0.0.1", OTHER_NAME), starttls=not tls, verify=trust)
    assert "certificate is not valid for" in fails(run, misnamed)
    slapd.kill()
    assert "can't connect: " in fails(run, probe)
    slapd.start()
    assert "invalid DN syntax" in fails(
        run, LDAPProbe(url, bind_dn="admin", password="x", starttls=not tls, verify=trust)
    )


@pytest.mark.parametrize("tls", [False, True])
def test_ldap_hangs(tls: bool, slapd: Slapd, run: Runner) -> None:
    hangs(run, LDAPProbe(slapd.url(tls=tls), verify=not tls or slapd.trust, timeout=0.3), slapd)


# Mail


@pytest.fixture
def mail(lend: Lend) -> Mail:
    server: Mail = lend(Mail)
    return server


def test_mail_is_well(mail: Mail, run: Runner) -> None:
    login: Any = {"username": "app", "password": PASSWORD, "verify": mail.trust}
    probes = [
        SMTPProbe("127.0.0.1", mail.port, timeout=PATIENCE),
        SMTPProbe("127.0.0.1", mail.port, starttls=True, verify=mail.trust, timeout=PATIENCE),
        SMTPProbe("127.0.0.1", mail.port, starttls=True, **login, timeout=PATIENCE),
        SMTPProbe("127.0.0.1", mail.tls_port, tls=True, **login, timeout=PATIENCE),
        SMTPProbe("127.0.0.1", mail.tls_port, tls=True, verify=False, timeout=PATIENCE),
    ]
    for probe in probes:
        assert set(run(probe)) == {"latency_seconds"}
        run.together(probe, 3)
        trio.run(probe)


@pytest.mark.parametrize("tls", [False, True])
def test_mail_refuses(tls: bool, mail: Mail, run: Runner) -> None:
    login: Any = {"username": "app", "password": f"not-{PASSWORD}"}
    port = mail.tls_port if tls else mail.port
    probe = SMTPProbe(
        "127.0.0.1", port, tls=tls, starttls=not tls, **login, verify=mail.trust, timeout=PATIENCE
    )
    assert "the answer to the login is 535" in fails(run, probe)
    stranger = SMTPProbe("127.0.0.1", port, tls=tls, starttls=not tls)
    assert "certificate verify failed" in fails(run, stranger)
    misnamed = SMTPProbe(OTHER_NAME, port, tls=tls, starttls=not tls, verify=mail.trust)
    assert "certificate is not valid for" in fails(run, misnamed)
    mail.kill()
    assert "can't connect" in fails(run, probe)
    mail.start()
    assert "535" in fails(run, probe)


@pytest.mark.parametrize("tls", [False, True])
def test_mail_hangs(tls: bool, mail: Mail, run: Runner) -> None:
    port = mail.tls_port if tls else mail.port
    verify = not tls or mail.trust
    hangs(run, SMTPProbe("127.0.0.1", port, tls=tls, verify=verify, timeout=0.3), mail)


# S3


@pytest.fixture
def bucket(lend: Lend) -> Iterator[tuple[S3, Any]]:
    server = lend(S3)
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="app",
        aws_secret_access_key=PASSWORD,
        config=Config(max_pool_connections=1),
    )
    client.create_bucket(Bucket="shop")
    yield server, client
    client.close()


def test_a_bucket(bucket: tuple[S3, Any], run: Runner) -> None:
    server, client = bucket
    probe = S3Probe("shop", client=client, timeout=PATIENCE)
    for _ in range(5):
        assert set(run(probe)) == {"latency_seconds"}
    run.together(probe, 10)
    assert fails(run, S3Probe("other", client=client)) == (
        "the bucket other answers with status 404: it does not exist"
    )
    run.close_probe(probe)
    run(probe)
    hangs(run, S3Probe("shop", client=client, timeout=0.3), server)
    server.kill()
    assert "ConnectionRefusedError" in fails(run, probe)
    server.start()  # it has lost its buckets
    assert "it does not exist" in fails(run, probe)


def test_a_bucket_without_credentials(
    bucket: tuple[S3, Any], run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    client = boto3.Session().client("s3", endpoint_url=bucket[0].url, region_name="us-east-1")
    assert "can't be signed: Unable to locate credentials" in fails(
        run, S3Probe("shop", client=client)
    )
    client.close()


# The command line


def test_by_their_urls(
    lend: Lend,
    bucket: tuple[S3, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket[0].url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "app")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    memcached, slapd, mail = lend(Memcached), lend(Slapd), lend(Mail)
    urls = [
        f"memcached://{memcached.address}",
        slapd.url(),
        f"smtp://127.0.0.1:{mail.port}",
        "s3://shop",
    ]
    assert main(["wait", "--timeout=45", *urls]) == 0
    assert PASSWORD not in "".join(capsys.readouterr())
