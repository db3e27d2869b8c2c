"""A stand-in for MongoDB, of which neither Debian nor PyPI has a server: it speaks the wire only.

`OP_MSG`, and the `OP_QUERY` with which drivers begin, as the MongoDB Wire Protocol describes them;
of commands it knows `hello`, and the login by PLAIN; others fail as MongoDB says that they do.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any

import bson

from tests.fakes import FakeServer

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class Mongo(FakeServer):
    """One member of a replica set, or a server of its own; `awake` cleared, it does not answer."""

    def __init__(
        self,
        *,
        writable: bool = True,
        replica_set: str = "",
        password: str | None = None,
        port: int = 0,
        limit: int = 1000,
    ) -> None:
        self.writable = writable
        self.awake = threading.Event()
        self.awake.set()
        self._set = replica_set
        self.password = password
        self._limit = limit
        self._connected = 0
        self._lock = threading.Lock()
        super().__init__(self._admit, port=port)

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/"

    def drop_connections(self) -> None:
        """Cut all there are, as a restart does."""
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _admit(self, client: socket.socket, stop: threading.Event) -> None:
        """Hang up on who is one too many, as MongoDB does."""
        with self._lock:
            self._connected += 1
        try:
            if self._connected <= self._limit:
                self._converse_in_bson(client, stop)
        finally:
            with self._lock:
                self._connected -= 1

    def _converse_in_bson(self, client: socket.socket, stop: threading.Event) -> None:
        while head := _exactly(client, 16):
            size, number, _, code = struct.unpack("<iiii", head)
            body = _exactly(client, size - 16)
            while not self.awake.wait(0.01):
                if stop.is_set():
                    return
            if code == _OP_MSG:
                answer = bson.encode(self._answer(_decode(body[5:])))
                content, kind = struct.pack("<iB", 0, 0) + answer, _OP_MSG
            else:
                query = body[body.index(b"\0", 4) + 9 :]
                answer = bson.encode(self._answer(_decode(query)))
                content, kind = struct.pack("<iqii", 8, 0, 0, 1) + answer, _OP_REPLY
            client.sendall(struct.pack("<iiii", 16 + len(content), 1, number, kind) + content)

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command)).lower()
        if name in {"hello", "ismaster"}:
            return self._hello()
        if name == "saslstart" and command["mechanism"] == "PLAIN":
            _, _, password = command["payload"].split(b"\0")
            if password.decode() == self.password:
                return {"ok": 1, "done": True, "conversationId": 1, "payload": b""}
            return _error(18, "AuthenticationFailed", "Authentication failed.")
        if name == "endsessions":
            return {"ok": 1}
        return _error(59, "CommandNotFound", f"no such command: '{name}'")

    def _hello(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "ok": 1,
            "helloOk": True,
            "isWritablePrimary": self.writable,
            "ismaster": self.writable,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "maxBsonObjectSize": 16 * 1024 * 1024,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
        }
        if self._set:
            me = f"127.0.0.1:{self.port}"
            found |= {"setName": self._set, "secondary": not self.writable, "me": me, "hosts": [me]}
        return found


def _error(code: int, name: str, text: str) -> dict[str, Any]:
    return {"ok": 0, "code": code, "codeName": name, "errmsg": text}


def _decode(data: bytes) -> dict[str, Any]:
    (size,) = struct.unpack_from("<i", data)
    found: dict[str, Any] = bson.decode(data[:size])
    return found


def _exactly(client: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        chunk = client.recv(size - len(got))
        if not chunk:
            return b""
        got += chunk
    return got
