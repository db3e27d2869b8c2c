"""The probes of Memcached, LDAP, mail, S3 and Elasticsearch: options, and bad servers."""

from __future__ import annotations

import json
import socket
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import httpx2
import pytest
import trio
from botocore.config import Config
from pymemcache.client.base import Client

from healthmw._probe import is_async
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import ElasticsearchProbe, LDAPProbe, MemcachedProbe, S3Probe, SMTPProbe
from tests.fakes import FakeServer, drip, full_listener, garbage, http, receive, reset, silent
from tests.waiting import foreign_threads

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from healthmw._probe import Probe
    from tests.probes.running import Runner

PASSWORD = "s3cr3t-b4it"


def s3(port: int, **options: Any) -> S3Probe:
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="eu-central-1",
        aws_access_key_id="app",
        aws_secret_access_key=PASSWORD,
    )
    return S3Probe("shop", client=client, **options)


MAKE: dict[str, Callable[..., Probe]] = {
    "memcached": lambda port, **options: MemcachedProbe(f"127.0.0.1:{port}", **options),
    "memcached ping": lambda port, **options: MemcachedProbe(
        Client(("127.0.0.1", port)), mode="ping", **options
    ),
    "ldap": lambda port, **options: LDAPProbe(
        f"ldap://cn%3Dapp:{PASSWORD}@127.0.0.1:{port}", clear_text=True, **options
    ),
    "ldap starttls": lambda port, **options: LDAPProbe(
        f"ldap://127.0.0.1:{port}", bind_dn="cn=app", password=PASSWORD, starttls=True, **options
    ),
    "ldaps": lambda port, **options: LDAPProbe(f"ldaps://127.0.0.1:{port}", **options),
    "smtp": lambda port, **options: SMTPProbe("127.0.0.1", port, **options),
    "smtps": lambda port, **options: SMTPProbe(
        "127.0.0.1", port, tls=True, username="app", password=PASSWORD, **options
    ),
    "s3": s3,
    "elasticsearch": lambda port, **options: ElasticsearchProbe(
        f"http://app:{PASSWORD}@127.0.0.1:{port}", **options
    ),
}

each = pytest.mark.parametrize("kind", MAKE)


def fails(run: Runner, probe: Probe) -> str:
    with pytest.raises(ProbeFailedError) as info:
        run.outcome(probe)
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return str(info.value)


@each
@pytest.mark.parametrize(
    "talk",
    [silent, garbage, reset, drip(b"2"), drip(b"220-\r\n", 0.02), drip(b"HTTP/1.1 200 OK\r\nA: b")],
    ids=["silent", "garbage", "reset", "drip", "lines", "http"],
)
def test_a_server_that_is_no_server(kind: str, talk: Any, run: Runner) -> None:
    threads = foreign_threads()
    with FakeServer(talk) as server:
        probe = MAKE[kind](server.port, timeout=0.1)
        for _ in range(2):
            started = time.monotonic()
            fails(run, probe)
            assert time.monotonic() - started < 10
        if hasattr(probe, "aclose"):
            run.close_probe(probe)
        server.wait_until_left()
    assert foreign_threads() <= threads


@each
def test_a_server_that_accepts_nothing(kind: str, run: Runner) -> None:
    with full_listener() as port, pytest.raises(ProbeTimeoutError):
        run(MAKE[kind](port, timeout=0.1))


@each
def test_nothing_listens(kind: str, run: Runner) -> None:
    assert "efused" in fails(run, MAKE[kind](1)) or "111" in fails(run, MAKE[kind](1))


@pytest.mark.parametrize(
    "probe",
    [
        LDAPProbe("ldap://nowhere.invalid"),
        SMTPProbe("nowhere.invalid"),
        ElasticsearchProbe("http://nowhere.invalid"),
        MemcachedProbe("nowhere.invalid:1"),
    ],
    ids=repr,
)
def test_a_name_that_does_not_resolve(probe: Probe, run: Runner) -> None:
    told = fails(run, probe)
    assert "nowhere.invalid" in told


# Memcached


