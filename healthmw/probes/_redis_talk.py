"""What RedisProbe asks of a server or a cluster, and how it judges the answers: no I/O.

A talk is a generator. It yields whom to ask what, is sent the answers, or thrown what came in their
place, and returns its finding: the same for sync and async clients.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from healthmw.exceptions import ProbeFailedError, ProbeTimeoutError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from healthmw._model import Measurement
    from healthmw._redis_clients import Address, OwnClients

Command = tuple[Any, ...]
Talk = Generator[tuple[Any, list[Command]], list[Any], "Finding"]

SLOTS = 16384
_KEY_LIFE = 60_000  # milliseconds: what a run that was cut short leaves behind goes by itself
_ROLES = {"master": "primary", "slave": "replica"}


@dataclass(slots=True, kw_only=True)
class Finding:
    """What is not as it should be, and what was measured."""

    complaints: list[str] = field(default_factory=list)
    measurements: dict[str, Measurement] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Questions:
    """What one server is asked in one go."""

    roundtrip: bool
    role: str | None
    max_memory: float | None
    max_evictions: float | None
    _seen: dict[Address | None, tuple[float, int]] = field(default_factory=dict)
    """When each server had evicted how many keys."""

    def ask(self, client: Any, address: Address | None = None, tag: str = "") -> Talk:
        """Ask one server; `tag` puts the key into a slot that a cluster's node serves."""
        key, value = f"healthmw:{tag}{secrets.token_hex(8)}", secrets.token_hex(8)
        commands: list[Command] = [("PING",)]
        if self.roundtrip:
            commands = [("SET", key, value, "PX", _KEY_LIFE), ("GET", key), ("DEL", key)]
        sections = [
            section
            for section, wanted in (
                ("replication", self.role),
                ("memory", self.max_memory),
                ("stats", self.max_evictions),
            )
            if wanted is not None
        ]
        answers = yield client, commands + [("INFO", section) for section in sections]
        if not self.roundtrip and _text(answers[0]) not in {"PONG", "True"}:
            raise ProbeFailedError("the answer to PING is not PONG")
        if self.roundtrip and _text(answers[1]) != value:
            raise ProbeFailedError("what was read back is not what was written")
        finding = Finding()
        info = {name: one for part in answers[len(commands) :] for name, one in part.items()}
        if self.role is not None:
            self._judge_role(info, finding)
        if self.max_memory is not None:
            self._judge_memory(info, finding)
        if self.max_evictions is not None:
            self._judge_evictions(info, address, finding)
        return finding

    def forget_all_but(self, addresses: Container[Address | None]) -> None:
        """Forget what the servers of other addresses had evicted."""
        for address in [*self._seen]:
            if address not in addresses:
                self._seen.pop(address, None)

    def _judge_role(self, info: dict[str, Any], finding: Finding) -> None:
        found = _ROLES.get(info["role"], info["role"])
        if found != self.role:
            raise ProbeFailedError(f"the server is a {found}, and a {self.role} is expected")
        finding.measurements["role"] = found
        if found == "replica":
            if info.get("master_link_status") != "up":
                finding.complaints.append("the replica has lost its primary")
            else:
                finding.measurements["primary_silent_seconds"] = info["master_last_io_seconds_ago"]

    def _judge_memory(self, info: dict[str, Any], finding: Finding) -> None:
        used, limit = info["used_memory"], info["maxmemory"]
        finding.measurements |= {"memory_used_bytes": used, "memory_limit_bytes": limit}
        if limit and used > limit * (self.max_memory or 0):
            finding.complaints.append(f"{used / limit:.0%} of its memory is in use")

    def _judge_evictions(
        self, info: dict[str, Any], address: Address | None, finding: Finding
    ) -> None:
        now, evicted = time.monotonic(), info["evicted_keys"]
        before = self._seen.get(address)
        self._seen[address] = now, evicted
        if before is None or evicted < before[1] or now <= before[0]:
            return  # the first look, or the first after a restart: there is no rate yet
        rate = (evicted - before[1]) / (now - before[0])
        finding.measurements["evictions_per_second"] = rate
        if rate > (self.max_evictions or 0):
            finding.complaints.append(f"it evicts {rate:.3g} keys a second")


