"""A probe of Kafka, or of what else speaks its protocol (Redpanda, WarpStream, ...)."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Mapping
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any

from healthmw._bounds import not_negative
from healthmw._driver import check_timeout
from healthmw._held import PerProcess
from healthmw._options import WrongTypeError
from healthmw._probe import Degraded
from healthmw.exceptions import MissingExtraError, ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future

    from confluent_kafka.admin import AdminClient

    from healthmw._model import Measurement
    from healthmw._probe import Outcome

_SILENT = logging.Logger("kafka", logging.CRITICAL + 1)  # noqa: LOG001 - for nobody to hear

_SLICE = 0.02  # seconds between two looks at what librdkafka has to tell of the network


def _keep_for_ever(inherited: object) -> None:
    """Never let go of a client that a fork has brought to a child, not even when Python ends.

    To end it would wait for threads that are the parent's, or crash.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


class KafkaProbe:
    """Ask Kafka for its metadata, by a client that is kept between runs.

    A pass proves that a broker accepted the client and has just told which brokers there are; with
    `topic`, that this topic exists and that each of its partitions has a leader, without which
    nobody writes or reads there. It does not prove that the client may write.

    `target` is the bootstrap servers (`"host:9092,other:9092"`, or the same as `kafka://host:9092`),
    or a mapping of librdkafka's settings, such as the app gives to confluent-kafka's own clients
    (`bootstrap.servers`, `security.protocol`, `sasl.password`, ...; no callbacks).

    - `topic`: the topic, which is never created.
    - `group`: a consumer group that reads `topic`; it must have committed an offset there.
    - `max_lag`: when the group has more messages than that still to read, the run is `Degraded`.
    - `timeout`: seconds for all of it; the check's own timeout counts where it is shorter.

    librdkafka keeps a few threads and a connection to each broker that it has talked to. It runs in
    a thread, on asyncio and trio. Measures `latency_seconds`, `brokers` and, of a group,
    `lag_messages`. Raises `ProbeFailedError`.
    """

    is_async = False

    def __init__(
        self,
        target: str | Mapping[str, Any],
        *,
        topic: str | None = None,
        group: str | None = None,
        max_lag: int | None = None,
        timeout: float = 2.0,
    ) -> None:
        try:
            import confluent_kafka  # noqa: F401 - to see whether it is there
        except ImportError as exc:
            raise MissingExtraError("KafkaProbe", extra="kafka") from exc
        if isinstance(target, str):
            target = {"bootstrap.servers": _servers(target)}
        elif not isinstance(target, Mapping):
            raise WrongTypeError(
                "target must be the bootstrap servers or a mapping of settings, not"
                f" {type(target).__name__}"
            )
        self._shown = target.get("bootstrap.servers") or target.get("metadata.broker.list")
        if not self._shown:
            raise ValueError("target must have bootstrap.servers")
        if group is not None and topic is None:
            raise ValueError("group is one of a topic: name that by topic=")
        if max_lag is not None and group is None:
            raise ValueError("max_lag is of a group: name it by group=")
        not_negative(max_lag=max_lag)
        self._settings = dict(target)
        self._topic = topic
        self._group = group
        self._max_lag = max_lag
        self._timeout = check_timeout(timeout)
        self._own = PerProcess(lambda: _Own(self._settings, self._timeout), _keep_for_ever)

    def __repr__(self) -> str:
        return f"<KafkaProbe {self._shown}>"

    def __call__(self) -> Outcome:
        """Ask once."""
        from confluent_kafka import KafkaException

        started = time.perf_counter()
        own = self._own.get()
        try:
            kept = own.begin()
            try:
                found = self._ask(own)
            except _DownError:
                if not kept:
                    raise
                own.renew()  # it had lost its connections since the last run, or has just now
                found = self._ask(own)
        except (KafkaException, TimeoutError, _DownError) as exc:
            raise own.failure(exc) from None  # its text is in the message
        found["latency_seconds"] = time.perf_counter() - started
        if self._max_lag is not None and found["lag_messages"] > self._max_lag:  # type: ignore[operator] # an int
            detail = f"{self._group!r} has {found['lag_messages']} messages still to read"
            return Degraded(f"{detail}, more than {self._max_lag}", found)
        return found

    async def aclose(self) -> None:
        """Close the probe's client; the next run makes another."""
        self._own.pop()  # it closes as it goes

    def _ask(self, own: _Own) -> dict[str, Measurement]:
        found: dict[str, Measurement] = {"brokers": own.brokers()}
        partitions = own.partitions(self._topic) if self._topic is not None else ()
        if self._group is not None:
            found["lag_messages"] = own.lag(self._group, self._topic or "", partitions)
        return found


_DESTROY_BROKER = -137
"""What an answer fails with whose broker the client has just let go of. Older versions lack it."""


class _DownError(Exception):
    """The client is connected to none of the brokers that it knows of, and has tried them all."""


