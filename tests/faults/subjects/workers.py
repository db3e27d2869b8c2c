"""Workers and their queues, on Redis: the server is Redis with a worker."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from healthmw.exceptions import ProbeFailedError
from healthmw.probes import CeleryProbe, DramatiqProbe, RQProbe
from tests.faults.app import PATIENCE
from tests.faults.subject import Address
from tests.faults.subjects.redis import RedisSubject
from tests.services.servers import PASSWORD, Redis
from tests.services.workers import Worker

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

_WORKER = "worker"
"""A user of the worker's own, whom the faults that are the probe's don't concern."""


class _Staffed(Redis):
    """Redis and a worker, which share their fate."""

    def __init__(self, command: str, probe: Callable[[Address, float], Any]) -> None:
        super().__init__()
        self._command = command
        self._probe = probe
        self._worker: Worker | None = None

    def command(self) -> Sequence[str]:
        acl = self.folder / "users.acl"
        acl.write_text(
            f"user default on >{PASSWORD} ~* &* +@all\nuser {_WORKER} on >{PASSWORD} ~* &* +@all\n",
            encoding="utf-8",
        )
        acl.chmod(0o644)
        own, password = super().command(), "--requirepass"
        return (*own[: own.index(password)], "--aclfile", str(acl))

    def start(self) -> None:
        super().start()
        broker = f"redis://{_WORKER}:{PASSWORD}@127.0.0.1:{self.port}/0"
        command = self._command.format(broker=broker).split()
        self._worker = Worker(*command, broker=broker)
        self._wait_for_worker()

    def signal(self, number: signal.Signals) -> None:
        super().signal(number)
        if self._worker is not None:
            self._worker.signal(number)

    def kill(self) -> None:
        super().kill()
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _wait_for_worker(self) -> None:
        probe = self._probe(Address(host="127.0.0.1", port=self.port, password=PASSWORD), 5.0)
        give_up = time.monotonic() + PATIENCE
        try:
            while True:
                try:
                    probe()
                except ProbeFailedError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.05)
                else:
                    break
        finally:
            asyncio.run(probe.aclose())


class WorkersSubject(RedisSubject):
    """A probe of workers."""

    worker: str
    """Its command, as for `python -m`."""

    def new_server(self) -> Redis:
        return _Staffed(self.worker, self.probe)

    def url(self, at: Address) -> str:
        scheme = "redis" if at.ca is None else "rediss"
        return f"{scheme}://:{at.password}@{at.host}:{at.port}/0"

    @staticmethod
    def tls(at: Address) -> dict[str, str]:
        return {} if at.ca is None else {"ssl_cert_reqs": "required", "ssl_ca_certs": str(at.ca)}


class Celery(WorkersSubject):
    """Celery's, which are asked through the broker."""

    name = "`CeleryProbe`, Redis"
    worker = "celery -A celery_app worker -P solo --without-gossip --without-mingle"

    def probe(self, at: Address, timeout: float) -> Any:
        import celery

        app = celery.Celery(broker=self.url(at), set_as_current=False)
        if at.ca is not None:
            import ssl

            app.conf.broker_use_ssl = {**self.tls(at), "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return CeleryProbe(app, timeout=timeout)


class Dramatiq(WorkersSubject):
    """Dramatiq's, by what they leave in Redis."""

    name = "`DramatiqProbe`, Redis"
    worker = "dramatiq -p 1 -t 1 dramatiq_app"

    def probe(self, at: Address, timeout: float) -> Any:
        import redis
        from dramatiq.brokers.redis import RedisBroker

        client = redis.Redis.from_url(self.url(at), **self.tls(at))
        broker: Any = RedisBroker(client=client)  # type: ignore[no-untyped-call] # Dramatiq's
        return DramatiqProbe(broker, timeout=timeout)


class Rq(WorkersSubject):
    """RQ's, by what they leave in Redis."""

    name = "`RQProbe`"
    worker = "rq.cli worker --url {broker}"

    def probe(self, at: Address, timeout: float) -> Any:
        import redis

        return RQProbe(redis.Redis.from_url(self.url(at), **self.tls(at)), timeout=timeout)
