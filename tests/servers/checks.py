"""The checks of the apps that the server tests run, by the scenario that the environment names.

Each run of a probe is written to a journal, so that a test sees what ran, when, and in which
process, whatever the server.
"""

from __future__ import annotations

import os
import socket
import threading
import time

import anyio

from healthmw import Health

TIMEOUT = 0.3
DEADLINE = 1.0
MAX_AGE = 1.0
SLOW = 0.2


def journal(name: str) -> None:
    """Note that the probe `name` runs: one write, so that processes don't mix their lines."""
    line = f"{name} {os.getpid()} {time.monotonic()}\n".encode()
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def database() -> None:
    """Connect to the dependency."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(os.environ["DEPENDENCY"])


def journaled_database() -> None:
    """Connect to the dependency, and tell of it."""
    journal("database")
    database()


def slow_sync() -> None:
    journal("slow_sync")
    time.sleep(SLOW)


async def slow_async() -> None:
    journal("slow_async")
    await anyio.sleep(SLOW)


def background() -> None:
    journal("background")


def hung_sync() -> None:
    journal("hung_sync")
    threading.Event().wait()


async def hung_async() -> None:
    """Hang for ever, whoever cancels it."""
    journal("hung_async")
    while True:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001, S112 - the very thing that is tested
            continue


def well() -> None:
    """Pass."""


def make() -> Health:
    """Return the `Health` of the scenario."""
    health = Health(release="v42", max_age=MAX_AGE, deadline=DEADLINE)
    scenario = os.environ["SCENARIO"]
    if scenario == "well":
        health.add("database", database, max_age=0.1)
        health.add("background", background, interval=0.2, stale_after=60)
    elif scenario == "ready":
        health.add("well", well)
    elif scenario == "journaled":
        health.add("database", journaled_database)
    elif scenario == "slow":
        health.add("sync", slow_sync)
        health.add("async", slow_async)
    elif scenario == "hung":
        health.add("sync", hung_sync, timeout=TIMEOUT)
        health.add("async", hung_async, timeout=TIMEOUT)
        health.add("well", well)
    elif scenario == "ending":
        health.add("abandoned-sync", hung_sync, timeout=TIMEOUT)
        health.add("abandoned-async", hung_async, timeout=TIMEOUT)
        health.add("running-sync", hung_sync, timeout=3600)
        health.add("running-async", hung_async, timeout=3600)
    else:
        raise ValueError(scenario)
    return health
