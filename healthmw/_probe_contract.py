"""What is asked of every probe, as tests that any probe can run against itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio

from healthmw import _probe
from healthmw._contract_kit import GIVES_UP, Census, Pool, Run, close, logged, words
from healthmw._options import WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from healthmw._probe import Probe

_BLOCKS = 0.5
"""A step of so many seconds, in a run that is to wait for an answer, is a blocked event loop."""

_PATIENCE = 60.0
"""What one rule may take, in seconds, beside the runs that it has hang."""

_AT_ONCE = 5


def check_probe(
    make: Callable[[], Probe],
    *,
    down: Callable[[], AbstractContextManager[object]] | None = None,
    hangs: Callable[[], AbstractContextManager[object]] | None = None,
    secrets: Iterable[str] = (),
    within: float | None = 5.0,
    rounds: int = 20,
    backend: str = "asyncio",
    rules: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Test a probe against the contract of probes; return the rules that were tested.

    - `make` returns a new probe of a dependency that is well.
    - `down` returns a context manager: inside of it that dependency refuses, and after it is well
      again. `hangs` is the same for one that takes connections and never answers.
    - `secrets`: what must be seen nowhere, nor in a log line of any level: the passwords that
      `make` uses.
    - `within`: how long a run may last while the dependency hangs, in seconds. With None an async
      probe may leave that to the check's timeout.
    - `rounds`: how many runs are looked at for leaks.
    - `backend`: `"asyncio"` or `"trio"`, for an async probe.
    - `rules`: which of `PROBE_RULES` to test; all that the other arguments allow, if None.
      `recovers` needs `down`, `bounded` needs `hangs`, `secret_free` needs `secrets`.

    Raises `AssertionError`, which says what is wrong and how to mend it, and `ValueError` for rules
    that can't be tested so. Not to be called on an event loop: it starts its own, in a thread.
    """
    looked_for = _checked(secrets)
    given = {"recovers": down, "bounded": hangs, "secret_free": looked_for}
    possible = [rule for rule in PROBE_RULES if given.get(rule, True)]
    chosen = possible if rules is None else [rule for rule in PROBE_RULES if rule in rules]
    unknown = sorted(set(rules or ()) - {*PROBE_RULES})
    if unknown or not chosen:
        raise ValueError(f"rules={rules!r} must name some of {', '.join(PROBE_RULES)}")
    for rule in chosen:
        if rule not in possible:
            option = {"recovers": "down", "bounded": "hangs"}.get(rule, "secrets")
            raise ValueError(f"rules: {rule!r} needs {option}=")
    trial = _Trial(
        make=make,
        down=down,
        hangs=hangs,
        secrets=looked_for,
        within=within,
        rounds=rounds,
        backend=backend,
    )
    for rule in chosen:
        trial.test(rule)
    return tuple(chosen)


