"""What all deploys share: PostgreSQL, the revisions of the schema, and a payment service."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import psycopg

from tests.alembic_project import Release
from tests.programs import served
from tests.services.servers import PASSWORD, PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIEnvironment

_R1 = """
CREATE TABLE customers (name text, format text);
INSERT INTO customers VALUES ('Ada', '1'), ('Grace', '1');
GRANT SELECT, UPDATE ON customers, alembic_version TO shop
"""
_R2 = "ALTER TABLE customers ADD COLUMN full_name text"


class Stage:
    """Gives each deploy a database of its own, and a role that may use it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._folder = folder
        self._server = PostgreSQL(max_connections=300)
        stack.callback(self._server.close)
        self._server.start()
        self._lock = threading.Lock()
        self._number = 0
        self._admin = stack.enter_context(psycopg.connect(self._server.dsn(), autocommit=True))
        self._admin.execute("CREATE ROLE shop NOLOGIN")
        for name in ("r1", "r2"):
            self._admin.execute(f"CREATE DATABASE {name}")
            url = self._server.dsn("psycopg").removesuffix("postgres") + name
            release = Release(self.revisions(name), url).revision("r1", None, up=_R1)
            if name == "r2":
                release.revision("r2", "r1", up=_R2)
            release.upgrade()
        self.payments = f"http://127.0.0.1:{stack.enter_context(served(_payments))}/"
        """Where the payment service is."""
        nobody = stack.enter_context(socket.socket())
        nobody.bind(("127.0.0.1", 0))
        self.nobody = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        """Where nobody listens."""

    def revisions(self, name: str) -> Path:
        """Return the folder of the revisions up to this one."""
        return self._folder / name

    def database(self, schema: str, limit: int) -> str:
        """Make a database, and a role of its name that may have so many connections."""
        with self._lock:
            self._number += 1
            name = f"shop{self._number}"
            self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {schema}")
            self._admin.execute(
                f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' IN ROLE shop"
                f" CONNECTION LIMIT {limit}"
            )
        return name

    def dsn(self, role: str, database: str | None = None) -> str:
        """Return the address of the role's database, or of another one."""
        mine = self._server.dsn("psycopg").replace(f"//{self._server.user}:", f"//{role}:")
        return mine.removesuffix("postgres") + (database or role)


def _payments(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "4")])
    return [b"paid"]
