"""Resources of a process or an event loop: one for each, and none of the parent's after a fork."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
from weakref import WeakSet

import anyio
import pytest

from healthmw._held import PerLoop, PerProcess


class Clients:
    """Makes numbered resources for a PerLoop, and keeps account of those that were closed."""

    def __init__(self) -> None:
        self.made = 0
        self.closed: list[int] = []
        self.per_loop = PerLoop(self.make, self.close)

    def make(self) -> int:
        self.made += 1
        return self.made

    async def close(self, number: int) -> None:
        self.closed.append(number)


@pytest.mark.anyio
async def test_per_loop_is_one_on_one_loop() -> None:
    clients = Clients()
    assert [await clients.per_loop.get() for _ in range(3)] == [1, 1, 1]
    await clients.per_loop.aclose()
    assert clients.closed == [1]


@pytest.mark.anyio
async def test_per_loop_may_be_closed_twice_and_used_again() -> None:
    clients = Clients()
    await clients.per_loop.aclose()
    await clients.per_loop.get()
    await clients.per_loop.aclose()
    await clients.per_loop.aclose()
    assert await clients.per_loop.get() == 2
    assert clients.closed == [1]
    await clients.per_loop.aclose()
    assert clients.closed == [1, 2]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_per_loop_makes_another_on_another_loop_and_the_loop_closes_it(backend: str) -> None:
    clients = Clients()
    assert [anyio.run(clients.per_loop.get, backend=backend) for _ in range(3)] == [1, 2, 3]
    assert clients.closed == [1, 2, 3]


@pytest.mark.anyio
async def test_per_loop_keeps_the_loops_of_two_threads_apart() -> None:
    clients = Clients()
    here = await clients.per_loop.get()
    there = await anyio.to_thread.run_sync(lambda: asyncio.run(clients.per_loop.get()))
    assert there != here
    assert clients.closed == [there]
    assert await clients.per_loop.get() == here
    await clients.per_loop.aclose()


def test_per_loop_forgets_what_a_loop_left_that_closed_without_a_word() -> None:
    class Resource:
        pass

    async def close(_: Resource) -> None:
        """Close it, on its own loop."""

    per_loop = PerLoop(Resource, close)
    left: WeakSet[Resource] = WeakSet()
    running = asyncio.new_event_loop()
    kept = running.run_until_complete(per_loop.get())
    for _ in range(3):
        loop = asyncio.new_event_loop()
        left.add(loop.run_until_complete(per_loop.get()))
        loop.close()
    gc.collect()
    assert len(left) == 1  # the last one, until somebody asks again
    assert running.run_until_complete(per_loop.get()) is kept
    anyio.run(per_loop.get, backend="trio")
    gc.collect()
    assert len(left) == 0
    running.close()


FORK = """
import asyncio, json, os, sys
from healthmw._held import PerLoop, PerProcess

closed = []

async def close(pid):
    closed.append(pid)

left = []
per_process = PerProcess(os.getpid, left.append)
per_loop = PerLoop(os.getpid, close)
loop = asyncio.new_event_loop()
before = [per_process.get(), loop.run_until_complete(per_loop.get())]
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    after = [per_process.get(), loop.run_until_complete(per_loop.get())]
    loop.run_until_complete(per_loop.aclose())
    loop.run_until_complete(loop.shutdown_asyncgens())  # as a Runner that was inherited ends
    popped = [per_process.pop(), per_process.pop()]
    os.write(writer, json.dumps([os.getpid(), after, closed, popped, left]).encode())
    os._exit(0)
os.waitpid(child, 0)
told = json.loads(os.read(reader, 65536))
still = [per_process.get(), loop.run_until_complete(per_loop.get())]
loop.run_until_complete(per_loop.aclose())
loop.close()
print(json.dumps({"parent": os.getpid(), "before": before, "still": still, "child": told}))
"""


def test_a_forked_child_makes_its_own_and_leaves_the_inherited_alone() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    parent, (child, after, closed, popped, left) = told["parent"], told["child"]
    assert told["before"] == told["still"] == [parent, parent]
    assert after == [child, child]
    assert closed == [child]
    assert popped == [child, None]
    assert left == [parent]


def test_per_process_is_one_for_all_threads() -> None:
    per_process = PerProcess(object)
    found = []
    threads = [threading.Thread(target=lambda: found.append(per_process.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
