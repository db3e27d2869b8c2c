"""Half a minute of things going wrong: `make demo`, or `python examples/demo.py`.

Boots the FastAPI example under uvicorn and the Flask one under gunicorn, takes away what they lean
on, gives it back, and shows what their health checks and their pages say meanwhile. Each answer is
compared with what is claimed here: where one differs, the exit status is 1.
"""

from __future__ import annotations

import io
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from examples._screen import Screen  # noqa: E402 - see above
from examples._servers import Answer, Server, ask, environment, procfile  # noqa: E402 - see above

if TYPE_CHECKING:
    from collections.abc import Mapping

PATIENCE = 30.0  # seconds until an answer must be as claimed; mostly it is after one
SHOPS = "fastapi", "flask"
MIGRATE = "alembic upgrade head"
OK, SERVER_ERROR, UNAVAILABLE = 200, 500, 503


class NotAsClaimedError(Exception):
    """Reality differs from what the demo says."""


class Demo:
    def __init__(self, screen: Screen, folder: Path, stack: ExitStack) -> None:
        self._screen = screen
        self._folder = folder
        self._stack = stack
        self._answers = 0
        self._took = 0.0  # seconds, for a release that was well
        self._payments = self._server("python downstream.py", cwd=HERE, name="payments")
        self._shops = {name: self._shop(name) for name in SHOPS}

    # The steps

    def run(self) -> None:
        self._screen.introduction()
        for step in (
            self.everything_is_up,
            self.payments_go_away,
            self.customers_keep_coming,
            self.the_databases_break,
            self.the_databases_are_mended,
            self.payments_come_back,
            self.a_release_that_is_well,
            self.a_release_that_is_not,
        ):
            step()
        self._screen.end(self._answers)

    def everything_is_up(self) -> None:
        self._screen.step("Two shops open, and the service that says how one may pay")
        self._screen.command("payments", f"PORT={self._payments.port} python downstream.py")
        self._payments.start()
        for name, shop in self._shops.items():
            self._prepare(name)
            self._screen.command(name, f"PORT={shop.port} {procfile(HERE / name, 'web')}")
            shop.start()
        for server in (self._payments, *self._shops.values()):
            server.wait_until_up()
        self._screen.gap()
        self._all("/health_check", status=OK, body="OKAY", health="okay")
        self._all("/payment-methods", status=OK, body='["card","paypal","invoice"]')

    def payments_go_away(self) -> None:
        self._screen.step("The payments service goes away: it is not critical, so traffic goes on")
        self._screen.command("payments", f"kill {self._payments.pid}")
        self._payments.stop()
        self._screen.gap()
        self._all("/health_check", status=OK, body="OKAY", health="degraded")
        self._all("/payment-methods", status=OK, body='["invoice"]')
        self._screen.say("The guard's fallback has answered: what the shop can offer by itself.")

    def customers_keep_coming(self) -> None:
        self._screen.step("Customers keep coming: after five failures in a row nobody waits for it")
        url = self._shops["fastapi"].url
        self._screen.command("fastapi", f"for i in 1 2 3 4 5; do curl {url}/payment-methods; done")
        for _ in range(5):
            self._expect(url + "/payment-methods", status=OK, body='["invoice"]')
        self._one(
            "fastapi",
            "/health_check?verbose",
            status=OK,
            contains="payments failed (circuit_open",
            health="degraded",
        )

    def the_databases_break(self) -> None:
        self._screen.step("The databases break: they are critical, so no traffic, please")
        self._screen.command("", f"cd {self._folder}")
        for name in self._shops:
            file = self._database(name)
            self._screen.command(name, f"cp {file.name} {file.name}.backup")
            shutil.copyfile(file, f"{file}.backup")
            self._screen.command(name, f"echo oops > {file.name}")
            file.write_text("oops\n")
        self._screen.gap()
        said = "FAILED: database (failed)"
        self._all("/health_check", status=UNAVAILABLE, contains=said, health="failed")
        self._one("flask", "/orders", status=SERVER_ERROR)

    def the_databases_are_mended(self) -> None:
        self._screen.step("The databases are mended")
        for name in self._shops:
            file = self._database(name)
            self._screen.command(name, f"cp {file.name}.backup {file.name}")
            shutil.copyfile(f"{file}.backup", file)
        self._screen.gap()
        self._all("/health_check", status=OK, body="OKAY", health="degraded")
        self._one("flask", "/orders", status=OK, body="[]")

    def payments_come_back(self) -> None:
        self._screen.step("Payments come back: the probe finds out, no customer is the guinea pig")
        self._screen.command("payments", f"PORT={self._payments.port} python downstream.py")
        self._payments.start()
        self._payments.wait_until_up()
        self._screen.gap()
        self._all("/health_check", status=OK, body="OKAY", health="okay")
        self._all("/payment-methods", status=OK, body='["card","paypal","invoice"]')

    def a_release_that_is_well(self) -> None:
        self._screen.step("Before the next release gets traffic: the release phase tries it")
        begun = time.monotonic()
        self._smoke("fastapi", expected=0, says="200 OKAY", so="the deploy goes on")
        self._took = time.monotonic() - begun

    def a_release_that_is_not(self) -> None:
        self._screen.step("The same with a database that nobody has migrated")
        missing = self._folder / "missing.db"
        self._screen.command("fastapi", f"export DATABASE_URL=sqlite:///{missing}")
        self._smoke(
            "fastapi",
            f"--timeout {2 * self._took:.0f}",  # it must have booted, to say what is wrong
            expected=1,
            says="503 FAILED: database (failed)",
            so="the deploy halts, and the old release goes on serving",
            DATABASE_URL=f"sqlite:///{missing}",
        )

    # What they are made of

    def _server(self, command: str, *, cwd: Path, name: str, **variables: str) -> Server:
        log = self._folder / f"{name}.log"
        server = Server(command, cwd=cwd, log=log, env=environment(**variables))
        self._stack.callback(server.stop)
        return server

    def _shop(self, name: str) -> Server:
        web = procfile(HERE / name, "web")
        return self._server(web, cwd=HERE / name, name=name, **self._variables(name))

    def _database(self, name: str) -> Path:
        return self._folder / f"{name}.db"

    def _variables(self, name: str) -> Mapping[str, str]:
        return {
            "DATABASE_URL": f"sqlite:///{self._database(name)}",
            "DOWNSTREAM_URL": self._payments.url,
        }

    def _prepare(self, name: str) -> None:
        self._screen.command(name, MIGRATE)
        subprocess.run(
            MIGRATE.split(),
            cwd=HERE / name,
            env=environment(**self._variables(name)),
            check=True,
        )

    def _all(
        self,
        path: str,
        *,
        status: int,
        body: str | None = None,
        contains: str = "",
        health: str | None = None,
    ) -> None:
        for name in self._shops:
            self._one(name, path, status=status, body=body, contains=contains, health=health)

    def _one(
        self,
        name: str,
        path: str,
        *,
        status: int,
        body: str | None = None,
        contains: str = "",
        health: str | None = None,
    ) -> None:
        shop = self._shops[name]
        url = shlex.quote(shop.url + path)
        self._screen.command(name, f"curl {'-i ' if health else ''}{url}")
        self._screen.answer(
            self._expect(
                shop.url + path, status=status, body=body, contains=contains, health=health
            )
        )

    def _expect(
        self,
        url: str,
        *,
        status: int,
        body: str | None = None,
        contains: str = "",
        health: str | None = None,
    ) -> Answer:
        """Ask until the answer is as claimed: a verdict may be a second old before it changes."""
        until = time.monotonic() + PATIENCE
        while True:
            answer = ask(url)
            if (
                answer.status == status
                and (body is None or answer.body.strip() == body)
                and contains in answer.body
                and (health is None or answer.health == health)
            ):
                self._answers += 1
                return answer
            if time.monotonic() > until:
                claimed = " ".join(filter(None, [str(status), body or contains, health]))
                raise NotAsClaimedError(f"{url} was to say {claimed!r}, and says {answer}")
            time.sleep(0.1)

    def _smoke(
        self,
        name: str,
        options: str = "",
        *,
        expected: int,
        says: str,
        so: str,
        **variables: str,
    ) -> None:
        command = f"healthmw smoke --procfile {options}".rstrip()
        self._screen.command(name, f"cd {(HERE / name).relative_to(HERE.parent)} && {command}")
        smoke = subprocess.Popen(
            command.split(),
            cwd=HERE / name,
            env=environment(**{**self._variables(name), **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with smoke:
            self._stack.callback(smoke.terminate)  # it stops what it has started; later it is over
            said = ""
            for line in smoke.stdout or ():
                said += line
                self._screen.output(line.rstrip())
        if smoke.returncode != expected:
            raise NotAsClaimedError(f"{command} was to exit {expected}, not {smoke.returncode}")
        if says not in said:
            raise NotAsClaimedError(f"{command} was to say {says}")
        self._answers += 1
        self._screen.exit_status(expected, so)


def _stop(number: int, _frame: object) -> NoReturn:
    for handled in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(handled, signal.SIG_IGN)  # what has been started is being stopped: no hurry
    raise SystemExit(128 + number)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # also in a pipe: it is to be watched
    screen = Screen()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="healthmw-demo-")))
        try:
            Demo(screen, folder, stack).run()
        except NotAsClaimedError as error:
            screen.trouble(str(error), logs=sorted(folder.glob("*.log")))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