def memcached(answers: dict[bytes, bytes]) -> Any:
    def talk(client: socket.socket, _stop: threading.Event) -> None:
        while asked := receive(client, b"\r\n"):
            client.sendall(answers.get(asked.split()[0], b"ERROR\r\n"))

    return talk


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({b"set": b"STORED\r\n", b"get": b"END\r\n"}, "what was read back is not what was written"),
        ({b"set": b"NOT_STORED\r\n"}, "what was read back is not what was written"),
        ({b"set": b"SERVER_ERROR out of memory storing object\r\n"}, "out of memory"),
    ],
)
def test_a_memcached_that_keeps_nothing(
    answers: dict[bytes, bytes], told: str, run: Runner
) -> None:
    with FakeServer(memcached(answers)) as server:
        assert told in fails(run, MemcachedProbe(f"127.0.0.1:{server.port}"))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("cache", "cache:11211"),
        ("memcached://one:1,[::1]:2", "one:1,::1:2"),
        ("/run/memcached.sock", "/run/memcached.sock"),
        ("memcached:///run/memcached.sock", "/run/memcached.sock"),
    ],
)
def test_memcached_addresses(target: str, shown: str) -> None:
    assert repr(MemcachedProbe(target)) == f"<MemcachedProbe {shown}>"


@pytest.mark.parametrize(
    "target", ["", "http://host", f"memcached://app:{PASSWORD}@host", f"host:{PASSWORD}", "a/b"]
)
def test_what_is_no_memcached_address(target: str) -> None:
    with pytest.raises(ValueError, match=r"target must be 'host:port'") as info:
        MemcachedProbe(target)
    assert PASSWORD not in str(info.value)


def test_memcached_options() -> None:
    with pytest.raises(ValueError, match="mode must be 'roundtrip' or 'ping', not 'pong'"):
        MemcachedProbe("host", mode="pong")  # type: ignore[arg-type] # under test
    with pytest.raises(TypeError, match="target must be a client of pymemcache"):
        MemcachedProbe(11211)


# Mail


def mail(*replies: bytes) -> Any:
    def talk(client: socket.socket, _stop: threading.Event) -> None:
        for reply in replies:
            client.sendall(reply)
            if not receive(client, b"\r\n"):
                return

    return talk


@pytest.mark.parametrize(
    ("replies", "options", "told"),
    [
        ([b"554 overloaded\r\n"], {}, "the answer to the greeting is 554 overloaded"),
        ([b"220 hi\r\n", b"502 what?\r\n"], {}, "EHLO"),
        ([b"220 hi\r\n", b"250 hi\r\n"], {"starttls": True}, "the server offers no STARTTLS"),
        (
            [b"220 hi\r\n", b"250-hi\r\n250 STARTTLS\r\n", b"220 go\r\n250 injected\r\n"],
            {"starttls": True},
            "more than it was asked for before TLS",
        ),
        ([b"220-" + b"x" * 3000], {}, "a line does not end"),
        ([b"220-x\r\n" * 101], {}, "the answer to the greeting does not end"),
        ([b"220 hi\r\n", b"250 hi\r\n", b""], {"timeout": 0.2}, "no answer within"),
    ],
)
def test_a_mail_server_that_will_not_do(
    replies: list[bytes], options: dict[str, Any], told: str, run: Runner
) -> None:
    with FakeServer(mail(*replies)) as server:
        assert told in fails(run, SMTPProbe("127.0.0.1", server.port, **options))


def test_mail_options() -> None:
    assert repr(SMTPProbe("host")) == "<SMTPProbe host:25>"
    assert repr(SMTPProbe("host", starttls=True)) == "<SMTPProbe host:587>"
    assert repr(SMTPProbe("host", tls=True)) == "<SMTPProbe host:465>"
    for options, told in [
        ({"starttls": True, "tls": True}, "starttls and tls exclude each other"),
        ({"username": "app"}, "username and password belong together"),
        ({"username": "app", "password": PASSWORD}, "password needs starttls or tls"),
        ({"port": 70000}, "port=70000 must be 65535 or less"),
        ({"port": "25"}, "port must be a whole number, not str"),
        ({"verify": False}, "verify is for starttls=True or tls=True"),
        ({"tls": True, "verify": "/ca.pem"}, r"verify must be .* an ssl.SSLContext, not str"),
        ({"timeout": 0}, "timeout=.* must be"),
    ]:
        wrong: Any = options
        with pytest.raises(ValueError, match=told):
            SMTPProbe("host", **wrong)
    with pytest.raises(ValueError, match="host must not be empty"):
        SMTPProbe("")


