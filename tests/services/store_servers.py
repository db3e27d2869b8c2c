"""Real Memcached, OpenLDAP, S3 (moto) and mail servers, each on free ports."""

from __future__ import annotations

import shutil
import socket
import ssl
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import trustme

from tests.services.servers import PASSWORD, Server, find_program, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence


_MAIL = str(Path(__file__).with_name("mail_server.py"))


class Memcached(Server):
    """Memcached."""

    account = "memcache"

    def __init__(self) -> None:
        self._program = find_program("memcached")
        super().__init__()

    def command(self) -> Sequence[str]:
        return self._program, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "8"

    def ready(self) -> bool:
        return answers(self.port, b"version\r\n", b"VERSION")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def dsn(self) -> str:
        return f"memcached://{self.address}"


OTHER_NAME = "0.0.0.0"  # noqa: S104 - nothing is bound to it
"""What reaches this machine by a name that no server's certificate is for."""


class WithTLS(Server):
    """A server with a second port for TLS, and a certificate of its own authority."""

    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    """What the certificate is for."""

    def __init__(self) -> None:
        super().__init__()
        self.tls_port = free_port()
        self.authority = trustme.CA()
        issued = self.authority.issue_cert(*self.hosts)
        self.certificate, self.key = self.folder / "cert.pem", self.folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)
        if self._user is not None:
            for file in (self.certificate, self.key):
                shutil.chown(file, self._user)

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """What makes a client trust it."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


class Slapd(WithTLS):
    """OpenLDAP, with an empty database."""

    account = "openldap"
    bind_dn = "cn=admin,dc=example,dc=org"

    def __init__(self) -> None:
        self._program = find_program("slapd")
        super().__init__()
        schema = Path("/etc/ldap/schema")
        (self.folder / "data").mkdir()
        config = self.folder / "slapd.conf"
        config.write_text(
            f"include {schema / 'core.schema'}\n"
            "modulepath /usr/lib/ldap\nmoduleload back_mdb\n"
            f"pidfile {self.folder / 'pid'}\n"
            f"TLSCertificateFile {self.certificate}\nTLSCertificateKeyFile {self.key}\n"
            'database mdb\nsuffix "dc=example,dc=org"\n'
            f'rootdn "{self.bind_dn}"\nrootpw {PASSWORD}\ndirectory {self.folder / "data"}\n'
        )
        if self._user is not None:
            for path in (config, self.folder / "data"):
                shutil.chown(path, self._user)

    def command(self) -> Sequence[str]:
        urls = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.tls_port}"
        return self._program, "-d", "0", "-f", str(self.folder / "slapd.conf"), "-h", urls

    def ready(self) -> bool:
        # An anonymous bind, and the answer to it.
        return answers(self.port, bytes.fromhex("300c020101600702010304008000"), b"\x30")

    def dsn(self) -> str:
        return f"ldap://{quote(self.bind_dn)}:{PASSWORD}@127.0.0.1:{self.port}"

    def url(self, *, tls: bool = False) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}" if tls else f"ldap://127.0.0.1:{self.port}"


class S3(Server):
    """Moto's server, which keeps buckets in memory and lets everybody in."""

    def __init__(self) -> None:
        super().__init__()
        self._user = None  # nobody else may be able to run this Python

    def command(self) -> Sequence[str]:
        return sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)

    def ready(self) -> bool:
        return answers(self.port, b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Mail(WithTLS):
    """A mail server, see mail_server.py."""

    user = "app"

    def __init__(self) -> None:
        super().__init__()
        self._user = None  # nobody else may be able to run this Python
        self.secret = self.folder / "pw"
        self.secret.write_text(PASSWORD)

    def command(self) -> Sequence[str]:
        return (
            sys.executable, "-W", "ignore", _MAIL, str(self.port), str(self.tls_port),
            str(self.certificate), str(self.key), str(self.secret),
        )  # fmt: skip

    def ready(self) -> bool:
        return answers(self.port, b"", b"220 ") and answers(self.tls_port, b"", b"")

    def dsn(self) -> str:
        return f"smtp+starttls://{self.user}:{PASSWORD}@127.0.0.1:{self.port}"


def answers(port: int, asked: bytes, begins: bytes) -> bool:
    """Tell whether what listens on `port` answers so."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            if asked:
                sock.sendall(asked)
            return not begins or sock.recv(64).startswith(begins)
    except OSError:
        return False
