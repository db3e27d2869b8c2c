"""The example apps as the tests run them: under their real servers, on what their Procfile says."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from examples._servers import Answer, Server, ask, environment, procfile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATIENCE = (
    30.0  # seconds; a verdict turns within one or two, a breaker's trial may be due after ten
)


def boot_timeout(smoked: str) -> str:
    """Return a time limit for another smoke test, going by what one that passed has said."""
    said = re.search(r"is well after (?:(\d+) min )?([\d.]+) s", smoked)
    assert said is not None, smoked
    took = 60 * int(said[1] or 0) + float(said[2])
    return f"{3 + 3 * took:.0f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to run one example."""

    example: str
    web: str | None = None
    """Another command than the Procfile's."""

    @property
    def folder(self) -> Path:
        return EXAMPLES / self.example

    @property
    def command(self) -> str:
        return self.web or procfile(self.folder, "web")


FASTAPI = Kind(example="fastapi")
FLASK = Kind(example="flask")
DJANGO = Kind(example="django")
DJANGO_ASGI = Kind(example="django", web="uvicorn shop.asgi:application --port $PORT")


class Shop:
    """One example with a database file and a payments service of its own."""

    def __init__(self, kind: Kind, tmp_path: Path, **variables: str) -> None:
        """Prepare one; `variables` come before the defaults of its environment."""
        self.kind = kind
        self.database = tmp_path / "shop.db"
        self._kept = tmp_path / "kept.db"
        self.payments = Server(
            "python downstream.py", cwd=EXAMPLES, log=tmp_path / "payments.log", env=environment()
        )
        defaults = {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "DOWNSTREAM_URL": self.payments.url,
        }
        self.env: Mapping[str, str] = environment(**{**defaults, **variables})
        self.server = Server(
            kind.command, cwd=kind.folder, log=tmp_path / "server.log", env=self.env
        )

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the example's folder."""
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.kind.folder,
            env={**self.env, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )

    def create_tables(self) -> None:
        """Do the first half of the release phase."""
        done = self.run(procfile(self.kind.folder, "release").partition(" && ")[0])
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        self.create_tables()
        self.payments.start()
        self.server.start()
        self.payments.wait_until_up()
        self.server.wait_until_up()

    def stop(self) -> None:
        self.server.stop()
        self.payments.stop()

    def break_database(self) -> None:
        """Overwrite it in place, as a disk that goes bad would."""
        shutil.copyfile(self.database, self._kept)
        self.database.write_text("oops\n")

    def mend_database(self) -> None:
        shutil.copyfile(self._kept, self.database)

    def ask(self, path: str, *, data: object = None, host: str | None = None) -> Answer:
        headers = {} if host is None else {"Host": host}
        return ask(self.server.url + path, data=data, headers=headers)

    def until(self, path: str, right: Callable[[Answer], bool]) -> Answer:
        """Ask until the answer is right: another worker may keep what it knows for a second."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self.ask(path)
            if right(answer):
                return answer
            if time.monotonic() > deadline:
                log = self.server.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{path} goes on to say {answer}\n{log}")
            time.sleep(0.05)
