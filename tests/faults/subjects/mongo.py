"""MongoDB, by a stand-in."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from healthmw.probes import MongoProbe
from tests.faults.mongo_server import LIMIT
from tests.faults.subject import Address, Fault, Subject
from tests.services.servers import PASSWORD, Server
from tests.services.store_servers import answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from healthmw._probe import Probe

_ROOT = str(Path(__file__).parent.parent.parent.parent)


class _Member(Server):
    """The stand-in, which lets in who knows the password."""

    account = "root"  # if that is who runs the tests: their Python may be for no one else to run

    def __init__(self) -> None:
        super().__init__()
        self.secret = self.folder / "password"
        self.secret.write_text(PASSWORD, encoding="utf-8")

    def command(self) -> Sequence[str]:
        return (
            "env", f"PYTHONPATH={_ROOT}", sys.executable, "-m", "tests.faults.mongo_server",
            str(self.port), str(self.secret),
        )  # fmt: skip

    def ready(self) -> bool:
        return answers(self.port, b"", b"")


class Mongo(Subject):
    """By a URL."""

    name = "`MongoProbe`, stand-in"
    # Whether pymongo's watch of the server is cut off before, or else what the probe asks.
    wavers = frozenset({Fault.RESET})
    server: _Member

    def new_server(self) -> _Member:
        return _Member()

    def probe(self, at: Address, timeout: float) -> Probe:
        from pymongo import common

        # After a failure pymongo lets half a second pass, in which a hundred rounds would wait.
        common.MIN_HEARTBEAT_INTERVAL = 0.02
        options = "authMechanism=PLAIN&authSource=$external"
        if at.ca is not None:
            options += f"&tls=true&tlsCAFile={at.ca}"
        url = f"mongodb://app:{at.password}@{at.host}:{at.port}/?{options}"
        return MongoProbe(url, timeout=timeout)

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(2 * LIMIT):
                sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
                stack.enter_context(sock)
            assert not sock.recv(1)  # it was one too many
            yield

    def accept(self, password: str) -> None:
        self.server.secret.write_text(password, encoding="utf-8")
