"""The peers: each in an environment of its own in `.venvs/peers`, made on first use.

They come from the package index, by name and version. What is not to be had is left out, and said.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FOLDER = ROOT / ".venvs" / "peers"
_ASGI = ("uvicorn", "httptools")
_FRAMEWORKS = (*_ASGI, "gunicorn", "django", "flask", "sqlalchemy", "fastapi", "psycopg[binary]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    version: str
    needs: tuple[str, ...] = ()
    """What is installed beside it, in the versions that the project itself uses."""
    python: str = ""


_PEERS = {
    "django-health-check": _Peer(version="4.8.0", needs=(*_ASGI, "gunicorn", "psycopg[binary]")),
    "django-watchman": _Peer(version="1.5.0", needs=("gunicorn", "psycopg[binary]")),
    "dockerflow": _Peer(version="2026.3.4", needs=_FRAMEWORKS),
    "fast-healthchecks": _Peer(version="1.2.0", needs=(*_ASGI, "fastapi", "asyncpg")),
    "fastapi-healthchecks": _Peer(version="1.1.0", needs=(*_ASGI, "asyncpg")),
    "fastapi-watch": _Peer(version="1.8.0", needs=_ASGI),
    "light-health": _Peer(version="1.0.1", needs=_ASGI, python="3.13"),
    "py-healthcheck": _Peer(version="1.10.1", needs=("flask", "gunicorn")),
}


def label(name: str) -> str:
    """Return the peer's name with its version."""
    return f"{name} {_PEERS[name].version}"


@functools.cache
def python_of(name: str) -> str | None:
    """Return the interpreter that has this peer; None where it can't be had. `""` is our own."""
    if not name:
        return sys.executable
    peer = _PEERS[name]
    folder = _FOLDER / name
    wanted = [f"{name}=={peer.version}", *(_as_ours(need) for need in peer.needs)]
    stamp = folder / "installed.txt"
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text(encoding="utf-8").split() != wanted:
        print(f"installing {label(name)} ...", file=sys.stderr)
        base = _interpreter(peer.python)
        if base is None or not _installed(base, folder, wanted):
            print(f"{label(name)} could not be installed, and is left out", file=sys.stderr)
            return None
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return str(python)


def _interpreter(version: str) -> str | None:
    if not version:
        return sys.executable
    found = subprocess.run(
        [ROOT / ".ci" / "find-python", version], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def _installed(base: str, folder: Path, wanted: list[str]) -> bool:
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    return not any(
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode
        for command in ([base, "-m", "venv", "--clear", str(folder)], [*pip, *wanted])
    )


@functools.cache
def _as_ours(need: str) -> str:
    """Return the requirement with the version that `constraints.txt` gives."""
    name = need.partition("[")[0]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(name)}==(\S+)$", lines, re.MULTILINE | re.IGNORECASE)
    return f"{need}=={found[1]}" if found else need
