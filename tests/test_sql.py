"""What is asked of SQL servers, where a real one can't be brought to say it in a test."""

from __future__ import annotations

from typing import Any

import pytest

from healthmw._probe import Degraded
from healthmw._sql import Seen, Wishes, mysql_options, talk

STANDBY = {"standby": True, "streaming": True, "received": 500, "replayed": 500, "age": 90.0}
SLEEP = "SELECT pg_sleep(0.1)"


class Server:
    """Answers each statement that begins so with the next of its answers."""

    def __init__(self, **answers: list[list[dict[str, Any]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, statement: str) -> list[dict[str, Any]]:
        self.asked.append(statement)
        word = statement.split()[1].partition("(")[0]
        return self.answers[word].pop(0)


def lag_of(*looks: dict[str, Any], bound: float = 10) -> tuple[Seen, list[str]]:
    server = Server(pg_is_in_recovery=[[STANDBY | look] for look in looks], pg_sleep=[[{}]])
    return talk(Wishes(max_replica_lag=bound).examine("postgresql"), server), server.asked


def test_what_comes_in_after_a_silence_of_the_primary_is_no_lag() -> None:
    # Nothing came for 90 s; what came then is replayed a moment later, and more has come in.
    seen, asked = lag_of({"received": 600}, {"received": 700, "replayed": 600})
    assert seen == {"replica_lag_seconds": 0}
    assert asked[1] == SLEEP


def test_what_is_not_replayed_at_the_second_look_is_lag() -> None:
    seen, _ = lag_of({"received": 600}, {"received": 700, "replayed": 599, "age": 90.1})
    assert isinstance(seen, Degraded)
    assert dict(seen.measurements) == {"replica_lag_seconds": 90.1}


def test_a_standby_that_is_promoted_between_two_looks_has_no_lag() -> None:
    seen, _ = lag_of({"received": 600}, {"standby": False, "received": None, "replayed": None})
    assert seen == {"replica_lag_seconds": 0}


def test_a_lag_within_the_bound_needs_no_second_look() -> None:
    seen, asked = lag_of({"received": 600}, bound=100)
    assert seen == {"replica_lag_seconds": 90}
    assert SLEEP not in asked


@pytest.mark.parametrize(
    "look",
    [
        {"age": None, "received": 600},
        {"age": None, "received": None, "streaming": False},
        {"age": None, "replayed": None},
    ],
)
def test_a_lag_that_nobody_can_tell_is_degraded(look: dict[str, Any]) -> None:
    seen, _ = lag_of(look)
    assert isinstance(seen, Degraded)
    assert "can't be told" in seen.detail
    assert seen.measurements == {}


def test_a_restarted_standby_may_have_received_less_than_it_has_replayed() -> None:
    assert lag_of({"received": 400, "age": None})[0] == {"replica_lag_seconds": 0}


def test_a_standby_fed_from_an_archive_is_as_old_as_what_it_replayed() -> None:
    look = {"streaming": False, "received": None}
    assert lag_of(look, bound=100)[0] == {"replica_lag_seconds": 90}
    assert isinstance(lag_of(look)[0], Degraded)


def mysql(version: str, *status: dict[str, Any]) -> tuple[Seen, str]:
    word = "ALL" if "Maria" in version else "REPLICA"
    server = Server(**{"VERSION": [[{"version": version}]], word: [[*status]]})
    return talk(Wishes(max_replica_lag=10).examine("mysql"), server), server.asked[-1]


def test_mysql_has_words_of_its_own() -> None:
    status = {
        "Replica_IO_Running": "Yes",
        "Replica_SQL_Running": "Yes",
        "Seconds_Behind_Source": 3,
        "Replica_SQL_Running_State": "waiting",
    }
    assert mysql("8.4.3", status) == ({"replica_lag_seconds": 3}, "SHOW REPLICA STATUS")
    stopped = status | {"Seconds_Behind_Source": None, "Replica_IO_Running": "Connecting"}
    assert mysql("8.4.3", status, stopped)[0] == Degraded(
        "replication does not run: receiving is Connecting, replaying is Yes"
    )


def test_of_several_primaries_the_one_furthest_ahead_counts() -> None:
    status = [{"Seconds_Behind_Master": seconds} for seconds in (0, 12, 3)]
    seen, asked = mysql("10.11.6-MariaDB", *status)
    assert asked == "SHOW ALL SLAVES STATUS"
    assert isinstance(seen, Degraded)
    assert seen.detail == "the replica is 12.0 s behind its primary; 10 s are allowed"


@pytest.mark.parametrize("lag", [0, -1, float("inf"), float("nan")])
def test_a_bound_must_be_a_time(lag: float) -> None:
    with pytest.raises(ValueError, match=r"^max_replica_lag=.* must be a finite number of seconds"):
        Wishes(max_replica_lag=lag)


def test_a_url_for_mysql() -> None:
    assert mysql_options("mysql://a%40b:p%2Fw@db.internal:3307/shop?charset=utf8mb4") == {
        "host": "db.internal",
        "port": 3307,
        "user": "a@b",
        "password": "p/w",
        "database": "shop",
        "charset": "utf8mb4",
    }
    assert mysql_options("mariadb+pymysql:///?ssl_ca=/ca.pem&unix_socket=/run/my.sock") == {
        "host": "localhost",
        "port": 3306,
        "ssl": {"ca": "/ca.pem"},
        "unix_socket": "/run/my.sock",
    }


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:bait@db/shop",
        "mysql://app:ba/it@db/shop",
        "mysql://app:bait@db:port/shop",
        "mysql://app:bait@db/shop?sslca=bait",
        "mysql://app:bait@db/shop?bait",
        "bait",
    ],
)
def test_a_malformed_url_is_refused_in_our_own_words(url: str) -> None:
    with pytest.raises(ValueError, match="target must be a URL like mysql://") as info:
        mysql_options(url)
    assert "bait" not in str(info.value)
    assert info.value.__cause__ is None
