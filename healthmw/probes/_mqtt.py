"""A probe of an MQTT broker (Mosquitto, EMQX, HiveMQ, VerneMQ, RabbitMQ's plugin)."""

from __future__ import annotations

import secrets
import select
import socket
import ssl
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from healthmw._addresses import show_address
from healthmw._driver import check_timeout, time_limit
from healthmw._kept import KeptConnection
from healthmw._options import text
from healthmw._sockets import connected
from healthmw._wire import tls_context
from healthmw.exceptions import MissingExtraError, ProbeFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from paho.mqtt.enums import MQTTErrorCode

    from healthmw._model import Measurement

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MQTTProbe:
    """Ask an MQTT broker for an answer, over one connection that is kept between runs.

    A pass proves that the broker accepted the login and answered just now. It is asked to end a
    subscription that there never was, which every broker must confirm, and which needs no rights
    (`PINGREQ`, made for this, is out of a client's reach in paho-mqtt).

    `url` is `mqtt://user:password@host:1883`, or `mqtts://...` for TLS.

    - `topic`: a topic for the probe alone. A message is published there and must come back: a pass
      proves that the broker delivers. The user needs the right to write and to read it.
    - `verify`, with `mqtts`: True checks the server's certificate; an `ssl.SSLContext` checks it by
      that; False does not.
    - `timeout`: seconds for all of it: connecting, TLS, login, the answers. The check's own timeout
      counts where it is shorter.

    MQTT 3.1.1, which MQTT 5 brokers speak too; a client id of its own, and a clean session. It runs
    in a thread, on asyncio and trio. Measures `latency_seconds`. Raises `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        url: str,
        *,
        topic: str | None = None,
        verify: bool | ssl.SSLContext = True,
        timeout: float = 2.0,
    ) -> None:
        try:
            import paho.mqtt.client  # noqa: F401 - to see whether it is there
        except ImportError as exc:
            raise MissingExtraError("MQTTProbe", extra="mqtt") from exc
        self._host, self._port, self._user, self._password, secure = _split(url)
        if topic is not None and (not text("topic", topic) or "#" in topic or "+" in topic):
            raise ValueError(f"topic must be one topic without wildcards, not {topic!r}")
        if verify is not True and not secure:
            raise ValueError("verify is for mqtts://")
        self._topic = topic
        self._tls = tls_context(verify) if secure else None
        self._timeout = check_timeout(timeout)
        self._kept: KeptConnection[_Conversation] = KeptConnection(
            connect=self._connect, close=lambda one: one.close(), timeout=self._timeout
        )

    def __repr__(self) -> str:
        return f"<MQTTProbe {show_address(self._host, self._port)}>"

    def __call__(self) -> Mapping[str, Measurement]:
        """Ask once."""
        started = time.perf_counter()
        try:
            self._kept.run(self._talk)
        except _LostError as exc:
            raise ProbeFailedError(str(exc)) from exc
        return {"latency_seconds": time.perf_counter() - started}

    async def aclose(self) -> None:
        """Close the probe's connection; the next run opens another."""
        self._kept.close()

    def _connect(self, seconds: float) -> _Conversation:
        conversation = _Conversation(self._tls, self._host)
        try:
            self._log_in(conversation, time.monotonic() + seconds)
        except BaseException:
            conversation.close()
            raise
        return conversation

    def _log_in(self, conversation: _Conversation, until: float) -> None:
        client = conversation.client
        client.connect_timeout = self._timeout
        if self._user:
            client.username_pw_set(self._user, self._password)
        left = max(0.001, until - time.monotonic())
        try:
            with time_limit(left, conversation.shut_down):  # connecting counts anew with each byte
                client.connect(self._host, self._port, keepalive=0)
        except TimeoutError:
            raise
        except OSError as exc:
            raise ProbeFailedError(f"can't connect: {exc}") from exc
        reason = conversation.wait("connected", until)
        if reason.is_failure:
            raise ProbeFailedError(f"the broker refused: {reason}")

    def _talk(self, conversation: _Conversation, seconds: float) -> None:
        until = time.monotonic() + seconds
        client, topic = conversation.client, self._topic
        conversation.forget()
        if topic is not None:
            client.subscribe(topic, qos=1)
            granted = conversation.wait("subscribed", until)
            if granted[0].is_failure:
                raise ProbeFailedError(f"may not read {topic!r}: {granted[0]}")
            text = secrets.token_hex(8).encode()
            client.publish(topic, text, qos=1)
            while conversation.wait("message", until) != text:
                pass  # another process's
        client.unsubscribe(topic or f"healthmw/{secrets.token_hex(8)}")
        conversation.wait("unsubscribed", until)