class _Own:
    """The probe's client in this process, and the time that it has for the run."""

    def __init__(self, settings: Mapping[str, Any], timeout: float) -> None:
        self._settings = settings
        self._timeout = timeout
        self._until = 0.0
        self._heard: list[Any] = []
        self._client: AdminClient | None = None

    def begin(self) -> bool:
        """Begin a run: its time counts from now. Tell whether the client is a kept one.

        librdkafka takes its time to connect again when it has lost all connections, and to say that
        it can't. A new client does so at once.
        """
        self._until = time.monotonic() + self._timeout
        if self._client is not None:
            self._client.poll(0)
            if not self._is_down():
                self._heard.clear()
                return True
        self.renew()
        return False

    def renew(self) -> None:
        """Make a new client in place of the one that there may be."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        heard: list[Any] = []  # without what the old one has still to say
        own: dict[str, Any] = {
            "client.id": "healthmw",
            "socket.timeout.ms": max(10, int(self._timeout * 1000)),
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            **self._settings,
            "error_cb": heard.append,
        }
        self._client, self._heard = None, heard
        try:
            self._client = AdminClient(own, logger=_SILENT)
        except (KafkaException, TypeError, ValueError) as exc:
            # Without librdkafka's own words: they may quote a setting.
            raise ProbeFailedError(f"the settings won't do: {type(exc).__name__}") from None

    def brokers(self) -> int:
        """Return how many brokers there are."""
        described = self._admin.describe_cluster(request_timeout=self._left())
        return len(self._result(described).nodes)

    def partitions(self, topic: str) -> tuple[int, ...]:
        """Return the partitions of `topic`, all of which have a leader."""
        from confluent_kafka import KafkaError, KafkaException, TopicCollection

        described = self._admin.describe_topics(
            TopicCollection([topic]), request_timeout=self._left()
        )
        try:
            found = self._result(described[topic])
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise ProbeFailedError(f"there is no topic {topic!r}") from None
            raise
        lost = [one.id for one in found.partitions if one.leader is None or one.leader.id < 0]
        if lost:
            raise ProbeFailedError(f"partition(s) {lost} of {topic!r} have no leader")
        return tuple(one.id for one in found.partitions)

    def lag(self, group: str, topic: str, partitions: Iterable[int]) -> int:
        """Return how many messages of `topic` the group has still to read."""
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

        wanted = [TopicPartition(topic, number) for number in partitions]
        answer = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=self._left()
        )
        committed = {
            one.partition: one.offset
            for one in self._result(answer[group]).topic_partitions
            if one.offset >= 0
        }
        if not committed:
            raise ProbeFailedError(f"{group!r} has committed no offset in {topic!r}")
        latest = self._offsets(wanted, _spec("latest"))
        unread = [one for one in wanted if one.partition not in committed]
        earliest = self._offsets(unread, _spec("earliest")) if unread else {}
        return sum(
            max(0, offset - committed.get(number, earliest.get(number, 0)))
            for number, offset in latest.items()
        )

    def failure(self, exc: Any) -> ProbeFailedError:
        """Return what went wrong, in the words of the last error on the network if there is one."""
        from confluent_kafka import KafkaException

        self._admin.poll(0)  # brings the errors
        lost = isinstance(exc, _DownError) or self._is_down()
        if isinstance(exc, KafkaException) and not lost and not _is_late(exc.args[0]):
            return ProbeFailedError(exc.args[0].str())
        in_time = time.monotonic() < self._until
        told = [one for one in self._heard if not _says_down(one)]
        if lost:
            self._client = None  # not in general: it would wait here for a resolver that hangs
        if told:
            return ProbeFailedError(told[-1].str())
        if lost and in_time:
            return ProbeFailedError("the connection was lost")
        return ProbeTimeoutError(f"no answer within {self._timeout:g} s")

    def _offsets(self, partitions: Iterable[Any], spec: Any) -> dict[int, int]:
        answer = self._admin.list_offsets(
            dict.fromkeys(partitions, spec), request_timeout=self._left()
        )
        return {one.partition: self._result(future).offset for one, future in answer.items()}

    def _result(self, future: Future[Any]) -> Any:
        """Wait for an answer. Raises `_DownError` as soon as none can come."""
        from confluent_kafka import KafkaError, KafkaException

        while not future.done():
            if time.monotonic() > self._until:
                raise TimeoutError
            wait([future], min(self._left(), _SLICE))
            self._admin.poll(0)
            if not future.done() and self._is_down():
                raise _DownError
        try:
            return future.result()
        except KafkaException as exc:
            self._admin.poll(0)
            lost = {KafkaError._TRANSPORT, _DESTROY_BROKER}  # noqa: SLF001 - public, for all its name
            if self._is_down() or exc.args[0].code() in lost:
                raise _DownError from None
            raise

    def _is_down(self) -> bool:
        return any(_says_down(one) for one in self._heard)

    @property
    def _admin(self) -> AdminClient:
        assert self._client is not None  # noqa: S101 - for the type checker
        return self._client

    def _left(self) -> float:
        return max(0.001, self._until - time.monotonic())


def _says_down(error: Any) -> bool:
    from confluent_kafka import KafkaError

    return bool(error.code() == KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001 - public, for all its name


def _is_late(error: Any) -> bool:
    """Tell whether an error says no more than that there was no answer."""
    from confluent_kafka import KafkaError

    return error.code() in {  # they are public, in spite of their names
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
    }


def _servers(target: str) -> str:
    """Return the bootstrap servers of a list or a URL, without its text in any complaint."""
    scheme, mark, rest = target.partition("://")
    servers = rest.rstrip("/") if mark else target
    if (mark and scheme != "kafka") or not servers or "@" in servers or "/" in servers:
        raise ValueError(
            "target must be like 'host:9092,other:9092' or kafka://host:9092; a user and a password"
            " are settings: {'sasl.username': ..., 'sasl.password': ...}"
        )
    return servers


def _spec(which: str) -> Any:
    from confluent_kafka import admin

    return getattr(admin.OffsetSpec, which)()  # type: ignore[attr-defined] # it has, in its docs
