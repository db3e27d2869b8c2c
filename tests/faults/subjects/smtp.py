"""A mail server."""

from __future__ import annotations

import shutil
import socket
import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from healthmw.probes import SMTPProbe
from tests.faults.subject import Address, Subject
from tests.services.mail_server import LIMIT
from tests.services.store_servers import Mail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from healthmw._probe import Probe


class _Mail(Mail):
    """Whose certificate is for the name of the trial, too."""

    hosts = (*Mail.hosts, "fault-table.invalid")


class MailSubject(Subject):
    """With a login, for which the server asks for TLS first."""

    name = "`SMTPProbe`, STARTTLS"
    server: Mail

    def new_server(self) -> Mail:
        return _Mail()

    def probe(self, at: Address, timeout: float) -> Probe:
        trust = self.server.trust if at.ca is None else ssl.create_default_context(cafile=at.ca)
        return SMTPProbe(
            at.host,
            at.port,
            starttls=True,
            username=self.server.user,
            password=at.password,
            verify=trust,
            timeout=timeout,
        )

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(LIMIT):
                sock = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
                stack.enter_context(sock)
                sock.recv(1024)  # greeted, or told that there are too many
            yield

    def accept(self, password: str) -> None:
        self.server.secret.write_text(password, encoding="utf-8")

    def present(self, certificate: Path, key: Path) -> None:
        shutil.copyfile(certificate, self.server.certificate)
        shutil.copyfile(key, self.server.key)
