"""What can befall a deploy, and where it is deployed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a release brings with it. It knows the revisions of the database up to `revision`."""

    name: str
    revision: str
    column: str
    formats: str


V1 = Release(name="v1", revision="r1", column="name", formats="1")
V2 = Release(name="v2", revision="r2", column="full_name", formats="1,2")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is wrong with a deploy. All that is not said is well."""

    words: str
    """What happens, for the page."""
    bad: bool = False
    """Whether the new release must get no traffic."""
    halts: bool = False
    """Whether healthmw halts the deploy."""
    culprit: str = ""
    """A word that the operator must be told where the deploy is halted."""
    old: Release = V1
    new: Release = V2
    fault: Mapping[str, str] = field(default_factory=dict)
    """What is set amiss for the new release."""
    schema: str = "r2"
    """What the database was migrated to before the deploy."""
    pool: int = 2
    limit: int = 20
    """How many connections the database allows to the app."""
    payments: bool = True
    """Whether the payment service answers."""
    worker: bool = False
    """Whether there is a worker, which writes what only the new release can read."""
    lag: float = 0.0
    """For how many seconds the router sends requests to processes that were told to stop."""


SCENARIOS = {
    "good release": Scenario(words="nothing is wrong."),
    "app crashes at boot": Scenario(
        words="the web process of the new release raises while it is loaded.",
        bad=True, halts=True, fault={"BOOT": "crash"}, culprit="STRIPE_KEY",
    ),
    "app hangs at boot": Scenario(
        words="the web process of the new release waits for ever while it is loaded.",
        bad=True, halts=True, fault={"BOOT": "hang"},
    ),
    "wrong DSN": Scenario(
        words="the new release is told to use a database that doesn't exist.",
        bad=True, halts=True, fault={"DATABASE": "nowhere"}, culprit="database (failed)",
    ),
    "migration missing": Scenario(
        words="the new release reads a column that nobody has added yet.",
        bad=True, halts=True, schema="r1", culprit="migrations (failed)",
    ),
    "migration ahead": Scenario(
        words="a rollback: the schema has a migration that the release to come doesn't know, and it"
        " is none that disturbs it. That release is well, and has to be let through.",
        old=V2, new=V1,
    ),
    "connection limit too small": Scenario(
        words="the database allows 11 connections to the app; each generation has a pool of 6.",
        bad=True, halts=True, pool=6, limit=11, culprit="headroom (failed)",
    ),
    "worker up before web": Scenario(
        words="the release has a worker too, which writes what the old web process can't read.",
        worker=True,
    ),
    "downstream dead at release": Scenario(
        words="a service that half of the pages call refuses connections, before the deploy and"
        " after it. The new release is as good as the old one.",
        halts=True, payments=False, culprit="payments",
    ),
    "old generation draining under load": Scenario(
        words="the router still sends requests to the old processes for two seconds after they"
        " were told to stop.",
        lag=2.0,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A platform, a server, and what is made of healthmw there."""

    words: str
    server: str
    switch: str
    """`timer`, or `readiness`."""
    healthmw: bool
    gate: tuple[str, ...] = ()
    """The release command, by its arguments to healthmw."""

    @property
    def interface(self) -> str:
        return "wsgi" if self.server == "gunicorn" else "asgi"

    def command(self, port: str) -> list[str]:
        module = "guarded" if self.healthmw else "plain"
        options = {
            "gunicorn": f"--bind 127.0.0.1:{port} --threads 4 --graceful-timeout 30",
            "uvicorn": f"--port {port} --interface asgi3 --timeout-graceful-shutdown 30",
        }[self.server]
        app = f"tests.preboot.{module}:{self.interface}"
        return [sys.executable, "-m", self.server, *options.split(), app]


SETTINGS = {
    "timer, gunicorn": Setting(
        words="a timer, gunicorn, no healthmw", server="gunicorn", switch="timer", healthmw=False
    ),
    "timer, uvicorn": Setting(
        words="a timer, uvicorn, no healthmw", server="uvicorn", switch="timer", healthmw=False
    ),
    "timer, gunicorn, healthmw": Setting(
        words="a timer, gunicorn, healthmw",
        server="gunicorn",
        switch="timer",
        healthmw=True,
        gate=("smoke",),
    ),
    "readiness, uvicorn, healthmw": Setting(
        words="readiness, uvicorn, healthmw",
        server="uvicorn",
        switch="readiness",
        healthmw=True,
        gate=("check", "tests.preboot.checks:health"),
    ),
}
