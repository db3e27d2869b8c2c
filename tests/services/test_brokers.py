"""Probes of message brokers against real brokers, which hang, crash and come back."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pika
import pytest

from healthmw import Health
from healthmw.asgi import HealthMiddleware as AsgiMiddleware
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import AMQPProbe, KafkaProbe, MQTTProbe, NATSProbe
from healthmw.wsgi import HealthMiddleware as WsgiMiddleware
from tests.probes.running import Runner
from tests.services.brokers import NATS, USER, Kafka, Mosquitto, NATSOverTLS, RabbitMQ
from tests.services.servers import PASSWORD
from tests.services.store_servers import OTHER_NAME
from tests.transports import ask_asgi, ask_wsgi
from tests.waiting import foreign_threads, until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.services.servers import Server

    Lend = Callable[[type[Any]], Any]

PATIENCE = 30.0

# RabbitMQ comes last: it takes the longest to start.
KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "nats": (NATSProbe, NATS),
    "mqtt": (MQTTProbe, Mosquitto),
    "kafka": (KafkaProbe, Kafka),
    "amqp": (AMQPProbe, RabbitMQ),
}


TLS_KINDS: dict[str, type[Any]] = {"nats": NATSOverTLS, "mqtt": Mosquitto, "amqp": RabbitMQ}


@pytest.fixture
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def fails(run: Runner, probe: Any) -> ProbeFailedError:
    started = time.monotonic()
    with pytest.raises(ProbeFailedError) as info:
        run(probe)
    assert time.monotonic() - started < PATIENCE
    assert type(info.value) in {ProbeFailedError, ProbeTimeoutError}
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return info.value


def passes_soon(run: Runner, probe: Any) -> None:
    """Wait for the run that passes: a server that is up may not be ready for all it does."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            run(probe)
        except ProbeFailedError:
            assert time.monotonic() < give_up
        else:
            return


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_from_well_to_gone_and_back(kind: str, lend: Lend, run: Runner) -> None:
    probe_of, server_of = KINDS[kind]
    server: Server = lend(server_of)
    threads = foreign_threads()
    probe = probe_of(server_of.dsn(server), timeout=1.0)
    passes_soon(run, probe)
    for _ in range(20):
        assert "latency_seconds" in run(probe)

    server.pause()
    for _ in range(2):
        assert isinstance(fails(run, probe), ProbeTimeoutError)
    server.resume()
    passes_soon(run, probe)

    server.kill()
    for _ in range(2):
        assert re.search("efused|111", str(fails(run, probe)))
    server.start()
    passes_soon(run, probe)
    run.close_probe(probe)
    run(probe)
    run.close_probe(probe)
    until_sync(lambda: len(foreign_threads()) <= len(threads))  # some end late


@pytest.mark.parametrize("kind", ["nats", "mqtt"])
def test_a_restart_between_two_runs_goes_unnoticed(kind: str, lend: Lend, run: Runner) -> None:
    probe_of, server_of = KINDS[kind]
    server = lend(server_of)
    probe = probe_of(server.dsn(), timeout=PATIENCE)
    run(probe)
    server.restart()
    run(probe)


@pytest.mark.parametrize("kind", ["nats", "mqtt", "amqp"])
def test_a_wrong_password(kind: str, lend: Lend, run: Runner) -> None:
    probe_of, server_of = KINDS[kind]
    probe = probe_of(lend(server_of).dsn(password=f"not-{PASSWORD}"))
    for _ in range(2):
        assert any(word in str(fails(run, probe)) for word in ("uthori", "REFUSED"))


def over_tls(kind: str, server: Any, *, host: str = "127.0.0.1", trusted: bool = True) -> Any:
    context = server.trust if trusted else ssl.create_default_context()
    if kind == "amqp":
        return AMQPProbe(server.parameters(context, host), timeout=PATIENCE)
    probe_of: Any = {"mqtt": MQTTProbe, "nats": NATSProbe}[kind]
    return probe_of(server.tls_url(host), verify=context, timeout=PATIENCE)


@pytest.mark.parametrize("kind", TLS_KINDS)
def test_tls_is_spoken_and_the_certificate_checked(kind: str, lend: Lend, run: Runner) -> None:
    server = lend(TLS_KINDS[kind])
    run(over_tls(kind, server))
    assert "certificate" in str(fails(run, over_tls(kind, server, trusted=False)))
    assert "certificate" in str(fails(run, over_tls(kind, server, host=OTHER_NAME)))
    if kind != "amqp":  # where it is for pika's parameters to say
        probe_of: Any = KINDS[kind][0]
        run(probe_of(server.tls_url(OTHER_NAME), verify=False, timeout=PATIENCE))


