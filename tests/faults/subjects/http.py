"""An HTTP service, on uvicorn."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from healthmw.probes import HTTPProbe, TCPProbe
from tests.faults.subject import Address, Fault, Subject
from tests.services.servers import PASSWORD, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from healthmw._probe import Probe

_LIMIT = 8
"""So many connections the service takes; to further ones it says 503."""

_ROOT = str(Path(__file__).parent.parent.parent.parent)


class Service(Server):
    """Says welcome to those who know the password."""

    account = "root"  # if that is who runs the tests: their Python may be for no one else to run

    app = "tests.faults.http_apps:welcome"

    def __init__(self) -> None:
        super().__init__()
        self.expect(PASSWORD)

    def expect(self, password: str) -> None:
        """Take this password from now on."""
        self.folder.joinpath("password").write_text(password, encoding="utf-8")

    def command(self) -> Sequence[str]:
        return (
            sys.executable, "-m", "uvicorn", self.app, "--app-dir", _ROOT,
            "--port", str(self.port), "--limit-concurrency", str(_LIMIT), "--log-level", "warning",
            "--lifespan", "off", "--timeout-keep-alive", "600",
        )  # fmt: skip

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5)
        except urllib.error.HTTPError as refused:
            refused.close()
            return True
        except OSError:
            return False
        return True


class ServiceSubject(Subject):
    """A probe of the service."""

    server: Service

    def new_server(self) -> Service:
        return Service()

    def accept(self, password: str) -> None:
        self.server.expect(password)

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(_LIMIT):
                stack.enter_context(socket.create_connection(("127.0.0.1", self.server.port)))
            yield


class HTTP(ServiceSubject):
    """By a client of the probe's own."""

    name = "`HTTPProbe`"

    def probe(self, at: Address, timeout: float) -> Probe:
        import ssl

        options: dict[str, Any] = {}
        if at.ca is not None:
            options["verify"] = ssl.create_default_context(cafile=at.ca)
        scheme = "http" if at.ca is None else "https"
        url = f"{scheme}://app:{at.password}@{at.host}:{at.port}/up"
        return HTTPProbe(url, expect_body="welcome", timeout=timeout, **options)


class TCP(ServiceSubject):
    """Of the same service, by its port alone."""

    name = "`TCPProbe`"
    blind = frozenset({Fault.FROZEN, Fault.SILENT, Fault.DRIP})
    no = {  # noqa: RUF012 - as in the base class
        Fault.PASSWORD: "the probe connects and does not log in",
        Fault.FULL: "the probe connects, and the kernel accepts for a server that takes no more",
        Fault.EXPIRED: "the probe connects and speaks no TLS",
        Fault.MISNAMED: "the probe connects and speaks no TLS",
    }

    def probe(self, at: Address, timeout: float) -> Probe:
        return TCPProbe(at.host, at.port, timeout=timeout)
