"""Message brokers."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from healthmw.probes import AMQPProbe, MQTTProbe, NATSProbe
from tests.faults.app import PATIENCE
from tests.faults.subject import Address, Subject
from tests.services.brokers import NATS, USER, Mosquitto, RabbitMQ
from tests.services.servers import PASSWORD, find_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from healthmw._probe import Probe

_LIMIT = 8
"""So many clients NATS and Mosquitto take here."""


class Rabbit(Subject):
    """RabbitMQ."""

    name = "`AMQPProbe`, RabbitMQ"
    server: RabbitMQ

    def new_server(self) -> RabbitMQ:
        return RabbitMQ()

    def probe(self, at: Address, timeout: float) -> Probe:
        import pika

        tls = None
        if at.ca is not None:
            context = ssl.create_default_context(cafile=at.ca)
            tls = pika.SSLOptions(context, server_hostname=at.host)
        parameters = pika.ConnectionParameters(
            host=at.host,
            port=at.port,
            credentials=pika.PlainCredentials(USER, at.password),
            ssl_options=tls,
        )
        return AMQPProbe(parameters, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        self.server.ctl("set_vhost_limits", "-p", "/", '{"max-connections": 0}')
        try:
            yield
        finally:
            self.server.ctl("clear_vhost_limits", "-p", "/")

    def accept(self, password: str) -> None:
        self.server.ctl("change_password", USER, password)


class _SmallNATS(NATS):
    """With a limit, and a configuration that can be changed while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.configure(PASSWORD)

    def configure(self, password: str, tls: str = "") -> None:
        (self.folder / "nats.conf").write_text(
            f'authorization {{ user: {USER}, password: "{password}" }}\n'
            f"max_connections: {_LIMIT}\n{tls}",
            encoding="utf-8",
        )

    def reload(self) -> None:
        """Have it heed its changed configuration."""
        before = self._reloads()
        self.signal(signal.SIGHUP)
        give_up = time.monotonic() + PATIENCE
        while self._reloads() == before:
            if time.monotonic() > give_up:
                raise TimeoutError(self.tail())
            time.sleep(0.01)

    def _reloads(self) -> int:
        return self.log.read_text(encoding="utf-8").count("Reloaded server configuration")


class Nats(Subject):
    """NATS, which begins TLS after a first word in the clear."""

    name = "`NATSProbe`"
    server: _SmallNATS

    def new_server(self) -> _SmallNATS:
        return _SmallNATS()

    def probe(self, at: Address, timeout: float) -> Probe:
        verify = at.ca is None or ssl.create_default_context(cafile=at.ca)
        scheme = "nats" if at.ca is None else "tls"
        url = f"{scheme}://{USER}:{at.password}@{at.host}:{at.port}"
        return NATSProbe(url, verify=verify, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        login = {"user": USER, "pass": PASSWORD, "verbose": False}
        with ExitStack() as stack:
            for _ in range(_LIMIT):
                client = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)
                stack.enter_context(client)
                client.sendall(f"CONNECT {json.dumps(login)}\r\nPING\r\n".encode())
                while b"PONG" not in client.recv(4096):
                    pass
            yield

    def accept(self, password: str) -> None:
        self.server.configure(password)
        self.server.reload()

    def present(self, certificate: Path, key: Path) -> None:
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: {PATIENCE} }}\n'
        self.server.configure(PASSWORD, tls)
        self.server.reload()


class _SmallMosquitto(Mosquitto):
    """With a limit, which is that of the listener after which it stands."""

    def __init__(self) -> None:
        super().__init__()
        settings = self.folder / "mosquitto.conf"
        listener, rest = settings.read_text(encoding="utf-8").split("\n", 1)
        text = f"{listener}\nmax_connections {_LIMIT}\n{rest}"
        settings.write_text(text, encoding="utf-8")

    def take(self, password: str) -> None:
        """Take another password."""
        passwords = str(self.folder / "passwords")
        self.run(find_program("mosquitto_passwd"), "-b", passwords, USER, password)
        self.signal(signal.SIGHUP)


class Mqtt(Subject):
    """Mosquitto."""

    name = "`MQTTProbe`, Mosquitto"
    server: _SmallMosquitto

    def new_server(self) -> _SmallMosquitto:
        return _SmallMosquitto()

    def probe(self, at: Address, timeout: float) -> Probe:
        verify = at.ca is None or ssl.create_default_context(cafile=at.ca)
        scheme = "mqtt" if at.ca is None else "mqtts"
        url = f"{scheme}://{USER}:{at.password}@{at.host}:{at.port}"
        return MQTTProbe(url, verify=verify, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        # Mosquitto 2.0.11 counts some connections twice when they end. So from the beginning; and
        # more than the limit, for the one by which the restart was seen.
        self.server.restart()
        with ExitStack() as stack:
            for number in range(2 * _LIMIT):
                client = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE)
                stack.enter_context(client)
                with suppress(ConnectionError):
                    client.sendall(_mqtt_login(f"guest-{number}"))
                    client.recv(4)
            yield

    def accept(self, password: str) -> None:
        self.server.take(password)


def _mqtt_login(client_id: str) -> bytes:
    """Return a CONNECT of MQTT 3.1.1 with a clean session and without keep-alive."""
    texts = [text.encode() for text in (client_id, USER, PASSWORD)]
    body = b"\x00\x04MQTT\x04\xc2\x00\x00"
    body += b"".join(len(text).to_bytes(2, "big") + text for text in texts)
    return bytes([0x10, len(body)]) + body
