"""The certificate that a server shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trustme

from healthmw.probes import CertificateProbe
from tests.faults.subject import Address, Fault
from tests.faults.subjects.http import Service, ServiceSubject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from healthmw._probe import Probe


class _TlsService(Service):
    """The service of HTTP, by TLS."""

    def __init__(self) -> None:
        super().__init__()
        authority = trustme.CA()
        self.ca = self.folder / "authority.pem"
        self._certificate = self.folder / "certificate.pem"
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("127.0.0.1", "fault-table.invalid")
        issued.private_key_and_cert_chain_pem.write_to_path(self._certificate)

    def command(self) -> Sequence[str]:
        return (*super().command(), "--ssl-certfile", str(self._certificate))

    def ready(self) -> bool:
        return self.listens()


class Certificate(ServiceSubject):
    """Of a service that speaks HTTPS."""

    name = "`CertificateProbe`"
    no = {  # noqa: RUF012 - as in the base class
        Fault.PASSWORD: "the probe shakes hands and does not log in",
        Fault.FULL: "the probe shakes hands, which comes before a server says that it is full",
    }
    surely_before = 0.5  # tickets for another handshake come after the first one
    server: _TlsService

    def new_server(self) -> _TlsService:
        return _TlsService()

    def probe(self, at: Address, timeout: float) -> Probe:
        ca = at.ca or self.server.ca
        return CertificateProbe(at.host, at.port, cafile=ca, timeout=timeout)
