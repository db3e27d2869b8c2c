"""The contract of probes, against probes that break it, each in one way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

from healthmw import Degraded, _contract_kit, _probe_contract
from healthmw.exceptions import ProbeFailedError
from healthmw.testing import PROBE_RULES, check_probe
from tests.waiting import defy_cancellation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from healthmw._probe import Probe

    Row: TypeAlias = "tuple[str, Callable[[Dependency], Any], str]"

SECRET = "hunter2/x"

TURNS = 200
"""How long the probes of this module wait, in thousandths of a second or more."""


class Dependency:
    """What the probes of this module ask: well, or down, or hanging."""

    def __init__(self) -> None:
        self.state = "well"
        self.runs = 0

    @contextlib.contextmanager
    def _turn(self, state: str) -> Iterator[None]:
        self.state = state
        try:
            yield
        finally:
            self.state = "well"

    def down(self) -> contextlib.AbstractContextManager[None]:
        return self._turn("down")

    def hangs(self) -> contextlib.AbstractContextManager[None]:
        return self._turn("hangs")

    async def answer(self, turns: float = TURNS) -> None:
        """Wait for an answer, for so many turns of the loop: that no machine is too busy for."""
        await anyio.sleep(0.001)
        while self.state == "hangs":
            turns -= 1
            if turns < 0:
                raise TimeoutError
            await anyio.sleep(0.001)
        self.refuse_if_down()

    def refuse_if_down(self) -> None:
        if self.state == "down":
            raise ConnectionError("refused")


class Good:
    """A probe that keeps to the contract. Each of those below differs from it in one thing."""

    is_async = True

    def __init__(self, dependency: Dependency) -> None:
        self.dependency = dependency

    def __repr__(self) -> str:
        return type(self).__name__

    async def __call__(self) -> Any:
        await self.dependency.answer()
        return {"latency_seconds": 0.001}

    async def aclose(self) -> None: ...


class GoodSync:
    def __init__(self, dependency: Dependency) -> None:
        self.dependency = dependency

    def __call__(self) -> None:
        for _ in range(TURNS):
            if self.dependency.state != "hangs":
                break
            time.sleep(0.001)
        else:
            raise ProbeFailedError("no answer in time")
        self.dependency.refuse_if_down()

    def close(self) -> None: ...


def check(make: Callable[[Dependency], Any], **options: Any) -> tuple[str, ...]:
    dependency = Dependency()
    given: dict[str, Any] = {
        "down": dependency.down,
        "hangs": dependency.hangs,
        "secrets": [SECRET],
        "rounds": 5,
    }
    try:
        return check_probe(lambda: make(dependency), **given | options)
    finally:
        dependency.state = "well"  # for what still hangs


class BusyPool(Good):
    """Needs one thread more of the loop's own in each run, and holds none of them up."""

    async def __call__(self) -> None:
        self.dependency.runs += 1
        all_here = threading.Barrier(self.dependency.runs, timeout=30)
        waiting = [asyncio.to_thread(all_here.wait) for _ in range(all_here.parties)]
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("make", [Good, GoodSync])
def test_good_probes_keep_to_it(make: Callable[[Dependency], Probe], backend: str) -> None:
    assert check(make, backend=backend) == PROBE_RULES


def test_threads_that_the_loop_keeps_ready_are_no_leak() -> None:
    assert check(BusyPool, rules=["closes"])


class StallsOnce(Good):
    stalled = False

    async def __call__(self) -> None:
        if self.dependency.state == "hangs" and not self.stalled:
            self.stalled = True
            time.sleep(0.6)  # noqa: ASYNC251 - in place of a machine that is busy elsewhere
        await super().__call__()


def test_a_stall_that_does_not_come_again_is_not_the_probes() -> None:
    assert check(StallsOnce, rules=["bounded"])


