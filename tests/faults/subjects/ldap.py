"""An LDAP directory."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from healthmw.probes import LDAPProbe
from tests.faults.subject import Address, Fault, Subject
from tests.services.store_servers import Slapd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from healthmw._probe import Probe

_FILES = 64
"""So many files the directory may have open, and each connection is one."""


class _SmallSlapd(Slapd):
    """With a limit."""

    def command(self) -> Sequence[str]:
        return ("sh", "-c", f'ulimit -n {_FILES}; exec "$@"', "sh", *super().command())

    def expect(self, password: str) -> None:
        """Take this password from now on."""
        config = self.folder / "slapd.conf"
        lines = config.read_text(encoding="utf-8").splitlines()
        new = [f"rootpw {password}" if line.startswith("rootpw ") else line for line in lines]
        config.write_text("\n".join([*new, ""]), encoding="utf-8")
        self.restart()


class Directory(Subject):
    """OpenLDAP, bound to with a password."""

    name = "`LDAPProbe`"
    # Without a file for it slapd lets a connection wait, and at times closes it.
    wavers = frozenset({Fault.FULL})
    server: _SmallSlapd

    def new_server(self) -> _SmallSlapd:
        return _SmallSlapd()

    def probe(self, at: Address, timeout: float) -> Probe:
        how: dict[str, Any] = {"clear_text": True}
        if at.ca is not None:
            how = {"verify": ssl.create_default_context(cafile=at.ca)}
        return LDAPProbe(
            f"{'ldap' if at.ca is None else 'ldaps'}://{at.host}:{at.port}",
            bind_dn=self.server.bind_dn,
            password=at.password,
            timeout=timeout,
            **how,
        )

    @contextmanager
    def fill(self) -> Iterator[None]:
        with ExitStack() as stack:
            for _ in range(_FILES):
                sock = socket.create_connection(("127.0.0.1", self.server.port))
                stack.enter_context(sock)
            yield

    def accept(self, password: str) -> None:
        self.server.expect(password)