def _checked(secrets: object) -> tuple[str, ...]:
    """Return the secrets; refuse what is none without its text. An empty one would be in any."""
    if isinstance(secrets, str) or not isinstance(secrets, Iterable):
        raise WrongTypeError(
            f"secrets must be a collection of texts, such as a list, not {type(secrets).__name__}"
        )
    found = tuple(secrets)
    for number, secret in enumerate(found):
        if not isinstance(secret, str) or not secret:
            raise ValueError(f"secrets[{number}] must be a text that is not empty")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One rule, put to the test in a thread with an event loop of its own."""

    make: Callable[[], Probe]
    down: Callable[[], AbstractContextManager[object]] | None
    hangs: Callable[[], AbstractContextManager[object]] | None
    secrets: tuple[str, ...] = field(repr=False)  # pytest shows it with a failure
    within: float | None
    rounds: int
    backend: str

    def test(self, rule: str) -> None:
        """Test `rule`, and don't wait for a probe that keeps its loop from ending."""
        told: list[BaseException | None] = []
        known = threading.Event()

        def tell(error: BaseException | None) -> None:
            told.append(error)
            known.set()

        async def main() -> None:
            with contextlib.suppress(RuntimeError):  # there is none on trio
                asyncio.get_running_loop().set_default_executor(Pool())
            try:
                await getattr(self, f"_{rule}")()
            except BaseException as exc:
                tell(exc)  # before the loop ends: a stubborn probe may not let it
                raise

        def run() -> None:
            try:
                anyio.run(main, backend=self.backend)
            except BaseException as exc:  # noqa: BLE001 - raised again where it is waited for
                tell(exc)
            else:
                tell(None)

        threading.Thread(target=run, name="check_probe", daemon=True).start()
        limit = _PATIENCE + 4 * (self.within or GIVES_UP)
        if not known.wait(limit):
            raise AssertionError(
                f"{rule}: not over after {limit:g} s. The probe blocks the event loop or hangs:"
                " make it a plain function, which runs in a thread, or await with a time limit"
            )
        match told[0]:
            case AssertionError() as error:
                raise AssertionError(f"{rule}: {error}") from error.__cause__
            case BaseException() as error:
                raise error

    def _new(self) -> Probe:
        probe = self.make()
        try:
            _probe.check_probe(probe)
        except TypeError as exc:
            raise AssertionError(f"make() returned no probe: {exc}") from None
        return probe

    # The rules

    async def _passes(self) -> None:
        probe = self._new()
        for _ in range(3):
            await _pass(
                probe, "the dependency is well, and it raised; make it pass, and all through"
            )
        await close(probe)

    async def _another_loop(self) -> None:
        """See that a second loop, after the end of the first and beside it, is no trouble."""
        probe = self._new()
        run = partial(anyio.run, _pass, probe, _ANOTHER_LOOP, backend=self.backend)
        for _ in range(2):
            await anyio.to_thread.run_sync(run)
        await _pass(probe, _ANOTHER_LOOP)
        await anyio.to_thread.run_sync(run)
        await _pass(probe, _ANOTHER_LOOP)
        await close(probe)

    async def _reentrant(self) -> None:
        probe = self._new()
        runs = [Run(probe) for _ in range(_AT_ONCE)]
        for run in runs:
            await run.ends(_PATIENCE)
        failed = [run for run in runs if run.error is not None]
        if failed:
            raise AssertionError(
                f"{len(failed)} of {_AT_ONCE} runs at once failed, though the dependency is well:"
                f" {failed[0].error!r}. Guard what they share by a lock, or give each its own"
            ) from failed[0].error
        await close(probe)

    async def _bounded(self) -> None:
        assert self.hangs is not None  # noqa: S101 - for the type checker: looked at by check_probe
        probe = self._new()
        await _pass(probe, _FIRST)
        for state in ("with a kept connection", "with a new one"):
            if await self._blocks(probe, state) and await self._blocks(probe, state):
                raise AssertionError(
                    "it blocked the event loop for more than half a second. Make it a plain"
                    " function, which runs in a thread, or await in place of blocking"
                )
        await _pass(
            probe, "the dependency answers again, and it raised; begin anew after a timeout"
        )
        await close(probe)

    async def _blocks(self, probe: Probe, state: str) -> bool:
        """Judge a run that gets no answer; return True where it seems to have blocked the loop.

        Once is not enough: a machine that is busy elsewhere may have stopped it at any point.
        """
        assert self.hangs is not None  # noqa: S101 - for the type checker: looked at by check_probe
        with self.hangs():
            run = Run(probe)
            limit = GIVES_UP if self.within is None else self.within
            ended = await run.ends(limit)
            if not ended and self.within is None and _probe.is_async(probe):
                run.cancel()
                ended = await run.ends(GIVES_UP)
        if not ended:
            raise AssertionError(
                f"still running {limit:g} s after the dependency stopped to answer, {state}. Put a"
                " time limit around all that it does: anyio.fail_after(), or the driver's timeouts"
            )
        if run.error is None:
            raise AssertionError(
                f"it passed while the dependency did not answer, {state}. Have it wait"
                " for an answer"
            )
        return run.blocked > _BLOCKS and run.blocked > run.took / 2

    async def _cancellable(self) -> None:
        probe = self._new()
        if not _probe.is_async(probe):
            await close(probe)
            return  # a thread can't be cancelled: `bounded` is what counts
        took = (await _pass(probe, _FIRST)).took
        with (self.hangs or contextlib.nullcontext)():
            for number in range(_AT_ONCE):
                run = Run(probe)
                # Hanging, it can be let go far; else it is caught at one point or another.
                await run.ends(0.1 if self.hangs else took * number / _AT_ONCE)
                run.cancel()
                if not await run.ends(GIVES_UP):
                    raise AssertionError(
                        f"cancelled, and still running {GIVES_UP:g} s later. Don't catch"
                        " BaseException or CancelledError, and shield no wait"
                    )
                if self.hangs and run.error is None:
                    raise AssertionError(
                        "cancelled while the dependency did not answer, and it passed. Don't catch"
                        " CancelledError, or raise it again"
                    )
        await _pass(
            probe, "it raised in the run after one that was cancelled; leave nothing half done"
        )
        await close(probe)

    async def _recovers(self) -> None:
        assert self.down is not None  # noqa: S101 - for the type checker: looked at by check_probe
        probe = self._new()
        for before in (_FIRST, _AGAIN):
            await _pass(probe, before)
            with self.down():
                for _ in range(2):
                    run = Run(probe)
                    await run.ends(_PATIENCE)
                    if run.error is None:
                        raise AssertionError(
                            "it passed while the dependency was down. Ask it anew in each run"
                        )
                    if not isinstance(run.error, Exception):
                        raise AssertionError(  # noqa: TRY004 - a test says so
                            f"it raised {type(run.error).__name__}, which is no Exception. Raise"
                            " ProbeFailedError"
                        ) from run.error
        await _pass(probe, _AGAIN)
        await close(probe)

    async def _leak_free(self) -> None:
        probe = self._new()
        took = 0.0
        for _ in range(3):
            took = (await _pass(probe, _FIRST)).took
        await _fail_once(probe, self.down)
        await _pass(probe, _AGAIN)
        before = await Census.take()
        for _ in range(self.rounds):
            await _pass(probe, _AGAIN)
        await before.settles(f"after {self.rounds} runs", _LEAKS)
        for _ in range(min(self.rounds, _AT_ONCE)):
            await _fail_once(probe, self.down)
        await _pass(probe, _AGAIN)
        await before.settles("after runs that failed", _LEAKS)
        if _probe.is_async(probe):
            for number in range(self.rounds):
                await _cancel_after(took * number / self.rounds, probe)
            await _pass(probe, _AGAIN)
            await before.settles("after runs that were cancelled", _LEAKS)
        await close(probe)

    async def _secret_free(self) -> None:
        said: list[tuple[str, str]] = []
        with logged(said):
            probe = self._new()
            said += [("its repr", repr(probe)), ("its str", str(probe))]
            said.append(("what it returned", repr((await _pass(probe, _FIRST)).value)))
            for how, state in (("down", self.down), ("hanging", self.hangs)):
                if state is not None:
                    with state():
                        run = Run(probe)
                        if not await run.ends(self.within or GIVES_UP):
                            run.cancel()
                            await run.ends(GIVES_UP)
                    said += [(f"what it raised, {how},", text) for text in words(run.error)]
            await close(probe)
        for number, secret in enumerate(self.secrets):
            for where, text in said:
                if secret in text or quote(secret, safe="") in text:
                    raise AssertionError(
                        f"{where} holds secrets[{number}]. Show host and name alone; raise"
                        " ProbeFailedError with words of your own, `from None`"
                    )

    async def _closes(self) -> None:
        await close(await self._used())  # the first time, what is loaded and stays is opened too
        before = await Census.take()
        probe = await self._used()
        await close(probe)
        has = _probe.closer(probe) is not None
        mend = "Have aclose() close all that it opens" if has else "Give it an aclose() or close()"
        await before.settles("after it was closed", mend)
        await close(probe)  # a second time
        await _pass(
            probe, "it raised when it was run after it had been closed; open anew on demand"
        )
        await close(probe)
        await close(self._new())  # one that never ran
        await before.settles("after it ran again and was closed", mend)

    async def _used(self) -> Probe:
        probe = self._new()
        await _pass(probe, _FIRST)
        return probe


