"""An app in the states that the page is looked at in, with a past to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw import CircuitBreaker, Degraded, Health
from healthmw.wsgi import HealthApp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

NAMES = (
    "database", "replica", "redis", "search", "payments", "mail", "storage", "queue", "disk",
    "migrations", "sessions", "geocoder",
)  # fmt: skip
HARMLESS = ("replica", "payments", "mail", "geocoder")
RUNS = 30


class Clock:
    """A clock that only goes on when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def shop(size: int, state: str) -> Health:
    """Return a shop with `size` checks that is `green`, `degraded` or `red` after a good time."""
    clock = Clock()
    health = Health(
        release="v42-3f9c2ab",
        service="shop-web",
        version="2",
        description="The shop's front end",
        clock=clock,
        max_age=0,
    )
    names = [NAMES[i] if i < len(NAMES) else f"shard-{i:03d}" for i in range(size)]
    red = {"database", names[size // 2 + 1 if size > 1 else 0]} if state == "red" else set()
    weak = {"queue", "mail", names[-1]} if state == "degraded" else set()

    def probe(name: str) -> Callable[[], object]:
        def run() -> object:
            late = clock.now > 1000 + 5 * (RUNS - 8)
            if late and (name in red or (state == "degraded" and name == "payments")):
                raise ConnectionRefusedError(
                    111, f"connect to {name}.internal:5432 refused: is the server running there?"
                )
            if name == "mail" and name in weak and clock.now // 20 % 2:
                raise OSError("421 Service not available")
            if name in weak:
                return Degraded("4,210 messages wait, more than 1,000", {"lag_seconds": 12.5})
            return {"used_bytes": 48_339_221_504} if name == "disk" else None

        return run

    for name in names:
        health.add(
            name,
            probe(name),
            critical=name not in HARMLESS,
            breaker=CircuitBreaker(open_for=600) if name == "payments" else None,
            description="Card payments, at the bank" if name == "payments" else "",
        )
    for _ in range(RUNS if size < 100 else 12):
        clock.now += 5 if size < 100 else 12
        health.run_sync(fresh=True)
    for check in health.checks.values():
        check.max_age = 3600
    clock.now += 3
    return health


class Shops:
    """Serves each state at `/<name>/`; what is asked for is made once."""

    def __init__(self) -> None:
        self._apps: dict[str, HealthApp] = {}

    def serve(self, name: str, health: Health, show: str = "full") -> None:
        """Serve `health` at `/<name>/`."""
        self._apps[name] = HealthApp(health, show=show)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        name, _, rest = environ["PATH_INFO"][1:].partition("/")
        if name not in self._apps:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        environ["PATH_INFO"] = f"/{rest}"
        return self._apps[name](environ, start_response)
