"""The contract of probes, for each that talks to a server. A new probe adds its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from psycopg_pool import ConnectionPool
from sqlalchemy.ext.asyncio import create_async_engine

from healthmw.probes import (
    AMQPProbe,
    AsyncmyProbe,
    AsyncpgProbe,
    HeadroomProbe,
    LDAPProbe,
    MemcachedProbe,
    MQTTProbe,
    NATSProbe,
    PsycopgProbe,
    PyMySQLProbe,
    RedisProbe,
    SMTPProbe,
    SQLAlchemyProbe,
)
from healthmw.testing import PROBE_RULES, check_probe
from tests.relay import Relay
from tests.services.brokers import NATS, Mosquitto, RabbitMQ
from tests.services.servers import PASSWORD, MariaDB, PostgreSQL, Redis, Server
from tests.services.store_servers import Mail, Memcached, Slapd

if TYPE_CHECKING:
    from collections.abc import Callable

    from healthmw._probe import Probe


TIMEOUT = 1.0


def sync_engine(dsn: str) -> Probe:
    return SQLAlchemyProbe(sa.create_engine(dsn), timeout=TIMEOUT)


def async_engine(dsn: str) -> Probe:
    return SQLAlchemyProbe(create_async_engine(dsn), timeout=TIMEOUT)


def driver(name: str, dsn: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{name}://")


def pool(dsn: str) -> Probe:
    unopened: ConnectionPool[Any] = ConnectionPool(dsn, open=False)
    return PsycopgProbe(unopened, timeout=TIMEOUT)


def headroom(target: Any) -> Probe:
    return HeadroomProbe(target, processes=1, per_process=1, timeout=TIMEOUT)


def mail(dsn: str) -> Probe:
    port = urlsplit(dsn).port
    login: Any = {"username": Mail.user, "password": PASSWORD}
    return SMTPProbe("127.0.0.1", port, starttls=True, verify=False, **login, timeout=TIMEOUT)


# Name, server, and what makes a probe of a DSN. An engine is here once sync and once async: what
# its driver does about a server that hangs or goes is for the fault table.
PROBES: list[tuple[str, type[Server], Callable[[str], Probe]]] = [
    ("redis", Redis, lambda dsn: RedisProbe(dsn, timeout=TIMEOUT)),
    ("psycopg sync", PostgreSQL, lambda dsn: sync_engine(driver("psycopg", dsn))),
    ("asyncpg", PostgreSQL, lambda dsn: async_engine(driver("asyncpg", dsn))),
    ("psycopg alone", PostgreSQL, lambda dsn: PsycopgProbe(dsn, timeout=TIMEOUT)),
    ("psycopg pool", PostgreSQL, pool),
    ("asyncpg alone", PostgreSQL, lambda dsn: AsyncpgProbe(dsn, timeout=TIMEOUT)),
    ("pymysql alone", MariaDB, lambda dsn: PyMySQLProbe(dsn, timeout=TIMEOUT)),
    ("asyncmy alone", MariaDB, lambda dsn: AsyncmyProbe(dsn, timeout=TIMEOUT)),
    ("headroom asyncpg", PostgreSQL, lambda dsn: headroom(driver("asyncpg", dsn))),
    ("headroom redis", Redis, headroom),
    ("amqp", RabbitMQ, lambda dsn: AMQPProbe(dsn, timeout=TIMEOUT)),
    ("nats", NATS, lambda dsn: NATSProbe(dsn, timeout=TIMEOUT)),
    ("mqtt", Mosquitto, lambda dsn: MQTTProbe(dsn, timeout=TIMEOUT)),
    ("memcached", Memcached, lambda dsn: MemcachedProbe(dsn, timeout=TIMEOUT)),
    ("ldap", Slapd, lambda dsn: LDAPProbe(dsn, clear_text=True, timeout=TIMEOUT)),
    ("smtp", Mail, mail),
]


@pytest.mark.parametrize(("kind", "make"), [p[1:] for p in PROBES], ids=[p[0] for p in PROBES])
def test_probes_keep_to_the_contract(
    lend: Callable[[type[Any]], Any], kind: type[Server], make: Callable[[str], Probe]
) -> None:
    server = lend(kind)
    with Relay(server.port) as relay:
        dsn = server.dsn().replace(f":{server.port}", f":{relay.port}")
        tested = check_probe(
            lambda: make(dsn),
            down=relay.down,
            hangs=relay.hangs,
            secrets=[PASSWORD],
            within=20,
            rounds=5,
        )
    assert tested == PROBE_RULES
