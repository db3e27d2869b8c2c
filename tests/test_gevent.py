"""gevent: the app's threads are greenlets, and healthmw goes on beside them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.programs import ROOT
from tests.waiting import PATIENCE

PATCH = "from gevent import monkey; monkey.patch_all()\n"
PROGRAM = """
import logging, os, socket, threading, time
import anyio, gevent
from healthmw.probes import TCPProbe

logging.disable()
ticks = []
def ticker():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

def gap():
    "Return for how long, at most, no other greenlet had a turn."
    return max(later - sooner for sooner, later in zip(ticks, ticks[1:]))
"""


@pytest.fixture(params=["before", "after"])
def patched(request: pytest.FixtureRequest) -> str:
    """Return a beginning of a program: gevent patches before healthmw is imported, or after."""
    imports = "from healthmw import Health\nhealth = Health(max_age=0.1)\n"
    return PATCH + imports if request.param == "before" else imports + PATCH


def run(patched: str, code: str) -> str:
    """Return what the program wrote. It begins anew: `run_program` imports healthmw unpatched."""
    source = patched + PROGRAM + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readers_wait_and_others_do_not(patched: str) -> None:
    out = run(
        patched,
        """
home = threading.get_ident()
places = []
def sync():
    places.append((gevent.get_hub(), threading.get_ident()))
    time.sleep(0.2)
async def on_loop():
    places.append((gevent.get_hub(), 0))
    await anyio.sleep(0.2)
listener = socket.create_server(("localhost", 0))
health.add("sync", sync)
health.add("async", on_loop)
health.add("named", TCPProbe("localhost", listener.getsockname()[1]))
gevent.spawn(ticker)
readers = [gevent.spawn(health.run_sync) for _ in range(20)]
gevent.joinall(readers, raise_error=True)
assert all(reader.value.ok for reader in readers), readers[0].value
assert len(places) == 2, "one run for all"
hubs = dict(zip(("sync", "async"), [hub for hub, _ in sorted(places, key=lambda p: not p[1])]))
assert hubs["sync"] is gevent.get_hub(), "beside the app, with its clients"
assert hubs["async"] is not gevent.get_hub(), "in a thread of its own"
assert gap() < 5, gap()
print(len(ticks) > 5)
""",
    )
    assert out == "True\n"


def test_what_hangs_costs_one_greenlet_and_nobodys_time(patched: str) -> None:
    out = run(
        patched,
        """
runs = []
def stuck():
    runs.append("stuck")
    threading.Event().wait()
health.add("stuck", stuck, timeout=0.2, critical=False)
health.add("background", lambda: runs.append("background"), interval=0.05, groups=["release"])
health.start()
gevent.spawn(ticker)
for reason in ("timeout", "stuck"):
    until = time.monotonic() + 20
    while health.run_sync(fresh=True).results["stuck"].reason != reason:
        assert time.monotonic() < until
while runs.count("background") < 5:
    assert time.monotonic() < until
    gevent.sleep(0.01)
assert gap() < 5, gap()
print(runs.count("stuck"))
""",
    )
    assert out == "1\n"


def test_the_loop_goes_on_while_the_app_is_busy(patched: str) -> None:
    out = run(
        patched,
        """
turns = []
async def turn():
    turns.append(time.monotonic())
health.add("turn", turn, interval=0.05)
health.start()
original = monkey.get_original("time", "sleep")
until = time.monotonic() + 20
while not turns:
    gevent.sleep(0.01)
seen = len(turns)
while len(turns) < seen + 5:  # no greenlet has a turn meanwhile, nor the hub
    assert time.monotonic() < until, "it waits for the app"
    original(0.05)
print("went on")
""",
    )
    assert out == "went on\n"


def test_listeners_hear_of_changes(patched: str) -> None:
    out = run(
        patched,
        """
told = []
async def listen(change):
    told.append(change.new)
health.add("well", lambda: None)
health.subscribe(listen)
assert health.run_sync().ok
until = time.monotonic() + 20
while not told:
    assert time.monotonic() < until
    gevent.sleep(0.01)
print("told")
""",
    )
    assert out == "told\n"
