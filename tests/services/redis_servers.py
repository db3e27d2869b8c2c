"""A Redis cluster, and a Redis that Sentinel watches: real servers on free ports."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import time
from typing import TYPE_CHECKING, Any

import redis

from tests.services.servers import PASSWORD, Redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATIENCE = 60.0


class RedisNode(Redis):
    """One node of a cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.port = _port_with_bus()

    def command(self) -> Sequence[str]:
        return (
            *super().command(), "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
            "--masterauth", PASSWORD, "--dir", str(self.folder),
        )  # fmt: skip


class RedisCluster(RedisNode):
    """Three primaries, this process the first of them; no replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.others = [RedisNode(), RedisNode()]

    @property
    def nodes(self) -> list[RedisNode]:
        return [self, *self.others]

    def start(self) -> None:
        for node in self.others:
            node.mend()
        super().start()
        for number, node in enumerate(self.nodes):
            with connected(node) as client:
                if client.cluster("info")["cluster_slots_assigned"] == "0":
                    first, end = number * 16384 // 3, (number + 1) * 16384 // 3
                    client.cluster("addslotsrange", first, end - 1)
                    client.cluster("meet", "127.0.0.1", self.port)
        self.wait()

    def wait(self) -> None:
        """Wait until all nodes agree that all is well."""
        for node in self.nodes:
            until = time.monotonic() + _PATIENCE
            while not self._agrees(node):
                if time.monotonic() > until:
                    raise RuntimeError(f"the cluster did not form: {node.tail()}")
                time.sleep(0.02)

    def _agrees(self, node: RedisNode) -> bool:
        with connected(node) as client:
            info: Any = client.cluster("info")
            return (info["cluster_state"], info["cluster_known_nodes"]) == ("ok", "3")

    def mend(self) -> None:
        for node in self.others:
            node.mend()
        super().mend()
        self.wait()

    def close(self) -> None:
        for node in self.others:
            node.close()
        super().close()


class Sentinel(Redis):
    """One sentinel, this process; a primary and its replica, both watched by it."""

    service = "shop"

    def __init__(self) -> None:
        super().__init__()
        self.first = _Watched()
        self.second = _Watched("--replicaof", f"127.0.0.1 {self.first.port}")
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nrequirepass {PASSWORD}\n"
            f"sentinel monitor {self.service} 127.0.0.1 {self.first.port} 1\n"
            f"sentinel auth-pass {self.service} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {self.service} 500\n"
            f"sentinel failover-timeout {self.service} 2000\n"
        )
        if self._user is not None:
            shutil.chown(config, self._user)

    def command(self) -> Sequence[str]:
        return (self._program, str(self.folder / "sentinel.conf"), "--sentinel")

    def start(self) -> None:
        for server in (self.first, self.second):
            server.mend()
        super().start()
        self.wait()

    def wait(self) -> None:
        """Wait until the sentinel knows a replica, and that follows its primary."""
        until = time.monotonic() + _PATIENCE
        while not self._is_complete():
            if time.monotonic() > until:
                raise RuntimeError(f"the sentinel did not find its servers: {self.tail()}")
            time.sleep(0.05)

    def _is_complete(self) -> bool:
        with connected(self) as client:
            state: Any = client.sentinel_master(self.service)
        links = []
        for server in (self.first, self.second):
            with connected(server) as client:
                links.append(client.info("replication").get("master_link_status"))
        return state["flags"] == "master" and state["num-slaves"] == 1 and "up" in links

    def mend(self) -> None:
        for server in (self.first, self.second):
            server.mend()
        super().mend()
        primary = self.primary_port()
        for server in (self.first, self.second):
            if server.port != primary:  # what the sentinel would do too, after a while
                with connected(server) as client:
                    client.replicaof("127.0.0.1", primary)
        self.wait()

    def primary_port(self) -> int:
        with connected(self) as client:
            address: Any = client.sentinel_get_master_addr_by_name(self.service)
        return int(address[1])

    def close(self) -> None:
        self.first.close()
        self.second.close()
        super().close()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


class _Watched(Redis):
    """A primary or a replica; Sentinel may turn the one into the other."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    def command(self) -> Sequence[str]:
        return (
            *super().command(), "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0",
            *self._options,
        )  # fmt: skip


@contextlib.contextmanager
def connected(server: Redis) -> Iterator[redis.Redis]:
    """Give a client of `server`, closed at the end."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}"
    client = redis.Redis.from_url(url, socket_timeout=10, decode_responses=True)
    try:
        yield client
    finally:
        client.connection_pool.disconnect()


def _port_with_bus() -> int:
    """Return a free port from which the one of the cluster's bus, 10000 higher, is free too."""
    while True:
        port = random.randint(20000, 30000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as bus:
            one.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10000))
            return port