@pytest.mark.parametrize("kind", KINDS)
def test_runs_at_once_from_many_threads_or_tasks(kind: str, lend: Lend, run: Runner) -> None:
    probe_of, server_of = KINDS[kind]
    run.together(probe_of(lend(server_of).dsn(), timeout=PATIENCE), 10)


FORK = """
import asyncio, os, sys
from healthmw.probes import probe_from_dsn

def sockets():
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # the listing's own
    return {one for one in found if one.startswith("socket:")}

probe = probe_from_dsn(os.environ["DSN"], timeout=30)
probe()
before = sockets()
child = os.fork()
if child == 0:
    probe()
    probe()
    sys.exit(0)  # a whole exit, which finds all that the child inherited
status = os.waitpid(child, 0)[1]
probe()
print(status, len(before) > 0, sockets() == before)
asyncio.run(probe.aclose())
"""


@pytest.mark.parametrize("kind", ["mqtt", "kafka", "amqp"])  # no loop, as NATS's, survives a fork
def test_a_fork_leaves_the_parents_connection_alone(kind: str, lend: Lend) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "DSN": lend(KINDS[kind][1]).dsn()},
        capture_output=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert (done.stderr, done.stdout) == (b"", b"0 True True\n")


def test_an_apps_own_nats_client_is_asked_and_left_open(lend: Lend, run: Runner) -> None:
    import nats

    async def main() -> None:
        client = await nats.connect(server.dsn(), reconnect_time_wait=0)
        probe = NATSProbe(client)
        await probe()
        await probe.aclose()
        assert client.is_connected
        await client.close()
        with pytest.raises(ProbeFailedError, match="losed"):
            await probe()

    server = lend(NATS)
    run.run(main())


def test_an_apps_own_nats_client_outlives_a_run_that_was_cut_off(lend: Lend, run: Runner) -> None:
    import nats

    async def main() -> None:
        client = await nats.connect(server.dsn())
        orders = await client.subscribe("orders")
        server.pause()
        for _ in range(2):
            with pytest.raises(ProbeTimeoutError):
                await NATSProbe(client, timeout=0.2)()
        server.resume()
        await NATSProbe(client, timeout=PATIENCE)()
        await client.publish("orders", b"tea")
        assert (await orders.next_msg(timeout=PATIENCE)).data == b"tea"
        await client.close()

    server = lend(NATS)
    run.run(main())


def test_an_apps_own_nats_client_that_has_stopped_reading_fails(lend: Lend, run: Runner) -> None:
    import nats

    async def main() -> None:
        client = await nats.connect(server.dsn())
        await NATSProbe(client)()
        reading = client._reading_task
        assert reading is not None
        reading.cancel()
        await asyncio.wait({reading})
        with pytest.raises(ProbeFailedError, match="the client has stopped reading"):
            await NATSProbe(client)()
        await client.close()

    server = lend(NATS)
    run.run(main())


def test_a_stream_and_what_its_consumer_has_still_to_read(lend: Lend, run: Runner) -> None:
    import nats
    from nats.js.api import ConsumerConfig

    async def fill() -> None:
        client = await nats.connect(server.dsn())
        jetstream = client.jetstream()
        await jetstream.add_stream(name="orders", subjects=["orders"])
        await jetstream.add_consumer("orders", ConsumerConfig(durable_name="mailer"))
        for _ in range(3):
            await jetstream.publish("orders", b"tea")
        await client.close()

    server = lend(NATS)
    run.run(fill())
    url = server.dsn()
    assert run(NATSProbe(url, stream="orders"))["stream_messages"] == 3
    found = run(NATSProbe(url, stream="orders", consumer="mailer", max_pending=3))
    assert (found["pending_messages"], found["unacknowledged_messages"]) == (3, 0)
    late = NATSProbe(url, stream="orders", consumer="mailer", max_pending=2)
    assert run.outcome(late)[0] == "3 messages pending for 'mailer', more than 2"
    assert str(fails(run, NATSProbe(url, stream="nope"))) == "stream 'nope': stream not found"
    missing = NATSProbe(url, stream="orders", consumer="nope")
    said = "consumer 'nope' of stream 'orders': consumer not found"
    assert str(fails(run, missing)) == said


def test_tls_that_nats_does_not_speak_is_no_pass_in_the_clear(lend: Lend, run: Runner) -> None:
    plain = lend(NATS).dsn().replace("nats://", "tls://")
    assert "does not go over to TLS" in str(fails(run, NATSProbe(plain)))


def test_an_mqtt_topic_is_written_and_read_back(lend: Lend, run: Runner) -> None:
    probe = MQTTProbe(lend(Mosquitto).dsn(), topic="healthmw/probe")
    for _ in range(3):
        run(probe)


