"""What can be asked of a SQL server beyond a sign of life: is it writable, is it up to date.

No driver is known here. A conversation is a generator: it yields statements, is sent the rows of
each as mappings, and returns the outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from healthmw._model import Measurement
from healthmw._options import flag, seconds
from healthmw._probe import Degraded
from healthmw.exceptions import ProbeFailedError

Rows = Sequence[Mapping[str, Any]]
Seen = Degraded | Mapping[str, Measurement]
Conversation = Generator[str, Rows, Seen]

SIGN_OF_LIFE = "SELECT 1 AS alive"

_POSTGRESQL_WRITABLE = (
    "SELECT pg_is_in_recovery() AS standby,"
    " current_setting('transaction_read_only') = 'on' AS read_only"
)
# The positions in the log are told as numbers of bytes. `pg_stat_wal_receiver` has a row for every
# user while something is received, though only privileged ones see what stands in it.
_POSTGRESQL_LAG = (
    "SELECT pg_is_in_recovery() AS standby,"
    " EXISTS (SELECT 1 FROM pg_stat_wal_receiver) AS streaming,"
    " CAST(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0') AS bigint) AS received,"
    " CAST(pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') AS bigint) AS replayed,"
    " CAST(EXTRACT(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp())"
    " AS double precision) AS age"
)
_POSTGRESQL_SECOND_LOOK = "SELECT pg_sleep(0.1)"

# Not by `SELECT @@...`, which fails for a variable that this server does not have.
_MYSQL_WRITABLE = (
    "SHOW VARIABLES WHERE Variable_name IN ('read_only', 'super_read_only', 'innodb_read_only',"
    " 'transaction_read_only', 'tx_read_only')"
)
_MYSQL_VERSION = "SELECT VERSION() AS version"
_MARIADB_LAG = (
    "SHOW ALL SLAVES STATUS"  # of every connection to a primary; MySQL's does that anyway
)
_MYSQL_LAG = "SHOW REPLICA STATUS"

_OPTIONS = {"charset", "ssl_ca", "unix_socket"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a server must be, besides alive."""

    writable: bool = False
    max_replica_lag: float | None = None  # seconds

    def __post_init__(self) -> None:
        flag("writable", self.writable)
        if self.max_replica_lag is not None:
            seconds("max_replica_lag", self.max_replica_lag)

    def __bool__(self) -> bool:
        return self.writable or self.max_replica_lag is not None

    def examine(self, dialect: str) -> Conversation:
        """Return the conversation with a server, `postgresql`, or else `mysql` or `mariadb`.

        It raises `ProbeFailedError` when the server is not writable and should be.
        """
        return self._postgresql() if dialect == "postgresql" else self._mysql()

    def _postgresql(self) -> Conversation:
        if self.writable:
            (row,) = yield _POSTGRESQL_WRITABLE
            if row["standby"]:
                raise ProbeFailedError("the server is a standby: it takes no writes")
            if row["read_only"]:
                raise ProbeFailedError("transactions are read-only on this server")
        if self.max_replica_lag is None:
            return {}
        (row,) = yield _POSTGRESQL_LAG
        if not row["standby"]:
            return {}
        lag, received = _postgresql_lag(row), row["received"]
        if lag is None or lag <= self.max_replica_lag or not row["streaming"]:
            return self._judge(lag, "" if row["streaming"] else ", and receives nothing from it")
        # The age of what was replayed last includes the time for which the primary had nothing to
        # say. If what has just come in is replayed a moment later, the replica does keep up.
        yield _POSTGRESQL_SECOND_LOOK
        (row,) = yield _POSTGRESQL_LAG
        caught_up = not row["standby"] or row["replayed"] >= received
        return self._judge(0.0 if caught_up else _postgresql_lag(row))

    def _mysql(self) -> Conversation:
        if self.writable:
            rows = yield _MYSQL_WRITABLE
            read_only = [row["Variable_name"] for row in rows if row["Value"] not in {"OFF", "0"}]
            if read_only:
                raise ProbeFailedError(f"the server takes no writes ({', '.join(read_only)})")
        if self.max_replica_lag is None:
            return {}
        (row,) = yield _MYSQL_VERSION
        rows = yield _MARIADB_LAG if "mariadb" in row["version"].lower() else _MYSQL_LAG
        if not rows:
            return {}
        for row in rows:
            if _field(row, "Seconds_Behind_") is None:
                receiving, replaying = _field(row, "_IO_Running"), _field(row, "_SQL_Running")
                return Degraded(
                    f"replication does not run: receiving is {receiving}, replaying is {replaying}"
                )
        return self._judge(max(float(_field(row, "Seconds_Behind_")) for row in rows))

    def _judge(self, lag: float | None, remark: str = "") -> Seen:
        if lag is None:
            return Degraded(f"how far the replica is behind its primary can't be told{remark}")
        found = {"replica_lag_seconds": lag}
        if self.max_replica_lag is not None and lag > self.max_replica_lag:
            return Degraded(
                f"the replica is {lag:.1f} s behind its primary{remark};"
                f" {self.max_replica_lag:g} s are allowed",
                found,
            )
        return found


def _postgresql_lag(row: Mapping[str, Any]) -> float | None:
    """Return the seconds by which a standby is behind at most; None where nobody can tell."""
    received, replayed = row["received"], row["replayed"]
    # After a restart it may say that it has received less than it had replayed before.
    if row["streaming"] and None not in {received, replayed} and received <= replayed:
        return 0.0
    return None if row["age"] is None else max(0.0, row["age"])


def _field(row: Mapping[str, Any], part: str) -> Any:
    """Return a field of a replica's status, be the word `Slave_..._Running` or `Replica_...`."""
    return next(value for name, value in row.items() if part in name)


def talk(conversation: Conversation, ask: Callable[[str], Rows]) -> Seen:
    """Hold a conversation by `ask`, which executes a statement and returns its rows."""
    try:
        statement = next(conversation)
        while True:
            statement = conversation.send(ask(statement))
    except StopIteration as end:
        seen: Seen = end.value
        return seen


async def talk_async(conversation: Conversation, ask: Callable[[str], Awaitable[Rows]]) -> Seen:
    """Hold a conversation by an async `ask`."""
    try:
        statement = next(conversation)
        while True:
            statement = conversation.send(await ask(statement))
    except StopIteration as end:
        seen: Seen = end.value
        return seen


def mysql_options(url: str) -> dict[str, Any]:
    """Return a URL as the arguments by which MySQL's drivers connect.

    Raises `ValueError` for one that is malformed, without its words: they may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
        query = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        known = parts.scheme.partition("+")[0] in {"mysql", "mariadb"} and query.keys() <= _OPTIONS
    except ValueError:
        known = False
    if not known:
        raise ValueError(
            "target must be a URL like mysql://user:password@host:3306/name; special characters in"
            f" the password are percent-encoded, and the options are {', '.join(sorted(_OPTIONS))}"
        )
    found: dict[str, Any] = {"host": parts.hostname or "localhost", "port": port}
    named = {"user": parts.username, "password": parts.password, "database": parts.path[1:]}
    found |= {name: unquote(value) for name, value in named.items() if value}
    if "ssl_ca" in query:
        found["ssl"] = {"ca": query.pop("ssl_ca")}
    return found | query


def show_mysql(options: Mapping[str, Any]) -> str:
    """Return where such arguments lead, and to which database."""
    address = f"{options.get('host', 'localhost')}:{options.get('port', 3306)}"
    name = options.get("database") or options.get("db") or ""
    return f"{options.get('unix_socket') or address}/{name}"