PROBE_RULES = (
    "passes",
    "another_loop",
    "reentrant",
    "bounded",
    "cancellable",
    "recovers",
    "leak_free",
    "secret_free",
    "closes",
)
"""The rules that `check_probe` knows, in the order in which it tests them."""

_FIRST = "the dependency is well, and it raised"
_AGAIN = "the dependency is well again, and it raised. Replace a kept connection that has died"
_ANOTHER_LOOP = (
    "it raised on another event loop than the first. Keep clients and locks for each loop, or make"
    " them in each run"
)
_LEAKS = "Close in `finally` or `with` what a run opens"


async def _pass(probe: Probe, complaint: str) -> Run:
    """Run `probe` once, to pass."""
    run = Run(probe)
    if not await run.ends(_PATIENCE):
        raise AssertionError(f"not back after {_PATIENCE:g} s, though the dependency is well")
    if run.error is not None:
        raise AssertionError(f"{complaint}: {type(run.error).__name__}") from run.error
    return run


async def _cancel_after(seconds: float, probe: Probe) -> None:
    run = Run(probe)
    await run.ends(seconds)
    run.cancel()
    await run.ends(GIVES_UP)


async def _fail_once(
    probe: Probe, down: Callable[[], AbstractContextManager[object]] | None
) -> None:
    if down is not None:
        with down():
            await Run(probe).ends(_PATIENCE)
