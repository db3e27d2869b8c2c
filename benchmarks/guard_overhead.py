"""What a guard around a call costs while its breaker is closed, beside other circuit breakers.

The function that is called returns its argument, so all that is seen is the wrapper. The peers are
installed on the first run into `.venvs/guard-peers`, which git ignores; what can't be had is left
out, and that is said. Coroutines are driven by hand: no event loop's time is included.

    python -m benchmarks.guard_overhead [--json FILE]
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks._measure import CONTROL, Results, nanoseconds, take_turns
from healthmw import CircuitBreaker
from healthmw._guard import Guard

ROOT = Path(__file__).parent.parent
PEERS_IN = ROOT / ".venvs" / "guard-peers"
PEERS = {
    "pybreaker": "1.4.1",
    "circuitbreaker": "2.1.3",
    "purgatory": "3.0.1",
    "aiobreaker": "1.2.0",
}
TIMES = 2_000
BARE, EMPTY, OURS = "bare call", "empty wrapper", "healthmw"

Wrap = Callable[[Any], Any]


def call(value: int) -> int:
    return value


async def call_async(value: int) -> int:
    return value


def pass_through(function: Any) -> Any:
    """The least that a wrapper can be."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def pass_through_async(function: Any) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def as_block(function: Any) -> Any:
    guard = Guard(name="x", breaker=CircuitBreaker())

    def wrapper(value: int) -> Any:
        with guard:
            return function(value)

    return wrapper


def ours(**options: Any) -> Wrap:
    bulkhead = options.pop("max_concurrent", None)
    return Guard(name="x", breaker=CircuitBreaker(**options), max_concurrent=bulkhead)


def install_peers() -> None:
    """Install the peers where only this script looks. Without a package index, go on without."""
    wanted = [f"{name}=={number}" for name, number in PEERS.items()]
    stamp = PEERS_IN / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8").split() != wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
        run = subprocess.run([*pip, "--target", str(PEERS_IN), *wanted], check=False)
        if run.returncode == 0:
            stamp.write_text("\n".join(wanted), encoding="utf-8")
    sys.path.append(str(PEERS_IN))


def peer_wrappers() -> tuple[dict[str, Wrap], dict[str, Wrap]]:
    """Return the decorators of those peers that can be had, for functions and for coroutines."""
    sync: dict[str, Wrap] = {}
    coroutines: dict[str, Wrap] = {}
    for name in PEERS:
        try:
            module: Any = importlib.import_module(name)
        except ImportError:
            print(f"{name} could not be installed, and is left out", file=sys.stderr)
            continue
        label = f"{name} {version(name)}"
        if name == "purgatory":
            sync[label] = module.SyncCircuitBreakerFactory()("x")
            coroutines[label] = module.AsyncCircuitBreakerFactory()("x")
            continue
        sync[label] = module.CircuitBreaker()
        if name != "pybreaker":  # it has no support for native coroutine functions
            coroutines[label] = module.CircuitBreaker()
    return sync, coroutines


def calling(function: Callable[[int], object]) -> Callable[[int], None]:
    def operation(times: int) -> None:
        for number in range(times):
            function(number)

    return operation


def awaiting(function: Callable[[int], Any]) -> Callable[[int], None]:
    def operation(times: int) -> None:
        for number in range(times):
            coroutine = function(number)
            try:
                coroutine.send(None)
            except StopIteration:
                continue
            raise RuntimeError("it waits, and then more than the wrapper is measured")

    return operation


def compare(contenders: dict[str, Callable[[int], None]], rounds: int) -> list[dict[str, Any]]:
    candidates = {name: nanoseconds(run, TIMES) for name, run in contenders.items()}
    samples = take_turns(candidates, rounds=rounds)
    return [
        {
            "wrapper": name,
            "ns a call": samples.median(name),
            "added": samples.added(name, BARE),
            "of bare": samples.ratio(name, BARE),
            "of healthmw": samples.ratio(name, OURS),
        }
        for name in (BARE, CONTROL, *list(contenders)[1:])
    ]


def main() -> None:
    results = Results("What a closed guard adds to a call, beside other circuit breakers.")
    rounds = results.rounds(41)
    install_peers()
    sync_peers, async_peers = peer_wrappers()
    sync = {BARE: call, EMPTY: pass_through(call), OURS: ours()(call)}
    sync |= {name: wrap(call) for name, wrap in sync_peers.items()}
    sync |= {
        "healthmw, max_concurrent=": ours(max_concurrent=10)(call),
        "healthmw, window_calls=": ours(window_calls=100)(call),
        "healthmw, window_seconds=": ours(window_seconds=60)(call),
        "healthmw, `with` block": as_block(call),
    }
    coroutines = {
        BARE: call_async,
        EMPTY: pass_through_async(call_async),
        OURS: ours()(call_async),
    }
    coroutines |= {name: wrap(call_async) for name, wrap in async_peers.items()}
    sync_runs = {name: calling(function) for name, function in sync.items()}
    results.table("A function", compare(sync_runs, rounds))
    async_runs = {name: awaiting(function) for name, function in coroutines.items()}
    results.table("A coroutine function", compare(async_runs, rounds))
    results.finish()


if __name__ == "__main__":
    main()
