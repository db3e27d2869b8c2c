"""What the subjects on PostgreSQL share, and those on MariaDB."""

from __future__ import annotations

import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tests.faults.subject import Subject
from tests.services.servers import PASSWORD, MariaDB, PostgreSQL

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.faults.subject import Address


class PostgreSQLSubject(Subject):
    """A probe of PostgreSQL."""

    server: PostgreSQL
    _password = PASSWORD

    def new_server(self) -> PostgreSQL:
        return PostgreSQL(max_connections=12)

    @contextmanager
    def fill(self) -> Iterator[None]:
        import psycopg

        with ExitStack() as stack:
            try:
                while True:
                    stack.enter_context(psycopg.connect(self.server.dsn(password=self._password)))
            except psycopg.OperationalError:  # too many clients already
                yield

    def accept(self, password: str) -> None:
        import psycopg

        with psycopg.connect(self.server.dsn(password=self._password)) as connection:
            connection.execute(f"ALTER ROLE {self.server.user} PASSWORD '{password}'")
        self._password = password

    async def before_tls(self, reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(8)  # the SSLRequest
        writer.write(b"S")
        await writer.drain()

    def url(self, at: Address, scheme: str) -> str:
        return f"{scheme}://{self.server.user}:{at.password}@{at.host}:{at.port}/postgres"

    @staticmethod
    def libpq(at: Address) -> dict[str, str]:
        """Return libpq's options for TLS."""
        if at.ca is None:
            return {"sslmode": "disable", "gssencmode": "disable"}
        return {"sslmode": "verify-full", "sslrootcert": str(at.ca), "gssencmode": "disable"}

    @staticmethod
    def context(at: Address) -> ssl.SSLContext | bool:
        return at.ca is not None and ssl.create_default_context(cafile=at.ca)


class MariaDBSubject(Subject):
    """A probe of MariaDB, which speaks TLS itself."""

    server: _MariaDB
    _password = PASSWORD

    def new_server(self) -> MariaDB:
        return _MariaDB()

    @contextmanager
    def fill(self) -> Iterator[None]:
        import pymysql

        with ExitStack() as stack:
            # One more than this is kept free for users who may mend things, as ours may.
            self._ask("SET GLOBAL max_connections = 10")
            stack.callback(self._ask, "SET GLOBAL max_connections = 100")
            try:
                while True:
                    stack.callback(self._connect().close)
            except pymysql.err.OperationalError:  # too many connections
                yield

    def accept(self, password: str) -> None:
        self._ask(f"SET PASSWORD = PASSWORD('{password}')")
        self._password = password

    def present(self, certificate: Path, key: Path) -> None:
        self.server.show(certificate, key)
        self._ask("FLUSH SSL")

    def url(self, at: Address, scheme: str) -> str:
        return f"{scheme}://{self.server.user}:{at.password}@{at.host}:{at.port}/app"

    def options(self, at: Address) -> dict[str, Any]:
        return {
            "host": at.host,
            "port": at.port,
            "user": self.server.user,
            "password": at.password,
            "database": "app",
        }

    def _connect(self) -> Any:
        import pymysql

        return pymysql.connect(
            host="127.0.0.1", port=self.server.port, user=self.server.user, password=self._password
        )

    def _ask(self, query: str) -> None:
        connection = self._connect()
        with connection, connection.cursor() as cursor:
            cursor.execute(query)


class _MariaDB(MariaDB):
    """With a certificate."""

    def __init__(self) -> None:
        super().__init__()
        import trustme

        issued = trustme.CA().issue_cert("127.0.0.1")
        self._certificate = self.folder / "cert.pem"
        self._key = self.folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(self._certificate)
        issued.private_key_pem.write_to_path(self._key)

    def show(self, certificate: Path, key: Path) -> None:
        self._certificate.write_bytes(certificate.read_bytes())
        self._key.write_bytes(key.read_bytes())

    def command(self) -> Sequence[str]:
        return (*super().command(), f"--ssl-cert={self._certificate}", f"--ssl-key={self._key}")