# LDAP


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        (f"http://app:{PASSWORD}@host", {}, "url must be like ldap://"),
        (f"ldap://host:{PASSWORD}", {}, "url must be like ldap://"),
        (f"ldap://app:{PASSWORD}@host", {}, "password needs ldaps://, starttls=True or"),
        ("ldap://host", {"bind_dn": "cn=app"}, "bind_dn and password belong together"),
        ("ldaps://host", {"starttls": True}, "starttls is for ldap://"),
        ("ldap://host", {"verify": False}, "verify is for ldaps:// or starttls=True"),
        ("ldap://host", {"timeout": 0}, "timeout=.* must be"),
    ],
)
def test_ldap_options(url: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as info:
        LDAPProbe(url, **options)
    assert PASSWORD not in f"{info.value}{info.value.__cause__}"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("300c02010261070a010004000400", ""),
        ("30840000000c02010261070a010004000400", ""),  # the long form, as Active Directory's
        ("300c02010261070a013404000400", "the bind was refused: unavailable"),
        ("301002010261 0b0a015a0400 0404 6f6f7073", "the bind was refused: result code 90 (oops)"),
        ("300c02010961070a010004000400", "the bind was refused: result code 0"),
        ("300c02010261070a010004010400", "the server does not speak LDAP"),
        ("3003020102", "the server does not speak LDAP"),
        ("3084ffffffff", "the server does not speak LDAP"),
    ],
)
def test_what_a_directory_says(answer: str, told: str, run: Runner) -> None:
    def talk(client: socket.socket, _stop: threading.Event) -> None:
        client.recv(1000)
        client.sendall(bytes.fromhex(answer))
        receive(client)

    with FakeServer(talk) as server:
        probe = LDAPProbe(f"ldap://127.0.0.1:{server.port}")
        if told:
            assert fails(run, probe) == told
        else:
            run(probe)


# S3


@pytest.mark.parametrize(
    ("status", "told"),
    [("301 M", "another region"), ("403 F", "access is denied"), ("503 S", "status 503")],
)
def test_a_bucket_that_is_denied(status: str, told: str, run: Runner) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with FakeServer(http(answer)) as server:
        probe = s3(server.port)
        assert told in fails(run, probe)
        fails(run, probe)
        assert server.accepted == 1


