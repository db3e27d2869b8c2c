"""Kafka's protocol, as Tansu speaks it."""

from __future__ import annotations

import shlex
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from healthmw.probes import KafkaProbe
from tests.faults.subject import Address, Fault, Subject
from tests.services.brokers import Kafka

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from healthmw._probe import Probe

_LIMIT = 40
"""So many files the broker may open, and so it takes fewer connections than that."""


class _SmallKafka(Kafka):
    """With a limit; it tells clients to come by the proxy."""

    def __init__(self) -> None:
        super().__init__()
        self.public_port = self.port

    def command(self) -> Sequence[str]:
        program, *rest = super().command()
        own = f"tcp://127.0.0.1:{self.port}"
        at = rest.index("--advertised-listener-url") + 1
        assert rest[at] == own
        rest[at] = f"tcp://127.0.0.1:{self.public_port}"
        line = shlex.join([program, *rest])
        return ("sh", "-c", f"ulimit -n {_LIMIT} && exec {line}")


class Confluent(Subject):
    """By librdkafka."""

    name = "`KafkaProbe`, Tansu"
    no = {  # noqa: RUF012 - as in the base class
        Fault.PASSWORD: "Tansu, the broker of the tests, knows no users with its data in memory",
    }
    surely_before = 0.7  # librdkafka learns more than the probe asks for
    resolver = "librdkafka asks C's resolver, which the test has no hand in"
    server: _SmallKafka

    def new_server(self) -> _SmallKafka:
        return _SmallKafka()

    def reached_at(self, port: int) -> None:
        self.server.public_port = port
        if self.server.pids():
            self.server.restart()

    def probe(self, at: Address, timeout: float) -> Probe:
        settings: dict[str, Any] = {"bootstrap.servers": f"{at.host}:{at.port}"}
        if at.ca is not None:
            settings |= {"security.protocol": "ssl", "ssl.ca.location": str(at.ca)}
        return KafkaProbe(settings, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(_LIMIT):
                sock = socket.create_connection(("127.0.0.1", self.server.port))
                stack.enter_context(sock)
            yield
