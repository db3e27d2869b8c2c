"""PostgreSQL and MariaDB, through their drivers alone."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from healthmw.probes import AsyncmyProbe, AsyncpgProbe, PsycopgProbe, PyMySQLProbe
from tests.faults.databases import MariaDBSubject, PostgreSQLSubject

if TYPE_CHECKING:
    from healthmw._probe import Probe
    from tests.faults.subject import Address


class Psycopg(PostgreSQLSubject):
    """By psycopg."""

    name = "`PsycopgProbe`"

    def probe(self, at: Address, timeout: float) -> Probe:
        return PsycopgProbe(
            f"{self.url(at, 'postgresql')}?{urlencode(self.libpq(at))}", timeout=timeout
        )


class Asyncpg(PostgreSQLSubject):
    """By asyncpg."""

    name = "`AsyncpgProbe`"

    def probe(self, at: Address, timeout: float) -> Probe:
        options = {"sslmode": "disable"}
        if at.ca is not None:
            options = {"sslmode": "verify-full", "sslrootcert": str(at.ca)}
        return AsyncpgProbe(f"{self.url(at, 'postgresql')}?{urlencode(options)}", timeout=timeout)


class PyMySQL(MariaDBSubject):
    """By PyMySQL."""

    name = "`PyMySQLProbe`"

    def probe(self, at: Address, timeout: float) -> Probe:
        tls: dict[str, Any] = {"ssl_disabled": True}
        if at.ca is not None:
            tls = {"ssl_ca": str(at.ca), "ssl_verify_identity": True}
        return PyMySQLProbe({**self.options(at), **tls}, timeout=timeout)


class Asyncmy(MariaDBSubject):
    """By asyncmy."""

    name = "`AsyncmyProbe`"

    def probe(self, at: Address, timeout: float) -> Probe:
        tls: dict[str, Any] = {}
        if at.ca is not None:
            tls = {"ssl": ssl.create_default_context(cafile=at.ca)}
        return AsyncmyProbe({**self.options(at), **tls}, timeout=timeout)
