"""Real servers for the tests: each an instance of its own on a free port, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSWORD = "bait-" + secrets.token_hex(12)
"""The password of every server started here; no message, repr or log may ever show it."""

_PATIENCE = 60.0  # seconds until a server that does not come up counts as broken
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")


class MissingServerError(Exception):
    """A server's program is not installed on this machine."""


def find_program(name: str, *folders: str) -> str:
    """Return the path of a program, also where distributions hide it from PATH."""
    found = shutil.which(
        name, path=os.pathsep.join((*folders, os.environ.get("PATH", ""), *_FOLDERS))
    )
    if found is None:
        raise MissingServerError(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by now, or gone: a signal takes its time."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "TtZX"


class Server(ABC):
    """One server process and what can befall it."""

    account: str = "nobody"
    """The user to run as when the tests run as root, which some servers refuse."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="healthmw-test-"))
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = self._pick_user()
            shutil.chown(self.folder, self._user)

    def _pick_user(self) -> str:
        for name in (self.account, "nobody"):
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(name).pw_name
        raise MissingServerError(
            "the tests run as root, and no other user exists to run servers as"
        )

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line that serves in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Tell whether the server answers."""

    def run(self, *command: str) -> None:
        """Run a set-up command as the server's user."""
        done = subprocess.run(
            command,
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} exited with {done.returncode}: {done.stdout!r}")

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                user=self._user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _PATIENCE
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} did not start: {self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def pids(self) -> list[int]:
        """Return the server's process and all that it started, oldest first."""
        if self._process is None or self._process.poll() is not None:
            return []
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        family = [self._process.pid]
        for pid in family:  # grows as it goes: children of children too
            family += [child for child, parent in parents.items() if parent == pid]
        return family

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self) -> None:
        """Freeze it: the kernel goes on accepting connections, and nobody answers."""
        self.signal(signal.SIGSTOP)
        until = time.monotonic() + _PATIENCE
        while not all(_is_stopped(pid) for pid in self.pids()):
            if time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} does not stop")
            time.sleep(0.002)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and all its children at once, as a crash would."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(_PATIENCE)
            self._process = None

    def restart(self) -> None:
        """Crash it and start it again, on the same port with the same data."""
        self.kill()
        self.start()

    def mend(self) -> None:
        """Bring it back to what a test may expect: awake and answering."""
        self.resume()
        if not self.pids():
            self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(Server):
    """PostgreSQL, by initdb."""

    account = "postgres"
    user = "app"

    def __init__(self, max_connections: int = 40) -> None:
        self.max_connections = max_connections
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        self._initdb = find_program("initdb", *map(str, versions))
        self._postgres = find_program("postgres", *map(str, versions))
        self._basebackup = find_program("pg_basebackup", *map(str, versions))
        super().__init__()
        self._fill()

    def _fill(self) -> None:
        """Make what it starts from."""
        secret = self.folder / "pw"
        secret.write_text(PASSWORD)
        if self._user is not None:
            shutil.chown(secret, self._user)
        self.run(
            self._initdb, "--pgdata=data", f"--username={self.user}", f"--pwfile={secret}",
            "--auth=scram-sha-256", "--no-sync", "--no-locale", "--encoding=UTF8",
        )  # fmt: skip
        secret.unlink()

    def command(self) -> Sequence[str]:
        return (
            self._postgres, "-D", "data", "-p", str(self.port), "-k", str(self.folder),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB",
            "-c", f"max_connections={self.max_connections}",
        )  # fmt: skip

    def ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.dsn(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def dsn(self, driver: str = "", password: str = PASSWORD) -> str:
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{self.user}:{password}@127.0.0.1:{self.port}/postgres"


class PostgreSQLStandby(PostgreSQL):
    """A hot standby, which streams from a primary that comes with it."""

    def __init__(self) -> None:
        self.primary = PostgreSQL()
        try:
            self.primary.start()
            super().__init__()
        except BaseException:
            self.primary.close()
            raise

    def _fill(self) -> None:
        self.run(
            self._basebackup, "--pgdata=data", f"--dbname={self.primary.dsn()}", "--no-sync",
            "--checkpoint=fast", "--write-recovery-conf",
        )  # fmt: skip

    def command(self) -> Sequence[str]:
        return (*super().command(), "-c", "wal_retrieve_retry_interval=100ms")

    def mend(self) -> None:
        self.primary.mend()
        super().mend()

    def close(self) -> None:
        super().close()
        self.primary.close()


class MariaDB(Server):
    """MariaDB, by mariadb-install-db."""

    account = "mysql"
    user = "app"

    def __init__(self) -> None:
        self._install = find_program("mariadb-install-db")
        self._mariadbd = find_program("mariadbd")
        super().__init__()
        self.run(
            self._install, "--no-defaults", f"--datadir={self.folder / 'data'}",
            "--skip-test-db", "--auth-root-authentication-method=normal",
        )  # fmt: skip
        init = self.folder / "init.sql"
        init.write_text(  # one statement a line: mariadbd's rule
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%';\n"
            "CREATE DATABASE IF NOT EXISTS app;\n"
        )

    def command(self) -> Sequence[str]:
        return (
            self._mariadbd, "--no-defaults", f"--datadir={self.folder / 'data'}",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder / 's'}",
            f"--pid-file={self.folder / 'pid'}", f"--init-file={self.folder / 'init.sql'}",
            "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M",
            "--skip-name-resolve",
        )  # fmt: skip

    def ready(self) -> bool:
        import pymysql

        try:
            pymysql.connect(
                host="127.0.0.1", port=self.port, user=self.user, password=PASSWORD,
                database="app", connect_timeout=5, read_timeout=5,
            ).close()  # fmt: skip
        except pymysql.err.OperationalError:
            return False
        return True

    def dsn(self, driver: str = "pymysql", password: str = PASSWORD) -> str:
        return f"mariadb+{driver}://{self.user}:{password}@127.0.0.1:{self.port}/app"


