"""Probes of workers against real ones, which are paused and killed, on brokers that crash."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import celery
import pytest
import redis
import rq
from dramatiq import Message
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

from healthmw import Health
from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError
from healthmw.probes import CeleryProbe, DramatiqProbe, RQProbe
from tests.probes.running import Runner
from tests.services.brokers import RabbitMQ
from tests.services.servers import PASSWORD, Redis
from tests.services.workers import Worker
from tests.waiting import until_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Lend = Callable[[type[Any]], Any]

PATIENCE = 25.0
ON: dict[str, type[Any]] = {"redis": Redis, "rabbitmq": RabbitMQ}


@pytest.fixture
def workers() -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(*command: str, broker: str) -> Worker:
        started.append(Worker(*command, broker=broker))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


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
    assert PASSWORD not in f"{info.value!r}{info.value}{info.value.__cause__!r}{probe!r}"
    return info.value


def until(run: Runner, probe: Any, said: str) -> None:
    """Wait for the run that says it; nothing said is a pass."""
    give_up = time.monotonic() + PATIENCE
    told = None
    while told != said:
        assert time.monotonic() < give_up, f"{told!r} was the last, {said!r} is wanted"
        try:
            told = run.outcome(probe)[0] or ""
        except ProbeFailedError as exc:
            told = str(exc)
        time.sleep(0.05)


def from_well_to_gone(run: Runner, probe: Any, worker: Worker, server: Any, none: str) -> None:
    """Take a worker and then its broker down. Both have to be noticed, in time."""
    until(run, probe, "")
    worker.signal(signal.SIGSTOP)
    until(run, probe, none)
    worker.signal(signal.SIGCONT)
    until(run, probe, "")
    worker.kill()
    until(run, probe, none)
    server.pause()
    for _ in range(2):
        assert isinstance(fails(run, probe), ProbeTimeoutError)
    server.resume()
    until(run, probe, none)
    if isinstance(server, RabbitMQ):
        return  # its restart takes too long to have it twice
    server.kill()
    for _ in range(2):
        assert "efused" in str(fails(run, probe))


@pytest.mark.parametrize("on", ON)
def test_celery(on: str, lend: Lend, workers: Callable[..., Worker], run: Runner) -> None:
    server = lend(ON[on])
    app = celery.Celery("shop", broker=server.dsn())
    # Patience where an answer must come in time, and none where none will come.
    command = "celery -A celery_app worker -c 1 -n one@test --without-gossip --without-mingle"
    worker = workers(*command.split(), broker=server.dsn())
    until(run, CeleryProbe(app), "")
    patient = CeleryProbe(app, queue="celery", max_depth=0, timeout=PATIENCE)
    assert (run(patient)["workers"], run(patient)["messages"]) == (1, 0)
    run(CeleryProbe(app, workers=["one@test"], timeout=PATIENCE))
    both = CeleryProbe(app, workers=["one@test", "two@test"])
    assert str(fails(run, both)).endswith("answered within 2 s, expected two@test too")

    worker.signal(signal.SIGSTOP)
    none = "0 worker(s) answered within 2 s, expected 1"
    assert str(fails(run, CeleryProbe(app))) == none
    app.send_task("late")
    shallow = CeleryProbe(app, queue="waiting", max_depth=0)
    with app.connection_for_write() as connection:
        connection.SimpleQueue("waiting").put("tea")
    worker.signal(signal.SIGCONT)
    until(run, shallow, "1 messages in 'waiting', more than 0")
    from_well_to_gone(run, CeleryProbe(app), worker, server, none)
    app.close()


@pytest.mark.parametrize("on", ON)
def test_that_no_worker_of_celery_answers_is_told_before_the_check_times_out(
    on: str, lend: Lend
) -> None:
    app = celery.Celery("shop", broker=lend(ON[on]).dsn())
    health = Health()
    health.add("workers", CeleryProbe(app, timeout=5), timeout=5)
    result = health.run_sync("workers").results["workers"]
    assert result.detail == "0 worker(s) answered within 5 s, expected 1"
    anyio.run(health.aclose)
    app.close()


def test_celerys_probe_leaves_nothing_in_redis(
    lend: Lend, workers: Callable[..., Worker], run: Runner
) -> None:
    server = lend(Redis)
    app = celery.Celery("shop", broker=server.dsn())
    inspector = redis.Redis.from_url(server.dsn())
    workers("celery", "-A", "celery_app", "worker", "-c", "1", broker=server.dsn())
    probe = CeleryProbe(app)
    until(run, probe, "")
    before = len(inspector.client_list())
    keys = inspector.dbsize()
    for _ in range(10):
        until(run, probe, "")
    assert len(inspector.client_list()) <= before
    assert inspector.dbsize() <= keys
    inspector.close()
    app.close()


def test_celerys_probe_does_no_work_of_the_workers(lend: Lend) -> None:
    server = lend(Redis)
    app = celery.Celery("shop", broker=server.dsn())
    app.send_task("charge")
    inspector = redis.Redis.from_url(server.dsn())
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        taken = queue.get(timeout=PATIENCE)
        inspector.zadd("unacked_index", {taken.delivery_tag: 0})  # a very long time ago
        probe = CeleryProbe(app, timeout=0.3)

        def ask() -> None:
            with pytest.raises(ProbeFailedError, match="answered"):
                probe()

        before = 0
        for number in range(6):
            # Where it gave such a message back to the queue, it left a file open for each thread.
            with ThreadPoolExecutor(1) as pool:
                pool.submit(ask).result()
            if not number:
                before = len([*Path("/dev/fd").iterdir()])
        assert len([*Path("/dev/fd").iterdir()]) <= before
        assert inspector.zcard("unacked_index") == 1
        assert inspector.llen("celery") == 0
        taken.ack()
        anyio.run(probe.aclose)
    inspector.close()
    app.close()


def test_a_celery_queue_that_is_not_there(lend: Lend, run: Runner) -> None:
    on_redis, on_rabbitmq = (
        CeleryProbe(celery.Celery(broker=lend(kind).dsn()), queue="nope", max_depth=0)
        for kind in ON.values()
    )
    assert "no queue 'nope'" in str(fails(run, on_rabbitmq))
    assert "0 worker(s) answered" in str(fails(run, on_redis))  # there it is an empty one


def test_rq(lend: Lend, workers: Callable[..., Worker], run: Runner) -> None:
    server = lend(Redis)
    client = redis.Redis.from_url(server.dsn(), decode_responses=True)
    probe = RQProbe(client, max_heartbeat_age=6.0)
    none = "0 worker(s) on 'default', expected 1"
    assert str(fails(run, probe)) == none
    worker = workers("rq.cli", "worker", "--url", server.dsn(), "--worker-ttl", "16", broker="")
    until(run, probe, "")
    assert run(probe)["workers"] == 1
    other = RQProbe(client, queues=["default", "mail"])
    assert str(fails(run, other)) == "0 worker(s) on 'mail', expected 1"

    rq.Queue("mail", connection=redis.Redis.from_url(server.dsn())).enqueue(print, "tea")
    deep = RQProbe(client, queues="mail", min_workers=0, max_depth=0)
    until(run, deep, "1 jobs in 'mail', more than 0")
    old = RQProbe(client, queues="mail", min_workers=0, max_job_age=1.5)
    until(run, old, "a job has waited in 'mail' for 2 s")
    client.set("rq:suspended", 1)
    until(run, probe, "the workers are suspended")
    client.delete("rq:suspended")
    from_well_to_gone(run, probe, worker, server, none)
    client.close()


def test_a_run_goes_on_though_its_probe_is_closed(lend: Lend, run: Runner) -> None:
    server = lend(Redis)
    with redis.Redis.from_url(server.dsn(), single_connection_client=True) as client:
        probe = RQProbe(client, min_workers=0, timeout=PATIENCE)
        run(probe)
        before = len(client.client_list()) - 1
        server.pause()
        run.close_during(probe, then=server.resume)
        until_sync(lambda: len(client.client_list()) == before)


@pytest.mark.parametrize("on", ON)
def test_dramatiq(on: str, lend: Lend, workers: Callable[..., Worker], run: Runner) -> None:
    server = lend(ON[on])
    broker: Any = (RedisBroker if on == "redis" else RabbitmqBroker)(url=server.dsn())
    probe = DramatiqProbe(broker, max_heartbeat_age=4.0)  # on RabbitMQ it says nothing
    worker = workers("dramatiq", "-p", "1", "-t", "1", "dramatiq_app", broker=server.dsn())
    until(run, probe, "")
    assert run(probe)["workers"] == 1

    broker.declare_queue("mail")
    broker.enqueue(Message("mail", "send_mail", ("ann",), {}, {}))
    deep = DramatiqProbe(broker, queues="mail", min_workers=0, max_depth=0)
    until(run, deep, "1 messages in 'mail', more than 0")
    none = "0 worker(s) on 'default', expected 1"
    if on == "redis":
        old = DramatiqProbe(broker, queues="mail", max_age=1.5)
        until(run, old, "the next message in 'mail' was sent 2 s ago")
        from_well_to_gone(run, probe, worker, server, none)
    else:
        assert "no queue 'nope'" in str(fails(run, DramatiqProbe(broker, queues="nope")))
        worker.kill()
        until(run, probe, none)
        server.pause()
        assert isinstance(fails(run, probe), ProbeTimeoutError)
        server.resume()
        until(run, probe, none)
    broker.close()