def ask_by_sentinel(own: OwnClients, questions: Questions) -> Talk:
    """Ask the server that Sentinel names."""
    with own.plainly():
        return (yield from questions.ask(own.get()))


def ask_cluster(own: OwnClients, remap: Any, questions: Questions) -> Talk:
    """Ask each primary of a cluster; one of its nodes says which they are."""
    for last in (False, True):
        seed, state, slots = yield from _look(own)
        if state.get("cluster_state") != "ok":
            raise ProbeFailedError(f"the cluster's state is {state.get('cluster_state')}")
        primaries: dict[Address, list[tuple[int, int]]] = {}
        for first, to, primary, *_ in slots:
            host = _text(primary[0]) if primary[0] else seed[0]
            address = host, int(primary[1])
            primaries.setdefault(remap(address) if remap else address, []).append((first, to))
        served = sum(to - first + 1 for ranges in primaries.values() for first, to in ranges)
        if served != SLOTS:
            raise ProbeFailedError(f"{SLOTS - served} of the cluster's slots are served by nobody")
        own.keep_to([seed, *(address for address in primaries if address != seed)])
        questions.forget_all_but(primaries)
        try:
            return (yield from _ask_primaries(own, primaries, questions))
        except Exception as exc:
            # A slot is on its way to another node just now: a second look tells.
            if last or not any(word in str(exc) for word in ("MOVED", "ASK", "TRYAGAIN")):
                raise
    raise AssertionError  # the second round returned or raised


def _look(
    own: OwnClients,
) -> Generator[tuple[Any, list[Command]], list[Any], tuple[Address, dict[str, str], Any]]:
    """Return the node that answered, how the cluster is, and who serves which slots."""
    from redis.exceptions import RedisError

    errors = []
    for seed in own.seeds:
        try:
            # In two words, so that redis-py passes on what it gets, whatever its version.
            answers = yield own.get(seed), [("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")]
        except (RedisError, OSError, ProbeFailedError) as exc:
            errors.append(f"{seed[0]}:{seed[1]}: {exc}")
            problem = exc
        else:
            lines = (line.partition(":") for line in _text(answers[0]).split())
            return seed, {name: value for name, _, value in lines}, answers[1]
    raise ProbeFailedError(f"no node of the cluster answers: {'; '.join(errors)}") from problem


def _ask_primaries(
    own: OwnClients, primaries: dict[Address, list[tuple[int, int]]], questions: Questions
) -> Talk:
    from redis.exceptions import RedisError
    from redis.exceptions import TimeoutError as SilenceError

    whole = Finding(measurements={"primaries": len(primaries)})
    for address, ranges in primaries.items():
        name = f"{address[0]}:{address[1]}"
        try:
            one = yield from questions.ask(own.get(address), address, _tag(ranges))
        except SilenceError as exc:
            raise ProbeTimeoutError(f"the primary {name} does not answer") from exc
        except (RedisError, OSError, ProbeFailedError) as exc:
            raise ProbeFailedError(f"the primary {name}: {exc}") from exc
        whole.complaints += [f"{name}: {complaint}" for complaint in one.complaints]
        for measured, value in one.measurements.items():
            before = whole.measurements.get(measured, 0)
            if isinstance(value, int | float) and isinstance(before, int | float):
                whole.measurements[measured] = before + value
    return whole


def _tag(ranges: Sequence[tuple[int, int]]) -> str:
    """Return a hash tag, `{...}`, of one of these slots."""
    from redis.crc import key_slot

    while True:
        tag = secrets.token_hex(4)
        if any(first <= key_slot(tag.encode()) <= to for first, to in ranges):
            return f"{{{tag}}}"


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
