"""Asks two apps for their `/hello` in turn, and tells how long each answer took.

    python -m tests.abuse.systems.stopwatch PORT PORT

It is a process of its own, for the threads of the tests would keep it waiting, and it connects when
it begins, for a process without files takes no new connection. For each line, a number of rounds,
it writes a line of JSON: the microseconds of the one's answers and of the other's. A line
`3 /slow` has it ask for `/slow` first, by another connection, and for `/hello` while that lasts.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time

_LONGEST = 30.0
"""Seconds after which no further round begins: of apps that hardly answer a few answers will do."""
_THINKS = 0.004
"""Seconds between two rounds: what is measured is an answer, and not what many get done."""


_A_MOMENT = 0.05
"""Seconds that another request gets to be there first."""


class App:
    """An app that is asked, by two connections."""

    def __init__(self, port: int) -> None:
        self._one, self._other = (socket.create_connection(("127.0.0.1", port), 60) for _ in "12")
        for connection in (self._one, self._other):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.took: list[float] = []

    def ask(self, first: str) -> None:
        if first:
            _send(self._other, first)
            time.sleep(_A_MOMENT)
        began = time.perf_counter()
        _send(self._one, "/hello")
        _receive(self._one, b"hello")
        self.took.append((time.perf_counter() - began) * 1e6)
        if first:
            _receive(self._other, b"0")


def _send(connection: socket.socket, path: str) -> None:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: stopwatch\r\n\r\n".encode())


def _receive(connection: socket.socket, body: bytes) -> None:
    answer = b""
    while not answer.endswith(b"\r\n\r\n" + body):
        received = connection.recv(4096)
        if not received:
            raise ConnectionError(f"closed after {answer!r}")
        answer += received


def main(ports: list[int]) -> None:
    apps = [App(port) for port in ports]
    draw = random.Random(0)
    for line in sys.stdin:
        rounds, _, first = line.strip().partition(" ")
        for app in apps:
            app.took = []
        give_up = time.monotonic() + _LONGEST
        for _ in range(int(rounds)):
            # Whoever comes first has waited longer: neither is to be always it.
            for app in draw.sample(apps, len(apps)):
                app.ask(first)
            if time.monotonic() > give_up:
                break
            time.sleep(_THINKS)
        print(json.dumps([app.took for app in apps]), flush=True)


if __name__ == "__main__":
    main([int(port) for port in sys.argv[1:]])