class MariaDBPrimary(MariaDB):
    """A MariaDB that can be replicated from."""

    def command(self) -> Sequence[str]:
        return (*super().command(), "--server-id=1", f"--log-bin={self.folder / 'binlog'}")


class MariaDBReplica(MariaDB):
    """A read-only replica of a primary that comes with it."""

    def __init__(self) -> None:
        self.primary = MariaDBPrimary()
        try:
            self.primary.start()
            super().__init__()
        except BaseException:
            self.primary.close()
            raise

    def command(self) -> Sequence[str]:
        return (*super().command(), "--server-id=2", "--read-only")

    def start(self) -> None:
        import pymysql

        super().start()
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user=self.user, password=PASSWORD, autocommit=True
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("STOP ALL SLAVES")
            cursor.execute(
                "CHANGE MASTER TO master_host = '127.0.0.1', master_port = %s, master_user = %s,"
                " master_password = %s, master_use_gtid = slave_pos, master_delay = 0,"
                " master_connect_retry = 1",
                (self.primary.port, self.user, PASSWORD),
            )
            cursor.execute("START SLAVE")

    def mend(self) -> None:
        self.primary.mend()
        super().mend()

    def close(self) -> None:
        super().close()
        self.primary.close()


class Redis(Server):
    """Redis, without persistence."""

    account = "redis"

    def __init__(self) -> None:
        self._program = find_program("redis-server")
        super().__init__()

    def command(self) -> Sequence[str]:
        return (
            self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
            "--appendonly", "no", "--requirepass", PASSWORD,
        )  # fmt: skip

    def ready(self) -> bool:
        import redis

        client = redis.Redis.from_url(self.dsn(), socket_timeout=5)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.connection_pool.disconnect()

    def dsn(self, password: str = PASSWORD) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/0"