def test_what_can_be_tested_depends_on_what_is_given() -> None:
    left = {"recovers", "bounded", "secret_free"}
    assert check_probe(lambda: Good(Dependency())) == tuple(r for r in PROBE_RULES if r not in left)


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        (["passed"], "must name some of passes, another_loop"),
        ([], "must name some of"),
        (["recovers"], "'recovers' needs down="),
        (["bounded"], "'bounded' needs hangs="),
        (["secret_free"], "'secret_free' needs secrets="),
    ],
)
def test_rules_that_cannot_be_tested(rules: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_probe(lambda: Good(Dependency()), rules=rules)


def test_the_level_of_the_log_is_left_as_it_was() -> None:
    before = logging.getLogger().level
    assert check(Good, rules=["secret_free"])
    assert logging.getLogger().level == before


@pytest.mark.parametrize(
    ("secrets", "complaint"),
    [
        (SECRET, r"secrets must be a collection"),
        ([SECRET, ""], r"secrets\[1\] must be a text that is not empty"),
        ([5], r"secrets\[0\] must be a text that is not empty"),
        (5, "secrets must be a collection"),
    ],
)
def test_secrets_that_are_none(secrets: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as info:
        check_probe(lambda: Good(Dependency()), secrets=secrets)
    assert SECRET not in str(info.value)


def test_secrets_may_be_told_one_after_the_other() -> None:
    with pytest.raises(AssertionError, match="secret_free"):
        check_probe(
            lambda: LogsASecret(Dependency()), secrets=iter([SECRET]), rules=["secret_free"]
        )


def test_no_secret_is_seen_where_a_test_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError) as info:
        check(Talkative, rules=["secret_free"])
    shown = str(info.getrepr(showlocals=False, style="short"))
    assert SECRET not in shown


# Probes that break it


class AlwaysFails(Good):
    async def __call__(self) -> None:
        raise OSError("no route to host")


class IsNeverBack(Good):
    async def __call__(self) -> None:
        await anyio.sleep_forever()


class SaysFalse(Good):
    async def __call__(self) -> bool:
        return False


class FailsTheSecondTime(Good):
    calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("already connected")


class KeepsItsFirstLoop(Good):
    loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self) -> None:
        self.loop = self.loop or asyncio.get_running_loop()
        answer = self.loop.create_future()
        asyncio.get_running_loop().call_later(0.001, answer.set_result, None)
        await answer


class OneReaderOnly(Good):
    busy = False

    async def __call__(self) -> None:
        if self.busy:
            raise RuntimeError("another coroutine is already waiting for incoming data")
        self.busy = True
        try:
            await super().__call__()
        finally:
            self.busy = False


class WaitsForEver(Good):
    async def __call__(self) -> None:
        await self.dependency.answer(math.inf)


class WaitsForEverInItsThread(GoodSync):
    def __call__(self) -> None:
        while self.dependency.state == "hangs":
            time.sleep(0.001)


class TakesSilenceForConsent(Good):
    async def __call__(self) -> None:
        with contextlib.suppress(TimeoutError):
            await super().__call__()


class Blocks(Good):
    async def __call__(self) -> None:
        if self.dependency.state == "hangs":
            time.sleep(0.6)  # noqa: ASYNC251 - what is wrong with it
            raise TimeoutError


class BlocksForGood(Good):
    async def __call__(self) -> None:
        while self.dependency.state == "hangs":
            time.sleep(0.01)  # noqa: ASYNC251 - what is wrong with it


class NeverTheSameAgain(Good):
    """After one timeout."""

    broken = False

    async def __call__(self) -> None:
        if self.broken:
            raise ConnectionError("the connection is in an unknown state")
        try:
            await super().__call__()
        except TimeoutError:
            self.broken = True
            raise


class TakesNoNotice(Good):
    async def __call__(self) -> None:
        if self.dependency.state == "hangs":
            await defy_cancellation(anyio.Event())


class PassesWhenCancelled(Good):
    async def __call__(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await super().__call__()


class NotAfterACancellation(Good):
    broken = False

    async def __call__(self) -> None:
        if self.broken:
            raise RuntimeError("half an answer is still in the pipe")
        try:
            await super().__call__()
        except asyncio.CancelledError:
            self.broken = True
            raise


class KeepsADeadConnection(Good):
    dead = False

    async def __call__(self) -> None:
        try:
            await super().__call__()
        except ConnectionError:
            self.dead = True
        if self.dead:
            raise ConnectionError("broken pipe")


class AsksOnce(Good):
    passed = False

    async def __call__(self) -> None:
        if not self.passed:
            await super().__call__()
        self.passed = True


class Exits(Good):
    async def __call__(self) -> None:
        try:
            await super().__call__()
        except ConnectionError:
            raise SystemExit(1) from None


opened: list[Any] = []


class LeavesFilesOpen(Good):
    async def __call__(self) -> None:
        opened.append(Path(__file__).open())  # noqa: ASYNC230, SIM115 - the leak
        await super().__call__()


class LeavesThreads(Good):
    def __init__(self, dependency: Dependency) -> None:
        super().__init__(dependency)
        self._stop = threading.Event()
        opened.append(self._stop)

    async def __call__(self) -> None:
        threading.Thread(target=self._stop.wait, daemon=True).start()
        await super().__call__()


class LeavesThreadsOfTheLoops(LeavesThreads):
    async def __call__(self) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._stop.wait)
        await Good.__call__(self)


class LeavesTasks(Good):
    async def __call__(self) -> None:
        opened.append(asyncio.ensure_future(asyncio.sleep(3600)))
        await super().__call__()


