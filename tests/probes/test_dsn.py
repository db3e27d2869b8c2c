"""`probe_from_dsn`: the right probe for a URL, and messages that mend without giving away."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from healthmw.exceptions import MissingExtraError
from healthmw.probes import probe_from_dsn
from tests.plugins import install
from tests.programs import run_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("tcp://db.internal:5432", "<TCPProbe db.internal:5432>"),
        ("tls://shop.example", "<CertificateProbe shop.example:443>"),
        ("TLS://shop.example:8443/", "<CertificateProbe shop.example:8443>"),
        ("dns://db.internal", "<DNSProbe db.internal>"),
        ("ntp://time.internal", "<ClockProbe time.internal>"),
        ("ntp://time.internal:1123", "<ClockProbe time.internal>"),
        ("TCP://[::1]:80/", "<TCPProbe [::1]:80>"),
        ("redis://ann:swordfish@cache:6380/2", "<RedisProbe cache:6380/2>"),
        ("rediss://cache", "<RedisProbe cache:6379/0>"),
        ("unix:///run/redis.sock", "<RedisProbe /run/redis.sock>"),
        ("redis+socket:///run/redis.sock?db=1", "<RedisProbe /run/redis.sock>"),
        ("redis+cluster://one,two:7", "<RedisProbe cluster one:6379,two:7>"),
        ("rediss+sentinel://one/shop", "<RedisProbe shop by sentinel one:26379>"),
        ("memcached://one,two:7", "<MemcachedProbe one:11211,two:7>"),
        ("mongodb://ann:swordfish@db/shop", "<MongoProbe db:27017>"),
        ("elasticsearch://ann:swordfish@es:9200", "<ElasticsearchProbe http://es:9200>"),
        ("opensearch+https://ann:swordfish@es/x", "<ElasticsearchProbe https://es/x>"),
        ("smtp://mail:1025", "<SMTPProbe mail:1025>"),
        ("smtps://ann:swordfish@mail", "<SMTPProbe mail:465>"),
        ("smtp+starttls://ann:swordfish@mail", "<SMTPProbe mail:587>"),
        ("ldap://directory", "<LDAPProbe ldap://directory:389>"),
        ("ldaps://cn%3Dann:swordfish@directory", "<LDAPProbe ldaps://directory:636>"),
        ("amqp://ann:swordfish@mq/%2F", "<AMQPProbe mq:5672//>"),
        ("AMQPS://ann:swordfish@mq/shop", "<AMQPProbe mq:5671/shop>"),
        ("nats://ann:swordfish@mq", "<NATSProbe mq:4222>"),
        ("mqtt://ann:swordfish@mq", "<MQTTProbe mq:1883>"),
        ("mqtts://ann:swordfish@mq", "<MQTTProbe mq:8883>"),
        ("kafka://mq:9092,other:9092", "<KafkaProbe mq:9092,other:9092>"),
        ("grpc://orders:50051", "<GRPCProbe orders:50051 (the server)>"),
        ("grpcs://[::1]:50051/shop.v1.Orders", "<GRPCProbe [::1]:50051 shop.v1.Orders>"),
        ("postgresql://ann:swordfish@db/shop", "<SQLAlchemyProbe postgresql+psycopg db/shop>"),
        ("postgres://ann:swordfish@db:5/shop", "<SQLAlchemyProbe postgresql+psycopg db:5/shop>"),
        ("postgresql+asyncpg://db/shop", "<SQLAlchemyProbe postgresql+asyncpg db/shop>"),
        ("mysql://db/shop", "<SQLAlchemyProbe mysql+pymysql db/shop>"),
        ("mysql+pymysql://db:3307/shop", "<SQLAlchemyProbe mysql+pymysql db:3307/shop>"),
        ("mariadb://db/shop", "<SQLAlchemyProbe mariadb+pymysql db/shop>"),
        ("sqlite:////var/shop.db", "<SQLAlchemyProbe sqlite /var/shop.db>"),
        ("sqlite+aiosqlite://", "<SQLAlchemyProbe sqlite+aiosqlite>"),
    ],
)
def test_the_probe_of_a_url(url: str, shown: str) -> None:
    assert repr(probe_from_dsn(url)) == shown


@pytest.mark.parametrize(
    ("url", "is_async"),
    [("postgresql+asyncpg://db/shop", True), ("postgresql+psycopg://db/shop", False)],
)
def test_an_async_driver_gets_an_async_engine(url: str, is_async: bool) -> None:
    assert getattr(probe_from_dsn(url), "is_async", None) is is_async


def test_http_has_its_probe() -> None:
    assert "swordfish" not in repr(probe_from_dsn("http://ann:swordfish@host/up"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gopher://ann:swordfish@host", r"no probe for gopher://; known are amqp,.*redis,.*unix$"),
        ("swordfish", "a DSN looks like SCHEME://.*known are"),
        ("tcp://swordfish", "looks like tcp://HOST:PORT"),
        ("tls://", "looks like tls://HOST:PORT"),
        ("tls://host:swordfish", "looks like tls://HOST:PORT"),
        ("tls://host:0", "looks like tls://HOST:PORT"),
        ("tls://swordfish@host", "looks like tls://HOST:PORT"),
        ("dns://host:80", "looks like dns://NAME"),
        ("dns://host/swordfish", "looks like dns://NAME"),
        ("ntp://host?swordfish", "looks like ntp://HOST"),
        ("tcp://host:swordfish", "looks like tcp://HOST:PORT"),
        ("tcp://host:99999", "looks like tcp://HOST:PORT"),
        ("tcp://host:80/swordfish", "looks like tcp://HOST:PORT"),
        ("amqp://ann:swordfish@host:port", "must be a URL like amqp://"),
        ("amqp://ann:host:swordfish", "must be a URL like amqp://"),
        ("nats://ann:swordfish@host:port", "must be a URL like nats://"),
        ("nats:///swordfish", "must be a URL like nats://"),
        ("mqtt://ann:swordfish@host:port", "must be like mqtt://"),
        ("mqtt://ann@host/swordfish", "must be like mqtt://"),
        ("kafka://ann:swordfish@host:9092", "user and a password are settings"),
        ("kafka://", "must be like 'host:9092"),
        ("grpc://ann:swordfish@host:1", "looks like grpc://HOST:PORT"),
        ("grpc://host:swordfish", "looks like grpc://HOST:PORT"),
        ("grpc://swordfish", "looks like grpc://HOST:PORT"),
        ("redis://ann:swordfish@host:port", "must be a URL like redis://"),
        ("smtp://ann:swordfish@host:port", "mail server's URL looks like smtp://HOST:PORT"),
        ("smtp://host/swordfish", "mail server's URL looks like smtp://HOST:PORT"),
        ("s3://swordfish@bucket", "looks like s3://BUCKET"),
        ("memcached://ann:swordfish@host", "memcached://host:port,host:port"),
        ("postgresql://ann:swordfish@host:port/shop", "looks like postgresql://HOST:PORT/NAME"),
        ("postgresql://ann@host:swordfish/shop", "looks like postgresql://HOST:PORT/NAME"),
        ("postgresql+nonesuch://ann:swordfish@host/", "knows no driver 'nonesuch' for postgresql"),
    ],
)
def test_a_url_that_will_not_do(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        probe_from_dsn(url)
    assert "swordfish" not in str(raised.value)


def test_a_wrong_timeout() -> None:
    with pytest.raises(ValueError, match=r"timeout=.* must be"):
        probe_from_dsn("tcp://host:80", timeout=0)


@pytest.mark.parametrize(
    ("url", "missing", "said"),
    [
        ("redis://host", ["redis"], r"RedisProbe.*healthmw\[redis\]"),
        ("memcached://host", ["pymemcache"], r"MemcachedProbe.*healthmw\[pymemcache\]"),
        ("mongodb://host", ["pymongo"], r"MongoProbe.*healthmw\[pymongo\]"),
        ("s3://bucket", ["boto3"], r"S3Probe.*healthmw\[boto3\]"),
        ("elasticsearch://host", ["httpx2"], r"ElasticsearchProbe.*healthmw\[httpx2\]"),
        ("amqp://host", ["pika.connection"], r"AMQPProbe.*healthmw\[amqp\]"),
        ("nats://host", ["nats.aio.client"], r"NATSProbe.*healthmw\[nats\]"),
        ("mqtt://host", ["paho.mqtt.client"], r"MQTTProbe.*healthmw\[mqtt\]"),
        ("kafka://host", ["confluent_kafka"], r"KafkaProbe.*healthmw\[kafka\]"),
        ("grpc://host:1", ["grpc"], r"GRPCProbe.*healthmw\[grpc\]"),
        ("http://host", ["httpx2"], r"HTTPProbe.*healthmw\[httpx2\]"),
        ("sqlite://", ["sqlalchemy"], r"^sqlite://.*healthmw\[sqlalchemy\]"),
        ("postgresql://host", ["sqlalchemy"], r"^postgresql:// needs.*healthmw\[postgresql\]"),
        ("mysql+pymysql://host", ["sqlalchemy"], r"^mysql\+pymysql:// .*healthmw\[mysql\]"),
        (
            "postgresql+asyncpg://host",
            ["sqlalchemy"],
            r"^postgresql\+asyncpg:// needs.*healthmw\[sqlalchemy\]",
        ),
        (
            "postgresql+asyncpg://host",
            ["sqlalchemy.ext.asyncio"],  # as without greenlet
            r"^postgresql\+asyncpg:// needs.*healthmw\[sqlalchemy\]",
        ),
        (
            "postgresql://host",
            ["psycopg", "psycopg2", "asyncpg"],
            r"^postgresql:// needs.*healthmw\[postgresql\]",
        ),
        (
            "mariadb://host",
            ["pymysql", "MySQLdb", "asyncmy", "aiomysql"],
            r"^mariadb:// needs.*healthmw\[mysql\]",
        ),
        (
            "mysql+mysqldb://host",
            ["MySQLdb"],
            r"^mysql\+mysqldb:// lacks.*mysql\+pymysql:// needs.*healthmw\[mysql\]",
        ),
        (
            "sqlite+aiosqlite://",
            ["aiosqlite"],
            r"aiosqlite:// lacks its driver, and sqlite:// needs.*healthmw\[sqlalchemy\]",
        ),
    ],
)
def test_a_missing_driver_is_an_error_that_names_the_extra(
    url: str, missing: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=said):
        probe_from_dsn(url)


def test_a_sync_driver_does_without_greenlet() -> None:
    said = run_program("""
        sys.modules["greenlet"] = None
        from healthmw.probes import probe_from_dsn
        print(probe_from_dsn("sqlite://")()["latency_seconds"] >= 0)
    """)
    assert said == "True\n"


def test_without_the_first_driver_the_next_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ["psycopg", "psycopg2"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert "postgresql+asyncpg" in repr(probe_from_dsn("postgresql://db/shop"))


def test_other_packages_add_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def Probe(url, *, timeout):\n    return lambda: (url, timeout)\n"
    install(monkeypatch, tmp_path, "silly", source)
    for url in ["silly://host", "silly+tls://host"]:
        probe = probe_from_dsn(url, timeout=7)
        assert probe() == (url, 7)
    with pytest.raises(ValueError, match=r"known are .*silly"):
        probe_from_dsn("gopher://host")