def test_an_mqtt_topic_that_may_not_be_read(lend: Lend, run: Runner) -> None:
    # Mosquitto lets nobody subscribe to what begins with $share and has no group.
    probe = MQTTProbe(lend(Mosquitto).dsn(), topic="$share/")
    assert str(fails(run, probe))


def test_a_kafka_topic_and_its_groups_lag(lend: Lend, run: Runner) -> None:
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # it has

    server = lend(Kafka)
    settings: dict[str, Any] = {"bootstrap.servers": f"127.0.0.1:{server.port}", "log_level": 0}
    admin = AdminClient(settings)
    admin.create_topics([NewTopic("orders", 1, 1)])["orders"].result(PATIENCE)
    lagging = KafkaProbe(settings, topic="orders", group="mailer", max_lag=2)
    assert "'mailer' has committed no offset in 'orders'" in str(fails(run, lagging))
    producer = Producer(settings)
    for _ in range(5):
        producer.produce("orders", b"tea")
        assert producer.flush(PATIENCE) == 0
    consumer = Consumer({**settings, "group.id": "mailer"})
    consumer.commit(offsets=[TopicPartition("orders", 0, 2)], asynchronous=False)
    degraded, found = run.outcome(lagging)
    assert (degraded, found["lag_messages"]) == (
        "'mailer' has 3 messages still to read, more than 2",
        3,
    )
    consumer.commit(offsets=[TopicPartition("orders", 0, 3)], asynchronous=False)
    assert run(lagging)["lag_messages"] == 2
    consumer.close()
    assert "there is no topic 'nope'" in str(fails(run, KafkaProbe(server.dsn(), topic="nope")))


@pytest.fixture
def channel(lend: Lend) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(lend(RabbitMQ).dsn()))
    yield connection.channel()
    connection.close()


def test_a_queue_its_consumers_and_its_depth(lend: Lend, channel: Any, run: Runner) -> None:
    url = lend(RabbitMQ).dsn()
    probe = AMQPProbe(url, queue="post", max_depth=1)
    assert "no queue 'post'" in str(fails(run, probe))
    channel.queue_declare("post", auto_delete=True)
    assert "no queue 'post'" not in repr(run(probe))
    for _ in range(2):
        channel.basic_publish("", "post", b"tea")
    channel.queue_declare("post", passive=True)  # which shows that both are in it
    degraded, found = run.outcome(probe)
    assert degraded == "2 messages in 'post', more than 1"
    assert (found["messages"], found["consumers"]) == (2, 0)
    read = AMQPProbe(url, queue="post", min_consumers=1)
    assert "0 consumer(s) on 'post', expected 1" in str(fails(run, read))
    channel.basic_consume("post", lambda *_: None)
    assert run(read)["consumers"] == 1


def test_pikas_own_parameters_are_left_as_they_are(lend: Lend, run: Runner) -> None:
    server = lend(RabbitMQ)
    given = pika.ConnectionParameters(
        port=server.port, host="127.0.0.1", credentials=pika.PlainCredentials(USER, PASSWORD)
    )
    before = repr(given), given.heartbeat, given.client_properties
    run(AMQPProbe(given))
    assert (repr(given), given.heartbeat, given.client_properties) == before


def test_rabbitmq_sees_one_connection_under_500_requests_at_once(lend: Lend, run: Runner) -> None:
    server = lend(RabbitMQ)
    before, there = server.opened(), len(server.connections())

    def watched() -> Health:
        health = Health(max_age=0.0)
        health.add("broker", AMQPProbe(server.dsn()), timeout=PATIENCE)
        return health

    async def ask_all() -> None:
        health = watched()
        app = AsgiMiddleware(_nothing, health)
        async with health:
            requests = [ask_asgi(app, path="/health_check") for _ in range(500)]
            assert {answer.status for answer in await asyncio.gather(*requests)} == {200}
            assert len(server.connections()) == there + 1

    run.run(ask_all())
    assert server.opened() == before + 1

    health = watched()
    app = WsgiMiddleware(_nothing_sync, health)
    start = threading.Barrier(500)

    def ask() -> int:
        start.wait(PATIENCE)
        return ask_wsgi(app, path="/health_check").status

    with ThreadPoolExecutor(500) as pool:
        assert {one.result() for one in [pool.submit(ask) for _ in range(500)]} == {200}
    assert len(server.connections()) == there + 1
    assert server.opened() == before + 2
    run.run(health.aclose())


async def _nothing(scope: Any, receive: Any, send: Any) -> None: ...


def _nothing_sync(environ: Any, start_response: Any) -> list[bytes]:
    return []