class LeavesFilesOpenWhenItFails(Good):
    async def __call__(self) -> None:
        file = Path(__file__).open()  # noqa: ASYNC230, SIM115 - the leak
        opened.append(file)
        await super().__call__()
        file.close()


class LeavesFilesOpenWhenCancelled(LeavesFilesOpenWhenItFails):
    async def __call__(self) -> None:
        with contextlib.suppress(ConnectionError):
            await super().__call__()
            return
        opened.pop().close()
        raise ConnectionError


class Talkative(Good):
    def __repr__(self) -> str:
        return f"Talkative(password={SECRET})"


class RaisesASecret(Good):
    async def __call__(self) -> None:
        try:
            await super().__call__()
        except ConnectionError:
            raise ProbeFailedError("redis://:hunter2%2Fx@cache refused") from None


class RaisesASecretsCause(Good):
    async def __call__(self) -> None:
        try:
            await super().__call__()
        except TimeoutError:
            both = ExceptionGroup("two", [OSError("reset"), OSError(f"login as app:{SECRET}")])
            raise ProbeFailedError("no answer") from both


class LogsASecret(Good):
    async def __call__(self) -> None:
        logging.getLogger("driver").warning("connecting with %s", SECRET)
        await super().__call__()


class LogsASecretInDetail(Good):
    async def __call__(self) -> None:
        logging.getLogger("driver.wire").debug("connecting with %s", SECRET)
        await super().__call__()


class ReturnsASecret(Good):
    async def __call__(self) -> Degraded:
        await super().__call__()
        return Degraded(f"slow: {SECRET}")


class KeepsOneOpen(Good):
    file: Any = None

    async def __call__(self) -> None:
        if self.file is None:
            self.file = Path(__file__).open()  # noqa: ASYNC230, SIM115 - the leak
            opened.append(self.file)
        await super().__call__()


class NothingCloses(KeepsOneOpen):
    aclose = None  # type: ignore[assignment]  # as if there were none


class ClosedForGood(Good):
    closed = False

    async def __call__(self) -> None:
        if self.closed:
            raise RuntimeError("the client has been closed")

    async def aclose(self) -> None:
        self.closed = True


class ClosedOnce(ClosedForGood):
    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("the client has been closed already")
        self.closed = True


class ClosesForEver(Good):
    async def aclose(self) -> None:
        await anyio.sleep_forever()


class SyncClosesForEver(GoodSync):
    def close(self) -> None:
        stop = threading.Event()
        opened.append(stop)
        stop.wait()


BROKEN: list[Row] = [
    ("passes", lambda _: "no probe", r"make\(\) returned no probe: .* not str"),
    ("passes", lambda _: Good, r"make\(\) returned no probe: .* pass an instance"),
    ("passes", AlwaysFails, "the dependency is well, and it raised"),
    ("passes", SaysFalse, "and it raised.*: ProbeFailedError"),
    ("passes", FailsTheSecondTime, "and it raised; make it pass, and all through: RuntimeError"),
    ("another_loop", KeepsItsFirstLoop, "on another event loop .* Keep clients .* for each loop"),
    ("reentrant", OneReaderOnly, r"4 of 5 runs at once failed.*already waiting.* by a lock"),
    ("bounded", TakesSilenceForConsent, "passed while the dependency did not answer"),
    ("bounded", Blocks, "blocked the event loop for more than half a second. Make it"),
    ("bounded", NeverTheSameAgain, "answers again, and it raised; begin anew after a timeout"),
    ("cancellable", PassesWhenCancelled, "cancelled while .*, and it passed. Don't catch"),
    ("cancellable", NotAfterACancellation, "the run after one that was cancelled; leave nothing"),
    ("recovers", KeepsADeadConnection, "well again, and it raised. Replace a kept connection"),
    ("recovers", AsksOnce, "passed while the dependency was down. Ask it anew"),
    ("recovers", Exits, "raised SystemExit, which is no Exception. Raise ProbeFailedError"),
    ("leak_free", LeavesFilesOpen, r"after 5 runs there are \d open files .* Close in `finally`"),
    ("leak_free", LeavesThreads, r"after 5 runs there are \d threads more than before"),
    ("leak_free", LeavesThreadsOfTheLoops, r"after 5 runs there are \d threads more than before"),
    ("leak_free", LeavesTasks, r"after 5 runs there are \d tasks more than before"),
    ("leak_free", LeavesFilesOpenWhenItFails, r"after runs that failed there are \d open files"),
    ("leak_free", LeavesFilesOpenWhenCancelled, r"after runs that were cancelled there are \d"),
    ("secret_free", Talkative, r"its repr holds secrets\[0\]. Show host and name alone"),
    ("secret_free", RaisesASecret, r"what it raised, down, holds secrets\[0\]"),
    ("secret_free", RaisesASecretsCause, r"what it raised, hanging, holds secrets\[0\]"),
    ("secret_free", LogsASecret, r"a log line holds secrets\[0\]"),
    ("secret_free", LogsASecretInDetail, r"a log line holds secrets\[0\]"),
    ("secret_free", ReturnsASecret, r"what it returned holds secrets\[0\]"),
    ("closes", KeepsOneOpen, r"after it was closed there are \d open files .* Have aclose\(\)"),
    ("closes", NothingCloses, r"after it was closed there are \d open files .* Give it an aclose"),
    ("closes", ClosedForGood, "run after it had been closed; open anew on demand: RuntimeError"),
    ("closes", ClosedOnce, "closing it raised RuntimeError"),
]

