"""A process that has run out of files, threads or memory answers 503, and is well again after."""

from __future__ import annotations

import os
import sys

import pytest

from tests.programs import run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it limits itself as Linux has it")

_ASK = """
import gc, resource
from contextlib import contextmanager
from healthmw import asgi, wsgi
from tests.transports import WsgiExchange, ask_asgi, environ_for

async def no_asgi(*_): ...
def no_wsgi(*_): ...

events = []
health = Health(max_age=0, deadline=30)
health.add("async", ScriptedProbe(), timeout=20)
health.add("sync", ScriptedProbe(is_async=False), timeout=20)
health.add("background", ScriptedProbe(), timeout=20, interval=0.05, stale_after=60)
health.subscribe(lambda event: events.append(event))
by_wsgi = wsgi.HealthMiddleware(no_wsgi, health)

def ask():
    return WsgiExchange().serve(by_wsgi, environ_for(path="/health_check")).status

def files():
    return len(os.listdir("/proc/self/fd"))

@contextmanager
def no_files(left=0):
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, was[1]))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(left):
        os.close(taken.pop())
    try:
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, was)

@contextmanager
def no_threads():
    was = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, was)

ask_asgi, environ_for, WsgiExchange  # loaded, while there are files to read
# asyncio complains of a loop that it could not make, and nobody can hold it back.
sys.unraisablehook = lambda _: None
"""


def test_out_of_files_before_the_first_request() -> None:
    run_program(
        _ASK
        + """
before = files()
with no_files():
    assert [ask() for _ in range(20)] == [503] * 20
until_sync(lambda: ask() == 200)
until_sync(lambda: {event.check for event in events} == {"async", "sync", "background"})
settled = files()
with no_files():
    # What it needs, it has by now.
    assert [ask() for _ in range(20)] == [200] * 20
assert ask() == 200
gc.collect()
assert files() <= settled <= before + 6, (before, settled, files())
"""
    )


def test_out_of_files_on_an_app_s_own_loop() -> None:
    run_program(
        _ASK
        + """
async def main():
    app = asgi.HealthMiddleware(no_asgi, health)
    async def ask():
        return (await ask_asgi(app, path="/health_check")).status
    await ask()
    with no_files():
        await until(lambda: True)
        for _ in range(20):
            assert await ask() == 200
    assert await ask() == 200
    await health.aclose()

anyio.run(main)
"""
    )


def test_out_of_files_before_the_first_guarded_call() -> None:
    run_program(
        _ASK
        + """
from healthmw import CircuitBreaker

health = Health()
check = health.add("it", ScriptedProbe(), breaker=CircuitBreaker())

@check.guard(timeout=20)
async def call():
    return "well"

async def main():
    health.start()
    with no_files():
        assert await call() == "well"
        await health.aclose()

asyncio.run(main())
"""
    )


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_side_server_that_finds_too_few_files_says_so(left: int) -> None:
    run_program(
        _ASK
        + f"""
import urllib.request

untold = []
threading.excepthook = untold.append  # nobody is to be told but the caller
health.serve(port=0).close()
gc.collect()
before = files()
with no_files({left}):
    try:
        health.serve(port=0, stalled_after={None if left == 1 else 60})
    except OSError as exc:
        assert exc.errno == 24, exc
    else:
        raise AssertionError("it serves")
gc.collect()
assert files() <= before, (before, files())
assert not untold, untold
server = health.serve(port=0, stalled_after=60)
assert urllib.request.urlopen(f"http://127.0.0.1:{{server.port}}/live").read() == b"OKAY"
server.close()
"""
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without processes")
def test_out_of_threads() -> None:
    run_program(
        _ASK
        + """
os.setgroups([])
resource.setrlimit(resource.RLIMIT_NPROC, (500, 500))
os.setresuid(58437, 58437, 58437)  # nobody's: who has no process but this
before = files()
with no_threads():
    assert [ask() for _ in range(20)] == [503] * 20
    gc.collect()
    assert files() <= before + 1, (before, files())
until_sync(lambda: ask() == 200)
"""
    )


def test_out_of_memory() -> None:
    """An error that can't even be described for want of memory is a failure, and no hang."""
    run_program(
        _ASK
        + """
class Huge(Exception):
    def __str__(self):
        return "x" * (1 << 46)

def fails():
    raise Huge

health = Health(max_age=0, deadline=30)
health.add("it", fails, timeout=20)
for _ in range(3):
    result = health.run_sync().results["it"]
    assert (result.reason, result.detail) == (Reason.FAILED, "Huge"), result.detail
was = resource.getrlimit(resource.RLIMIT_AS)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

def hungry():
    return {"n": len(bytearray(1 << 33))}

resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), was[1]))
health = Health(max_age=0, deadline=30)
health.add("hungry", hungry, timeout=20)
health.add("sync", ScriptedProbe(is_async=False), timeout=20)
for _ in range(10):
    report = health.run_sync()
    assert report.results["hungry"].detail == "MemoryError", report.results["hungry"].detail
    assert report.results["sync"].ok
"""
    )
