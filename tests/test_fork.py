"""`fork`, as gunicorn does it with `--preload`: what the parent has used, each child can use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from healthmw._fork import each
from tests.broken_log import broken_log
from tests.programs import run_program

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

CHILDREN = """
def child(main):
    '''Run main in a child; return its exit code: 0 when main was content.'''
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.alarm(20)
        main()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(1)

def join(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_health_that_nobody_has_used_works_in_each_child() -> None:
    out = run_program(
        CHILDREN
        + """
health = Health()
health.add("async", ScriptedProbe())
health.add("sync", ScriptedProbe(is_async=False))
assert threading.active_count() == 1

def main():
    assert health.run_sync().ok
    assert asyncio.run(health.run(fresh=True)).ok

print([join(pid) for pid in [child(main) for _ in range(4)]])
"""
    )
    assert out == "[0, 0, 0, 0]\n"


def test_a_child_begins_anew() -> None:
    out = run_program(
        CHILDREN
        + """
health = Health(max_age=3600)
probes = ScriptedProbe(), ScriptedProbe(is_async=False)
late = ScriptedProbe()
health.add("async", probes[0])
health.add("sync", probes[1])
check = health.add("background", late, interval=3600)
health.start()
until_sync(lambda: check.status is Status.OKAY)
assert health.run_sync("startup").ok and health.run_sync().ok

def main():
    # What the parent found out is the parent's.
    assert health.peek("ready") is None
    assert health.peek("startup") is None
    report = health.run_sync()
    reasons = [result.reason.value for result in report.results.values()]
    assert reasons == ["okay", "okay", "never_run"]
    assert [probe.calls for probe in (*probes, late)] == [2, 2, 1]
    health.start()
    until_sync(lambda: check.status is Status.OKAY)
    assert health.run_sync().ok
    assert health.peek("startup") is None
    for probe in probes:
        probe.play(OSError("gone"))
    assert not health.run_sync(fresh=True).ok
    # And so it is for the child's own children.
    assert join(child(grandchild)) == 0

def grandchild():
    assert health.peek("ready") is None
    assert not health.run_sync().ok
    assert [probe.calls for probe in probes] == [4, 4]

print(join(child(main)))
assert health.run_sync().ok  # the parent's own is as it was
print([probe.calls for probe in probes])
"""
    )
    assert out == "0\n[1, 1]\n"


def test_what_hangs_in_the_parent_does_not_hang_in_the_child() -> None:
    out = run_program(
        CHILDREN
        + """
health = Health(max_age=0)
probes = [ScriptedProbe(), ScriptedProbe(is_async=False)]
for number, probe in enumerate(probes):
    probe.hang()
    health.add(f"check-{number}", probe, timeout=0.05)
health.drain()
reasons = lambda group: {r.reason.value for r in health.run_sync(group).results.values()}
until_sync(lambda: reasons("release") == {"timeout", "stuck"})

def main():
    for probe in probes:
        probe.release()
    assert health.draining
    until_sync(lambda: reasons("release") == {"okay"})

print(join(child(main)))
"""
    )
    assert out == "0\n"


def test_no_lock_is_inherited_from_a_thread_that_is_not() -> None:
    out = run_program(
        CHILDREN
        + """
async def well_async():
    await anyio.sleep(0)

def well():
    pass

health = Health(max_age=0)
health.add("async", well_async, breaker=CircuitBreaker())
health.add("sync", well)
health.add("background", well_async, interval=0.001)
health.start()
until_sync(lambda: health.run_sync().ok)
stop = threading.Event()

def busy():
    while not stop.is_set():
        health.run_sync()

threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads:
    thread.start()

def main():
    health.start()
    until_sync(lambda: health.run_sync().ok)

codes = {join(child(main)) for _ in range(20)}
stop.set()
print(codes)
"""
    )
    assert out == "{0}\n"


def test_a_breaker_that_was_open_has_its_trials_in_the_child() -> None:
    out = run_program(
        CHILDREN
        + """
health = Health()
probe = ScriptedProbe(OSError("gone"), is_async=False)
breaker = CircuitBreaker(consecutive_failures=1, open_for=0.1, backoff=1)
check = health.add("payments", probe, breaker=breaker)
health.run_sync()
assert not check.available

def main():
    probe.play(None)
    health.start()
    until_sync(lambda: check.available)

print(join(child(main)))
"""
    )
    assert out == "0\n"


def test_a_clock_that_does_not_run_in_the_child_spoils_nothing() -> None:
    out = run_program(
        CHILDREN
        + """
other = Health()
other.add("other", ScriptedProbe(), breaker=CircuitBreaker(clock=anyio.current_time))
health = Health(max_age=3600)
health.add("it", ScriptedProbe())
assert asyncio.run(other.run()).ok and health.run_sync().ok

def main():
    assert other.history("other").runs == health.history("it").runs == 0
    assert asyncio.run(other.run()).ok and health.run_sync().ok

print([join(pid) for pid in [child(main) for _ in range(2)]])
"""
    )
    assert out == "[0, 0]\n"


def test_what_can_not_begin_anew_is_logged_and_spares_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[str] = []

    def breaks() -> None:
        raise OSError("no more memory for redis://:hunter2@cache")

    each([lambda: done.append("before"), breaks, lambda: done.append("after")])
    assert done == ["before", "after"]
    assert "could not begin anew" in caplog.text
    assert "no more memory for redis://:***@cache" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_can_not_even_be_logged_spares_the_rest_as_well(
    breakdowns: list[BaseException],
) -> None:
    done: list[str] = []

    def breaks() -> None:
        raise OSError("no more memory")

    with broken_log():
        each([breaks, lambda: done.append("after")])
    assert done == ["after"]
    assert [type(told) for told in breakdowns] == [ZeroDivisionError]
    breakdowns.clear()


def test_one_object_that_can_not_begin_anew_spares_its_like() -> None:
    out = run_program(
        CHILDREN
        + """
from healthmw._fork import each_in_child

done = []

class Object:
    def __init__(self, error):
        self.error = error

def renew(one):
    if one.error:
        raise one.error
    done.append(one)

known = each_in_child(renew)
objects = [Object(OSError("gone") if n % 2 else None) for n in range(6)]
known.update(objects)

def main():
    assert len(done) == 3

print(join(child(main)))
"""
    )
    assert out == "0\n"


def test_a_child_does_not_wait_for_a_breaker_that_a_thread_was_at() -> None:
    program = """
import os, signal, threading
from healthmw import Health
from healthmw import CircuitBreaker  # after it, so that it is after it in a child as well

signal.alarm(60)
breaker = CircuitBreaker()
health = Health()
health.add("it", lambda: None, breaker=breaker)
at_it = threading.Event()

def hold():
    with breaker._lock:  # as it is for a moment whenever a call ends
        at_it.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
at_it.wait()
pid = os.fork()
if not pid:
    signal.alarm(20)
    os._exit(0 if health.run_sync().ok else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert run.returncode == 0, run.stderr


def test_a_close_that_hangs_in_the_parent_is_no_childs() -> None:
    out = run_program(
        CHILDREN
        + """
class Client:
    closed = 0

    def __call__(self):
        pass

    def close(self):
        self.closed += 1
        if os.getpid() == parent:
            threading.Event().wait()

parent = os.getpid()
client = Client()
health = Health()
health.add("it", client)
for _ in range(2):
    asyncio.run(health.aclose())
assert client.closed == 1

def main():
    asyncio.run(health.aclose())
    assert client.closed == 2

print(join(child(main)))
""",
        measured=False,
    )
    assert out == "0\n"


def test_a_trial_that_is_under_way_in_the_parent_is_no_childs() -> None:
    out = run_program(
        CHILDREN
        + """
health = Health(max_age=0)
probe = ScriptedProbe(OSError("gone"), is_async=False)
clock = [0.0]
breaker = CircuitBreaker(consecutive_failures=1, clock=lambda: clock[0])
health.add("payments", probe, breaker=breaker)
health.run_sync()
clock[0] = 1000.0
probe.hang()
trial = InThread(health.run_sync)
until_sync(lambda: probe.running)

def main():
    probe.play(None)
    probe.release()
    assert health.run_sync().ok

print(join(child(main)))
probe.release()
trial.result()
"""
    )
    assert out == "0\n"


def test_a_child_does_not_wait_for_who_counts_wrong_tokens() -> None:
    out = run_program(
        CHILDREN
        + """
from healthmw._throttle import Throttle

throttle = Throttle(time.monotonic)
throttle.wrong("10.0.0.5")
throttle._lock.acquire()  # as a thread has it for a moment

def main():
    throttle.wrong("10.0.0.5")
    assert not throttle.wait("10.0.0.5")

print(join(child(main)))
"""
    )
    assert out == "0\n"


def test_a_child_finds_out_by_itself_that_what_was_down_is_back() -> None:
    out = run_program(
        CHILDREN
        + """
probe = ScriptedProbe(is_async=False)
breaker = CircuitBreaker(consecutive_failures=1, open_for=0.2, jitter=0)
check = Health().add("payments", probe, breaker=breaker)

@check.guard(fallback="later")
def sell():
    return "sold"

permit = breaker.try_acquire()
permit.failure()

def main():
    assert not check.available
    until_sync(lambda: sell() == "sold")

print(join(child(main)))
"""
    )
    assert out == "0\n"


def test_a_child_that_nobody_tells_of_its_fork_finds_out_too() -> None:
    """As under uWSGI, which forks by itself; and this one is never asked for the endpoint."""
    out = run_program(
        CHILDREN
        + """
from healthmw._fork import _forks

probe = ScriptedProbe(ConnectionError("down"), None, is_async=False)
health = Health(max_age=0)
check = health.add("payments", probe)
health.add("stock", ScriptedProbe())  # by the portal, which the child has not
assert not health.run_sync().ok
calls, parent = _forks._calls, os.getpid()
_forks._calls = []  # what Python's own fork tells is lost

def main():
    _forks._calls, _forks._pid = calls, parent
    until_sync(lambda: check.available)

print(join(child(main)))
"""
    )
    assert out == "0\n"