# Those that never end, each with the bounds, in seconds, that make it short.
STUBBORN: list[tuple[dict[str, float], Row]] = [
    (
        {"_PATIENCE": 1.0},
        ("passes", IsNeverBack, "not back after 1 s, though the dependency is well"),
    ),
    (
        {"within": 0.5},
        ("bounded", WaitsForEver, r"still running 0.5 s after .* Put a time limit around"),
    ),
    (
        {"within": 0.5},
        ("bounded", WaitsForEverInItsThread, "still running 0.5 s after .* the driver's timeouts"),
    ),
    (
        {"_PATIENCE": 1.0, "within": 0.5},
        ("bounded", BlocksForGood, r"not over after .* blocks the event loop or hangs"),
    ),
    (
        {"GIVES_UP": 0.5},
        ("cancellable", TakesNoNotice, "cancelled, and still running 0.5 s later. Don't catch"),
    ),
    ({"GIVES_UP": 0.5}, ("closes", ClosesForEver, "closing it took more than 0.5 s. Bound it")),
    ({"GIVES_UP": 0.5}, ("closes", SyncClosesForEver, "closing it took more than 0.5 s. Bound it")),
]


def names(rows: list[Row]) -> list[str]:
    return [f"{rule}-{make.__name__}" for rule, make, _ in rows]


@pytest.fixture
def tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bound what a leak takes to be told, and clean up after the probes."""
    monkeypatch.setattr(_contract_kit, "_SETTLES", 0.5)
    yield
    for one in opened:
        with contextlib.suppress(AttributeError):
            one.close()
        with contextlib.suppress(AttributeError):
            one.set()
    opened.clear()


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize(("rule", "make", "complaint"), BROKEN, ids=names(BROKEN))
def test_what_breaks_it_is_told_what_is_wrong_and_how_to_mend_it(
    rule: str, make: Callable[[Dependency], Probe], complaint: str
) -> None:
    with pytest.raises(AssertionError, match=rf"^{rule}: .*{complaint}"):
        check(make, rules=[rule])


@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize(("bounds", "row"), STUBBORN, ids=names([row for _, row in STUBBORN]))
def test_what_never_ends_is_told_so(
    bounds: dict[str, float], row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_contract_kit, _probe_contract):
        for name in {*bounds} & {*vars(module)}:
            monkeypatch.setattr(module, name, bounds[name])
    rule, make, complaint = row
    with pytest.raises(AssertionError, match=rf"^{rule}: .*{complaint}"):
        check(make, rules=[rule], within=bounds.get("within", 20))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon what is not to end."""
    monkeypatch.setattr(_contract_kit, "GIVES_UP", 0.5)
    monkeypatch.setattr(_probe_contract, "GIVES_UP", 0.5)


@pytest.mark.usefixtures("soon")
def test_an_async_probe_may_leave_its_bound_to_the_check() -> None:
    assert check(WaitsForEver, rules=["bounded"], within=None) == ("bounded",)


def test_secrets_are_looked_for_even_where_a_run_has_no_end() -> None:
    assert check(WaitsForEver, rules=["secret_free"], within=0.1)
    assert check(Good, rules=["secret_free", "cancellable"], down=None, hangs=None)


@pytest.mark.usefixtures("soon")
def test_but_not_where_it_does_not_give_in() -> None:
    with pytest.raises(AssertionError, match="bounded: still running"):
        check(TakesNoNotice, rules=["bounded"], within=None)


def test_what_make_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        check(lambda _: 1 // 0)


@pytest.mark.parametrize("probe", [functools.partial(anyio.sleep, 0.0), lambda: anyio.sleep(0.0)])
def test_any_callable_will_do(probe: Probe) -> None:
    assert check_probe(lambda: probe)
