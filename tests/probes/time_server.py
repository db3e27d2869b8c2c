"""A time server in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 20.0


class TimeServer:
    """An SNTP server whose clock is `ahead` of this machine's by some seconds."""

    def __init__(self, *, ahead: float = 0.0, **wrong: Any) -> None:
        self.ahead = ahead
        self.wrong = wrong
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(_PATIENCE)
        self._socket.close()

    @contextlib.contextmanager
    def hangs(self) -> Iterator[None]:
        """Hear every question and answer none."""
        self.wrong["silent"] = True
        try:
            yield
        finally:
            self.wrong["silent"] = False

    def _serve(self) -> None:
        while True:
            asked, client = self._socket.recvfrom(1024)
            if not asked:
                return
            if not self.wrong.get("silent"):
                for answer in self._answers(asked):
                    self._socket.sendto(answer, client)

    def _answers(self, asked: bytes) -> Iterator[bytes]:
        assert len(asked) == 48
        assert asked[0] == 0x23
        if self.wrong.get("chatter"):
            yield b"\x24" + b"\x01" * 47  # somebody else's
            yield b"short"
        first = self.wrong.get("first", 0x24)
        now = time.time() + self.ahead + 2_208_988_800
        stamp = struct.pack("!II", int(now) % 2**32, int(now % 1 * 2**32))
        yield (
            struct.pack("!BBBb", first, self.wrong.get("stratum", 2), 6, -20)
            + bytes(20)
            + asked[40:48]
            + stamp
            + stamp
        )