class _LostError(Exception):
    """The connection has ended."""


class _Conversation:
    """One connection, driven by the thread that waits for what it brings."""

    def __init__(self, tls: ssl.SSLContext | None, host: str) -> None:
        from paho.mqtt.enums import CallbackAPIVersion

        self._tls = tls
        self._host = host
        self._heard: dict[str, list[Any]] = {}
        self._socket: socket.socket | None = None
        client = self.client = _client_class()(
            CallbackAPIVersion.VERSION2,
            client_id=f"healthmw-{secrets.token_hex(6)}",
            reconnect_on_failure=False,
        )
        client.opened = self._secure
        client.on_connect = lambda _c, _u, _flags, reason, _p: self._hear("connected", reason)
        client.on_subscribe = lambda _c, _u, _mid, reasons, _p: self._hear("subscribed", reasons)
        client.on_unsubscribe = lambda _c, _u, _mid, reasons, _p: self._hear(
            "unsubscribed", reasons
        )
        client.on_message = lambda _c, _u, message: self._hear("message", message.payload)

    def wait(self, event: str, until: float) -> Any:
        """Return what the next event of that kind brought."""
        while not self._heard.get(event):
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            code = self._turn(left)
            if code and not self._heard.get(event):
                raise _LostError(f"the connection was lost: {code.name}")
        return self._heard[event].pop(0)

    def forget(self) -> None:
        """Let go of what nobody has waited for."""
        self._heard.clear()

    def shut_down(self) -> None:
        """End a wait for the network in another thread."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Say goodbye, without waiting for it to be heard."""
        with suppress(OSError, ValueError):
            self.client.disconnect()
        if self._socket is not None:
            self.shut_down()
            self._socket.close()
            while not self._turn(0):
                pass

    def _turn(self, seconds: float) -> MQTTErrorCode:
        """Send and receive what can be: paho's own `loop` fails over 1,024 open files."""
        from paho.mqtt.enums import MQTTErrorCode

        client = self.client
        sock = client.socket()
        if sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            poll = select.poll()
            poll.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
            if not poll.poll(seconds * 1000):
                return MQTTErrorCode.MQTT_ERR_SUCCESS
        if client.want_write() and (code := client.loop_write()):
            return MQTTErrorCode(code)
        return MQTTErrorCode(client.loop_read())

    def _hear(self, event: str, value: object) -> None:
        self._heard.setdefault(event, []).append(value)

    def _secure(self, sock: socket.socket) -> socket.socket:
        """Shake hands where TLS is spoken. paho would leave the socket open where that fails."""
        self._socket = sock.dup()  # a second handle: TLS takes the first one's socket away
        return self._tls.wrap_socket(sock, server_hostname=self._host) if self._tls else sock


@cache
def _client_class() -> type[Any]:
    from paho.mqtt.client import Client

    class Showing(Client):
        """A client that shows its socket while it connects, and closes it when TLS fails.

        It connects in time, whatever addresses the host has.
        """

        opened: Callable[[socket.socket], socket.socket]

        def _create_socket_connection(self) -> socket.socket:
            if self._get_proxy():
                return self.opened(super()._create_socket_connection())
            return self.opened(connected(self._host, self._port, self.connect_timeout))

        def _ssl_wrap_socket(self, tcp_sock: socket.socket) -> ssl.SSLSocket:
            # paho leaves the socket of a failed handshake open, and looks at the host's name even
            # where the context says not to.
            assert self._ssl_context is not None  # noqa: S101 - paho calls this with one
            sock = self._ssl_context.wrap_socket(
                tcp_sock, server_hostname=self._host, do_handshake_on_connect=False
            )
            try:
                sock.settimeout(self.connect_timeout)
                sock.do_handshake()
            except BaseException:
                sock.close()
                raise
            return sock

    return Showing


def _split(url: str) -> tuple[str, int, str, str, bool]:
    """Take a URL apart, without its text in any complaint: it may hold a password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in _PORTS or parts.path.strip("/"):
        raise ValueError("url must be like mqtt://user:password@host:1883 or mqtts://...")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if password and not user:  # it would not be sent: MQTT 3.1.1 has none without a user's name
        raise ValueError(
            "url has a password and no user: it must be like mqtt://user:password@host"
        )
    return host, port or _PORTS[parts.scheme], user, password, parts.scheme == "mqtts"
