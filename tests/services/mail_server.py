"""A mail server: `python mail_server.py PORT TLS_PORT CERTIFICATE KEY PASSWORD`; three are files.

It is aiosmtpd's. On PORT it offers STARTTLS, and a login after that; on TLS_PORT it speaks TLS from
the first byte. It talks to `LIMIT` clients at once. The files are read for each of them, so that
they can be changed.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

LIMIT = 50


class Talk(SMTP):
    """A session with one client."""

    under_way: set[Talk] = set()  # noqa: RUF012 - one set for all

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.under_way.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.under_way.discard(self)
        super().connection_lost(error)


class Refusal(asyncio.Protocol):
    """What the client gets that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(b"421 4.3.2 too many connections\r\n")
        transport.close()


async def main(port: int, tls_port: int, certificate: Path, key: Path, password: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def log_in(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        wanted = LoginPassword(b"app", password.read_bytes())
        return AuthResult(success=data == wanted, handled=False)

    def receive(**options: Any) -> asyncio.Protocol:
        context.load_cert_chain(certificate, key)
        if len(Talk.under_way) >= LIMIT:
            return Refusal()
        return Talk(Sink(), authenticator=log_in, hostname="mail.test", **options)

    loop = asyncio.get_running_loop()
    plain = await loop.create_server(
        lambda: receive(tls_context=context, auth_exclude_mechanism=["PLAIN"]), "127.0.0.1", port
    )
    encrypted = await loop.create_server(
        lambda: receive(auth_require_tls=False), "127.0.0.1", tls_port, ssl=context
    )
    async with plain, encrypted:
        await asyncio.Event().wait()


if __name__ == "__main__":
    one, other, *files = sys.argv[1:]
    asyncio.run(main(int(one), int(other), *map(Path, files)))
