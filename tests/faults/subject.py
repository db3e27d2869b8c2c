"""What the fault table has to know of a probe, and the faults that it is put through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from healthmw._probe import Probe
    from tests.services.servers import Server


class Fault(StrEnum):
    """The columns of the table, in its order."""

    WELL = "well"
    REFUSED = "refused"
    PASSWORD = "wrong password"
    FROZEN = "SIGSTOP"
    KILLED = "killed"
    RESTARTED = "restarted"
    SILENT = "never answers"
    GARBAGE = "garbage"
    RESET = "reset"
    DRIP = "slow drip"
    DNS = "DNS failure"
    FULL = "limit reached"
    EXPIRED = "TLS expired"
    MISNAMED = "TLS wrong host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a probe is to look, and with what."""

    host: str
    port: int
    password: str
    ca: Path | None = None
    """The file of the authority to trust; with it, TLS is to be spoken and the host checked."""


class Subject(ABC):
    """A probe that talks to a server, and that server: one row of the table.

    Each is put on trial in a process of its own. Drivers are imported in methods, for
    every subject's file is imported to learn its name.
    """

    name: ClassVar[str]
    """What the row is called: the probe and, where it takes several, the driver."""

    no: ClassVar[Mapping[Fault, str]] = MappingProxyType({})
    """The cells that can't be, each with the reason, which the page shows."""

    blind: ClassVar[frozenset[Fault]] = frozenset()
    """Faults at which the server hangs, and of which the probe is not meant to notice anything."""

    wavers: ClassVar[frozenset[Fault]] = frozenset()
    """Faults at which it is a matter of the moment whether the probe fails or its time is up."""

    resolver: ClassVar[str] = ""
    """Why names are out of the test's hands: the driver asks C's resolver and not Python's."""

    surely_before: ClassVar[float] = 0.9
    """How much of what a connection brings comes before the probe has its answer, in any case."""

    new_password: ClassVar[str] = "the right password comes with another probe"
    """Why a wrong password does not become right, unless `accept` is overridden."""

    server: Server

    @abstractmethod
    def new_server(self) -> Server:
        """Return the real server, not yet started. May raise `MissingServerError`."""

    def ready(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what is to be done once when `self.server` has started."""

    def reached_at(self, port: int) -> None:  # noqa: B027 - most don't say where they are
        """Take note of the proxy's port, which some servers tell their clients.

        It is called before `self.server` starts, and again when there is another proxy.
        """

    @abstractmethod
    def probe(self, at: Address, timeout: float) -> Probe:
        """Make the probe as a user would. It is made anew for each cell."""

    def fill(self) -> AbstractContextManager[object]:
        """Hold so many connections to `self.server` that it takes no more, but for a while."""
        raise NotImplementedError

    def accept(self, password: str) -> None:
        """Have the server take `password` from now on, in place of its own."""
        raise NotImplementedError

    async def before_tls(  # noqa: B027 - the common case, and not a gap
        self, reader: StreamReader, writer: StreamWriter
    ) -> None:
        """Say, on the server's part, what comes before TLS begins: nothing, as a rule.

        A terminator speaks TLS in front of the server, unless `present` is overridden.
        """

    def present(self, certificate: Path, key: Path) -> None:
        """Have the server show this certificate (PEM files) to those who connect from now on."""
        raise NotImplementedError


def overrides(subject: Subject, method: str) -> bool:
    """Tell whether a subject has its own `method`."""
    return getattr(type(subject), method) is not getattr(Subject, method)


def subjects() -> dict[str, type[Subject]]:
    """Return the subjects of all files in `subjects/`, by name."""
    found: dict[str, type[Subject]] = {}
    for file in sorted(Path(__file__).with_name("subjects").glob("[!_]*.py")):
        module = import_module(f"tests.faults.subjects.{file.stem}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Subject)
                and value.__module__ == module.__name__
                and "name" in vars(value)
            ):
                found[value.name] = value
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))
