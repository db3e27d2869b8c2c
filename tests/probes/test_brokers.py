"""Probes of brokers, of workers and of gRPC: their options, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import celery
import nats.aio.client
import pytest
import redis
import trio
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from nats.errors import ConnectionClosedError

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import (
    AMQPProbe,
    CeleryProbe,
    DramatiqProbe,
    GRPCProbe,
    KafkaProbe,
    MQTTProbe,
    NATSProbe,
    RQProbe,
)
from tests.fakes import FakeServer, drip, full_listener, garbage, receive, reset, silent
from tests.test_kept import LockWithAnEnd
from tests.waiting import foreign_threads, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.probes.running import Runner

PASSWORD = "s3cr3t-b4it"

# How to make a probe of a server on a port, with half a second for all.
KINDS: dict[str, Callable[[int], Any]] = {
    "amqp": lambda port: AMQPProbe(f"amqp://app:{PASSWORD}@127.0.0.1:{port}", timeout=0.5),
    "nats": lambda port: NATSProbe(f"nats://app:{PASSWORD}@127.0.0.1:{port}", timeout=0.5),
    "mqtt": lambda port: MQTTProbe(f"mqtt://app:{PASSWORD}@127.0.0.1:{port}", timeout=0.5),
    "kafka": lambda port: KafkaProbe(f"kafka://127.0.0.1:{port}", timeout=0.5),
    "grpc": lambda port: GRPCProbe(f"127.0.0.1:{port}", timeout=0.5),
    "rq": lambda port: RQProbe(
        redis.Redis.from_url(f"redis://app:{PASSWORD}@127.0.0.1:{port}", protocol=2), timeout=0.5
    ),
    "dramatiq on redis": lambda port: DramatiqProbe(
        RedisBroker(url=f"redis://app:{PASSWORD}@127.0.0.1:{port}"),  # type: ignore[no-untyped-call] # dramatiq's
        timeout=0.5,
    ),
    "dramatiq on rabbitmq": lambda port: DramatiqProbe(
        RabbitmqBroker(url=f"amqp://app:{PASSWORD}@127.0.0.1:{port}"), timeout=0.5
    ),
    "celery on redis": lambda port: CeleryProbe(
        celery.Celery(broker=f"redis://app:{PASSWORD}@127.0.0.1:{port}"), timeout=0.5
    ),
    "celery on rabbitmq": lambda port: CeleryProbe(
        celery.Celery(broker=f"amqp://app:{PASSWORD}@127.0.0.1:{port}"), timeout=0.5
    ),
    "a queue of celery's on redis": lambda port: CeleryProbe(
        celery.Celery(broker=f"redis://app:{PASSWORD}@127.0.0.1:{port}"),
        queue="mail",
        max_depth=0,
        timeout=0.5,
    ),
    "a queue of celery's on rabbitmq": lambda port: CeleryProbe(
        celery.Celery(broker=f"amqp://app:{PASSWORD}@127.0.0.1:{port}"),
        queue="mail",
        max_depth=0,
        timeout=0.5,
    ),
}
TLS: dict[str, Callable[[int], Any]] = {
    "amqps": lambda port: AMQPProbe(f"amqps://app:{PASSWORD}@localhost:{port}", timeout=0.5),
    "mqtts": lambda port: MQTTProbe(f"mqtts://app:{PASSWORD}@localhost:{port}", timeout=0.5),
    "grpcs": lambda port: GRPCProbe(f"localhost:{port}", tls=True, timeout=0.5),
}


def fails(run: Runner, probe: Any) -> ProbeFailedError:
    started = time.monotonic()
    with pytest.raises(ProbeFailedError) as info:
        run(probe)
    assert time.monotonic() - started < 15
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return info.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "talk", [silent, garbage, reset, drip(b"x")], ids=["silent", "garbage", "reset", "drip"]
)
def test_a_server_that_is_no_server(talk: Any, kind: str, run: Runner) -> None:
    threads = foreign_threads()
    with FakeServer(talk) as server:
        probe = KINDS[kind](server.port)
        for _ in range(2):
            fails(run, probe)
        run.close_probe(probe)
        server.wait_until_left()
    until_sync(lambda: len(foreign_threads()) <= len(threads))  # some end late


@pytest.mark.parametrize("kind", TLS)
@pytest.mark.parametrize("talk", [silent, garbage, drip(b"\x16")], ids=["silent", "plain", "drip"])
def test_a_server_that_does_not_speak_tls(talk: Any, kind: str, run: Runner) -> None:
    with FakeServer(talk) as server:
        probe = TLS[kind](server.port)
        fails(run, probe)
        run.close_probe(probe)
        server.wait_until_left()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_accepts_nothing(kind: str, run: Runner) -> None:
    with full_listener() as port:
        fails(run, KINDS[kind](port))


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_where_nothing_is(kind: str, run: Runner) -> None:
    told = str(fails(run, KINDS[kind](1)))
    assert told
    if "celery" in kind:  # which would try again, by itself
        assert "efused" in told


@pytest.mark.parametrize(
    "probe",
    [
        AMQPProbe("amqp://nowhere.invalid"),
        NATSProbe("nats://nowhere.invalid"),
        MQTTProbe("mqtt://nowhere.invalid"),
        KafkaProbe("nowhere.invalid:9092", timeout=0.5),
        GRPCProbe("nowhere.invalid:1"),
        CeleryProbe(celery.Celery(broker="amqp://nowhere.invalid")),
    ],
    ids=repr,
)
def test_a_name_that_does_not_resolve(probe: Any, run: Runner) -> None:
    assert "esol" in (told := str(fails(run, probe))) or "Name or service" in told


ANSWERS = {b"SMEMBERS": b"*0\r\n", b"ZRANGEBYSCORE": b"*0\r\n", b"HGET": b"$-1\r\n"}


def empty_redis(forgets: threading.Event, answers: dict[bytes, bytes] = ANSWERS) -> Any:
    """Speak as an empty Redis, and meet the first bytes after `forgets` is set by a RST."""

    def talk(client: socket.socket, stop: threading.Event) -> None:
        while client.recv(1, socket.MSG_PEEK):
            if forgets.is_set():
                forgets.clear()
                reset(client, stop)
                return
            for name in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", receive(client)):
                client.sendall(answers.get(name, b":0\r\n"))

    return talk


ON_EMPTY_REDIS: dict[str, Callable[[int], Any]] = {
    "rq": lambda port: RQProbe(redis.Redis(port=port, protocol=2), min_workers=0),
    "dramatiq": lambda port: DramatiqProbe(
        RedisBroker(url=f"redis://127.0.0.1:{port}?protocol=2"),  # type: ignore[no-untyped-call] # dramatiq's
        min_workers=0,
    ),
}


@pytest.mark.parametrize("kind", ON_EMPTY_REDIS)
def test_a_connection_to_redis_that_died_unseen_is_replaced(kind: str, run: Runner) -> None:
    forgets = threading.Event()
    with FakeServer(empty_redis(forgets)) as server:
        probe = ON_EMPTY_REDIS[kind](server.port)
        for _ in range(2):
            run(probe)
            forgets.set()
        run(probe)
        assert server.accepted == 3
        run.close_probe(probe)
        forgets.set()
        assert "reset" in str(fails(run, probe))  # there is no second try of a new one


def test_runs_at_once_that_ask_one_redis_fail_together_in_time(run: Runner) -> None:
    with FakeServer(silent) as server:
        probe = KINDS["rq"](server.port)
        started = time.monotonic()
        failed = run.together(probe, 5, return_exceptions=True)
        assert time.monotonic() - started < 10
        assert {type(one) for one in failed} == {ProbeTimeoutError}
        assert server.accepted < 5
        run.close_probe(probe)


@pytest.mark.parametrize("kind", ON_EMPTY_REDIS)
def test_after_a_failure_a_new_connection_may_find_the_redis_that_has_taken_over(
    kind: str, run: Runner
) -> None:
    servers = iter([dict.fromkeys(ANSWERS, b"-MASTERDOWN it is\r\n"), ANSWERS])

    def talk(client: socket.socket, stop: threading.Event) -> None:
        empty_redis(threading.Event(), next(servers))(client, stop)

    with FakeServer(talk) as server:
        probe = ON_EMPTY_REDIS[kind](server.port)
        assert "it is" in str(fails(run, probe))
        for _ in range(2):
            run(probe)
        run.close_probe(probe)


def test_nats_on_trio_is_told_what_to_do() -> None:
    probe = NATSProbe("nats://127.0.0.1:1")
    with pytest.raises(ProbeFailedError, match="asyncio only"):
        trio.run(probe)


def test_nats_py_that_sends_a_ping_by_another_name() -> None:
    class Renamed(nats.aio.client.Client):
        is_connected = True
        flushed = False

        def __getattribute__(self, name: str) -> Any:
            if name == "_send_ping":
                raise AttributeError(name)
            return super().__getattribute__(name)

        async def flush(self, timeout: int = 10) -> None:
            if self.flushed:
                raise ConnectionClosedError
            self.flushed = True

    async def main() -> None:
        client = Renamed()
        await NATSProbe(client)()
        assert client.flushed
        with pytest.raises(ProbeFailedError, match="ConnectionClosedError"):
            await NATSProbe(client)()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("login", "sent"),
    [
        ("ann:p%40s%2Fs%25", {"user": "ann", "pass": "p@s/s%"}),
        ("ann%40shop:", {"user": "ann@shop", "pass": ""}),
        ("t%40ken", {"auth_token": "t@ken"}),
    ],
)
def test_nats_is_told_the_login_of_a_url_decoded(
    login: str, sent: dict[str, str], run: Runner
) -> None:
    heard: list[dict[str, Any]] = []

    def talk(client: socket.socket, _stop: threading.Event) -> None:
        client.sendall(b'INFO {"auth_required": true, "max_payload": 1048576}\r\n')
        lines = client.makefile("rb")
        while line := lines.readline():
            word, _, rest = line.partition(b" ")
            if word == b"CONNECT":
                heard.append(json.loads(rest))
            elif word.strip() == b"PING":
                client.sendall(b"PONG\r\n")

    with FakeServer(talk) as server:
        probe = NATSProbe(f"nats://{login}@127.0.0.1:{server.port}", timeout=20)
        run(probe)
        run.close_probe(probe)
    assert len(heard) == 1
    assert {name: heard[0].get(name) for name in sent} == sent


def test_mqtt_goes_by_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, run: Runner
) -> None:
    asked: list[Any] = []

    def by_proxy(address: Any, **options: Any) -> socket.socket:
        asked.append((address, options["proxy_addr"]))
        raise OSError("the proxy refused")

    # What paho does where PySocks is installed.
    socks = SimpleNamespace(HTTP=1, SOCKS4=2, SOCKS5=3, create_connection=by_proxy)
    monkeypatch.setattr("paho.mqtt.client.socks", socks)
    monkeypatch.setenv("mqtt_proxy", "socks://proxy.test:1080")
    assert "the proxy refused" in str(fails(run, MQTTProbe("mqtt://host.test")))
    assert asked == [(("host.test", 1883), "proxy.test")]


def test_kafka_settings_that_are_none(run: Runner) -> None:
    probe = KafkaProbe({"bootstrap.servers": "x:1", "sasl.passwort": PASSWORD})
    assert "settings won't do" in str(fails(run, probe))


REDIS = redis.Redis()
APP = celery.Celery()
ON_REDIS = RedisBroker()  # type: ignore[no-untyped-call] # dramatiq's signature
WRONG: Any = 5672
ON_RABBITMQ = RabbitmqBroker()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: AMQPProbe("http://host"), "target must be a URL like amqp://"),
        (lambda: AMQPProbe("amqp://host", timeout=0), "timeout=.* must be"),
        (lambda: AMQPProbe("amqp://host", queue=""), "queue must be a queue's name"),
        (lambda: AMQPProbe("amqp://host", max_depth=1), "name it by queue="),
        (lambda: AMQPProbe("amqp://host", queue="q", max_depth=-1), "max_depth must not"),
        (lambda: AMQPProbe("amqp://host", queue="q", max_depth=cast("Any", math.nan)), "max_depth"),
        (lambda: AMQPProbe("amqp://host", queue="q", min_consumers=-1), "min_consumers must"),
        (lambda: NATSProbe("nats://host", consumer="c"), "name that by stream="),
        (lambda: NATSProbe("nats://host", stream="s", max_pending=1), "name it by consumer="),
        (
            lambda: NATSProbe("nats://host", stream="s", consumer="c", max_pending=-1),
            "max_pending must not",
        ),
        (lambda: NATSProbe(nats.aio.client.Client(), verify=False), "verify is for a URL"),
        (lambda: MQTTProbe("mqtt://host", topic="a/#"), "topic must be one topic"),
        (lambda: MQTTProbe("mqtt://host", verify=False), "verify is for mqtts"),
        (lambda: MQTTProbe("mqtt://:s3cr3t-b4it@host"), "url has a password and no user"),
        (lambda: KafkaProbe({}), "target must have bootstrap.servers"),
        (lambda: KafkaProbe("host:1", group="g"), "name that by topic="),
        (lambda: KafkaProbe("host:1", topic="t", max_lag=1), "name it by group="),
        (lambda: KafkaProbe("host:1", topic="t", group="g", max_lag=-1), "max_lag must not"),
        (lambda: GRPCProbe(""), "target must be an address"),
        (lambda: RQProbe(REDIS, queues=()), "queues must be one or more names"),
        (lambda: RQProbe(REDIS, max_job_age=-1), "max_job_age must not be negative"),
        (lambda: DramatiqProbe(ON_REDIS, queues=[""]), "queues must be one or more names"),
        (lambda: DramatiqProbe(ON_REDIS, min_workers=-1), "min_workers must not be negative"),
        (lambda: DramatiqProbe(ON_RABBITMQ, max_age=1), "max_age is for Redis"),
        (lambda: CeleryProbe(APP, min_workers=0), "min_workers=0 must be 1 or more"),
        (lambda: CeleryProbe(APP, workers=()), "workers must name at least one"),
        (lambda: CeleryProbe(APP, queue="q"), "queue and max_depth belong together"),
        (lambda: CeleryProbe(APP, queue="q", max_depth=-1), "max_depth must not be negative"),
    ],
)
def test_bad_options(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: AMQPProbe(WRONG), "target must be a URL or pika's parameters, not int"),
        (lambda: NATSProbe(WRONG), "target must be a URL or a NATS client, not int"),
        (lambda: MQTTProbe("mqtt://host", topic=WRONG), "topic must be a str, not int"),
        (lambda: KafkaProbe(WRONG), "target must be .* or a mapping of settings, not int"),
        (lambda: CeleryProbe(APP, min_workers=cast("Any", "2")), "min_workers must be a whole n"),
        (lambda: GRPCProbe(WRONG), "target must be an address, a grpc.Channel"),
        (lambda: RQProbe(WRONG), "connection must be a redis.Redis, not int"),
        (lambda: DramatiqProbe(WRONG), "broker must be a dramatiq.Broker, not int"),
        (lambda: DramatiqProbe(StubBroker()), "a RedisBroker or a RabbitmqBroker"),
        (lambda: CeleryProbe(WRONG), "app must be a celery.Celery, not int"),
        (lambda: CeleryProbe(APP, workers="celery@host"), "workers must be a collection"),
    ],
)
def test_what_is_wanted(make: Callable[[], Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        make()


def test_kafka_that_nobody_serves_is_refused_each_time() -> None:
    with socket.socket() as nobody:  # librdkafka tells of it once, and then suppresses it
        nobody.bind(("127.0.0.1", 0))
        probe = KafkaProbe(f"127.0.0.1:{nobody.getsockname()[1]}", timeout=1.0)
        for _ in range(5):
            with pytest.raises(ProbeFailedError, match="refused") as info:
                probe()
            assert not isinstance(info.value, TimeoutError)
    asyncio.run(probe.aclose())


def test_an_amqp_connection_that_is_closed_at_the_very_end_of_a_run_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Link:
        """Stands for a connection to a server."""

        def __init__(self, _: object) -> None:
            self.close = lambda: closed.append(self)

        def ask(self, *_: object) -> list[tuple[int, int]]:
            return []

    closed: list[object] = []
    monkeypatch.setattr("healthmw._pika._Link", Link)
    probe: Any = AMQPProbe("amqp://127.0.0.1")
    probe._own.get()._lock = LockWithAnEnd(lambda: asyncio.run(probe.aclose()))
    probe()
    assert len(closed) == 1


def test_a_kept_kafka_client_that_has_let_go_of_its_broker_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it does, for a moment, where the broker was started anew."""
    answers: list[Future[Any]] = [Future() for _ in range(3)]
    let_go = KafkaError(-137)  # "Broker handle destroyed without termination"
    for answer in answers[::2]:
        answer.set_result(SimpleNamespace(nodes=["one"]))
    answers[1].set_exception(KafkaException(let_go))
    asked = iter(answers)
    monkeypatch.setattr(AdminClient, "describe_cluster", lambda *_, **__: next(asked))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # there, so that nothing is refused
        probe = KafkaProbe(f"127.0.0.1:{listener.getsockname()[1]}", timeout=5.0)
        for _ in range(2):
            found = probe()
            assert isinstance(found, dict)
            assert found["brokers"] == 1
        asyncio.run(probe.aclose())
    assert next(asked, None) is None