BUCKET = {"Bucket": "shop"}


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "eu-central-1"])
@pytest.mark.parametrize("version", [None, "s3v4", "s3"])
def test_a_bucket_is_asked_for_as_the_apps_requests_are_signed(
    region: str, version: str | None, run: Runner
) -> None:
    seen: list[bytes] = []
    with FakeServer(http(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", seen=seen)) as server:
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{server.port}",
            region_name=region,
            aws_access_key_id="app",
            aws_secret_access_key=PASSWORD,
            config=Config(signature_version=version),
        )
        before = client.generate_presigned_url("head_bucket", BUCKET, HttpMethod="HEAD")
        probe = S3Probe("shop", client=client)
        run(probe)
        client.head_bucket(**BUCKET)
        asked, by_the_app = seen
        is_old = b"Authorization: AWS app:" in by_the_app
        assert (b"AWSAccessKeyId=app" in asked) == is_old == (version == "s3")
        assert (b"AWS4-HMAC-SHA256" in asked) == (b"AWS4-HMAC-SHA256" in by_the_app) != is_old
        after = client.generate_presigned_url("head_bucket", BUCKET, HttpMethod="HEAD")
        assert ("AWS4" in after) == ("AWS4" in before)  # what the app signs is left as it is
        run.close_probe(probe)
        client.close()


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1", "eu-central-1"])
def test_a_bucket_is_asked_for_where_the_app_asks(
    region: str, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise ConnectionRefusedError

    def answer(request: Any, **_: object) -> Any:
        asked.append(urlsplit(request.url).hostname)
        return SimpleNamespace(status_code=200, headers={}, content=b"")

    asked: list[Any] = []
    client = boto3.client(
        "s3", region_name=region, aws_access_key_id="app", aws_secret_access_key=PASSWORD
    )
    client.meta.events.register("before-send.s3", answer)
    client.head_bucket(**BUCKET)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert "efused" in fails(run, S3Probe("shop", client=client))
    assert asked == [asked[0], asked[0]]
    client.close()


def test_a_bucket_that_begins_to_drip_on_the_kept_connection(run: Runner) -> None:
    well = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def talk(client: socket.socket, stop: threading.Event) -> None:
        if receive(client, b"\r\n\r\n"):
            client.sendall(well)
        drip(b"HTTP/1.1 200 OK\r\nA: b")(client, stop)

    threads = foreign_threads()
    with FakeServer(talk) as server:
        probe = s3(server.port, timeout=0.5)
        run(probe)
        with pytest.raises(ProbeTimeoutError):
            run(probe)
        # With the time that is up no other connection is tried.
        assert server.accepted == 1
        run.close_probe(probe)
        server.wait_until_left()
    assert foreign_threads() <= threads


def test_a_bucket_whose_server_closes_after_each_answer(run: Runner) -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with FakeServer(http(answer)) as server:
        probe = s3(server.port, timeout=20.0)
        run(probe)
        run(probe)
        assert server.accepted == 2


def test_s3_options() -> None:
    assert PASSWORD not in repr(s3(1))
    with pytest.raises(ValueError, match="bucket must be a bucket's name, not 's3://shop'"):
        S3Probe("s3://shop")
    with pytest.raises(TypeError, match="client must be a boto3"):
        S3Probe("shop", client=1)


# Elasticsearch and OpenSearch: a stand-in, for neither Debian nor PyPI has a server


def health(colour: str, status: str = "200 OK", **more: Any) -> bytes:
    body = json.dumps({"cluster_name": "shop", "status": colour, **more}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def test_the_clusters_colour(run: Runner) -> None:
    numbers: Any = {"number_of_nodes": 3, "active_shards": 10, "unassigned_shards": 2}
    answers = {
        "/_cluster/health": health("green", **numbers),
        "/es/_cluster/health/orders,log-*": health("yellow", **numbers),
        "/red/_cluster/health": health("red", "408 Request Timeout", **numbers),
    }
    seen: list[bytes] = []
    with FakeServer(http(answers, seen=seen)) as server:
        url = f"http://127.0.0.1:{server.port}"
        found = run(ElasticsearchProbe(url, api_key=PASSWORD))
        assert dict(found, latency_seconds=0) == {
            "latency_seconds": 0,
            "status": "green",
            "nodes": 3,
            "active_shards": 10,
            "unassigned_shards": 2,
        }
        assert f"Authorization: ApiKey {PASSWORD}".encode() in seen[0]
        yellow = ElasticsearchProbe(f"{url}/es/", index="orders,log-*")
        complaint, found = run.outcome(yellow)
        assert complaint == "the cluster is yellow: 2 shards are not assigned"
        assert found["status"] == "yellow"
        run(ElasticsearchProbe(f"{url}/es", index="orders,log-*", yellow_is_well=True))
        red = ElasticsearchProbe(f"{url}/red")
        assert fails(run, red) == "the cluster is red: 2 shards are not assigned"


def test_one_connection_and_the_login(run: Runner) -> None:
    seen: list[bytes] = []
    with FakeServer(http(health("green"), seen=seen)) as server:
        url = f"http://app:{PASSWORD}@127.0.0.1:{server.port}"
        probe = ElasticsearchProbe(url)
        for _ in range(5):
            run(probe)
        assert server.accepted == 1
        assert all(b"authorization: basic" in one.lower() for one in seen)
        run.close_probe(probe)

        async def with_the_apps() -> None:
            async with httpx2.AsyncClient() as client:
                await ElasticsearchProbe(url, client=client)()

        run.run(with_the_apps())
        trio.run(ElasticsearchProbe(url))


@pytest.mark.parametrize(
    "answer",
    [
        health("green", "503 Service Unavailable"),
        health("purple"),
        b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 28\r\n\r\n{"error":"no","status":"401"}'[
            :-1
        ],
        b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status": [1]}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b" " * 90000,
    ],
)
def test_what_is_no_clusters_health(answer: bytes, run: Runner) -> None:
    with FakeServer(http(answer)) as server:
        probe = ElasticsearchProbe(f"http://127.0.0.1:{server.port}")
        assert "and no cluster's health in it" in fails(run, probe)


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        (f"ftp://app:{PASSWORD}@host", {}, "url must be like"),
        (f"http://host:{PASSWORD}", {}, "url must be like"),
        ("http://host?pretty", {}, "url must be like"),
        ("http://host", {"api_key": f"{PASSWORD}\n"}, "api_key must be"),
        ("http://host", {"api_key": ""}, "api_key must be"),
        ("http://host", {"timeout": 0}, "timeout=.* must be"),
        ("http://host", {"client": 1}, "client must be an httpx2.AsyncClient, not int"),
        ("http://host", {"client": 1, "verify": False}, "verify belongs to the client"),
    ],
)
def test_elasticsearch_options(url: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as info:
        ElasticsearchProbe(url, **options)
    assert PASSWORD not in f"{info.value}{info.value.__cause__}"


def test_how_each_is_run() -> None:
    assert [kind for kind, make in MAKE.items() if not is_async(make(1))] == [
        "memcached",
        "memcached ping",
        "s3",
    ]
