"""Installs the built wheel as a user would and tries it: `python .ci/try_wheel.py dist`.

Everything runs in a clean virtual environment and from an empty folder, so that what is tried is
the wheel and not the checkout. Before that both files are built once more, elsewhere and at
another time, from what the sdist has: they must come out the same to the byte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

# What `pip install healthmw` may bring in: anyio, and what anyio needs.
BASE = {"healthmw", "anyio", "idna", "sniffio", "typing_extensions", "typing-extensions"}
MOST = 600_000
"""How large the wheel may be, in bytes: more is an accident."""
IN_SDIST = [
    "healthmw/py.typed", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md", "Makefile", "constraints.txt", ".importlinter", ".ci/try_wheel.py",
    "changelog.d/README.md", "tests/test_docs.py", "typing_tests/guard.py", "docs/index.md",
    "examples/README.md", "benchmarks/page.py",
]  # fmt: skip
"""What README links to, and what `make check test` needs, each with one of its files."""
NOT_FOR_USERS = {"tests", "docs", "examples", "benchmarks", ".ci", "changelog.d"}

ASGI = """
import anyio
from healthmw import Health
from healthmw.asgi import HealthMiddleware

health = Health()
health.add("nothing", lambda: None)

async def app(scope, receive, send):
    raise AssertionError("the health path is not for the app")

app = HealthMiddleware(app, health)

async def main():
    sent = []
    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}
    async def send(message):
        sent.append(message)
    await app(
        {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
         "scheme": "http", "path": "/health_check", "raw_path": b"/health_check", "root_path": "",
         "query_string": b"", "headers": [], "client": None, "server": None},
        receive, send,
    )
    assert sent[0]["status"] == 200, sent
    assert b"".join(message.get("body", b"") for message in sent) == b"OKAY", sent

anyio.run(main)
"""

# Also the server for `healthmw smoke`.
WSGI = """
import os
from wsgiref.simple_server import make_server
from healthmw import Health
from healthmw.wsgi import HealthMiddleware

health = Health()
health.add("nothing", lambda: None)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

make_server("127.0.0.1", int(os.environ["PORT"]), HealthMiddleware(app, health)).serve_forever()
"""

WHERE = """
import json, healthmw, importlib.metadata as metadata
found = [one.metadata["Name"] for one in metadata.distributions()]
print(json.dumps([healthmw.__file__, found]))
"""


def main(dist: Path) -> None:
    """Raise `AssertionError` or `CalledProcessError` when the wheel is not as it should be."""
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    look_into(wheel, sdist)
    with tempfile.TemporaryDirectory() as folder:
        build_again(wheel, sdist, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        use(wheel.resolve(), Path(folder))
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes; built twice, installed, tried, well")


def look_into(wheel: Path, sdist: Path) -> None:
    """Check what was packed."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    (info,) = tops - {"healthmw"}
    assert info.endswith(".dist-info"), tops
    assert "healthmw/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert wheel.stat().st_size < MOST, wheel.stat().st_size
    strangers = [name for name in names if set(Path(name).parts) & NOT_FOR_USERS]
    assert not strangers, strangers
    checkout = {
        path.relative_to("healthmw").as_posix()
        for path in Path("healthmw").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name.removeprefix("healthmw/") for name in names if name.startswith("healthmw/")}
    assert packed == checkout, packed ^ checkout
    with tarfile.open(sdist) as tar:
        sources = {Path(*Path(name).parts[1:]).as_posix() for name in tar.getnames()}
    for needed in IN_SDIST:
        assert needed in sources, f"{needed} is not in the sdist"


def build_again(wheel: Path, sdist: Path, folder: Path) -> None:
    """Check that whoever has the sdist can build the very same files."""
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    (sources,) = folder.iterdir()
    for number, path in enumerate(sources.rglob("*")):
        os.utime(path, (number, number))
    subprocess.run(
        [sys.executable, "-m", "build", "--quiet", "--no-isolation", "--outdir", "again", "."],
        cwd=sources,
        umask=0o077,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=True,
    )
    for built in (wheel, sdist):
        again = sources / "again" / built.name
        assert again.read_bytes() == built.read_bytes(), f"{built.name} is not reproducible"


def use(wheel: Path, folder: Path) -> None:
    """Install `wheel` in `folder`, without any extra, and run what a user would run first."""
    venv.create(folder / "venv", with_pip=True)
    binaries = folder / "venv" / "bin"
    python = binaries / "python"
    empty = folder / "empty"
    empty.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command,
            cwd=empty,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        shown = " ".join(map(str, command))[-300:]
        assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", wheel)
    where, found = json.loads(run(python, "-W", "error", "-c", WHERE))
    assert Path(where).is_relative_to(folder), where
    assert set(found) - {"pip", "setuptools"} <= BASE, found

    run(python, "-W", "error", "-c", ASGI)
    (empty / "server.py").write_text(WSGI, encoding="utf-8")
    assert "smoke" in run(binaries / "healthmw", "--help")
    assert run(python, "-m", "healthmw", "--version").startswith("healthmw ")
    assert "PASSED" in run(binaries / "healthmw", "smoke", "--", str(python), "server.py")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
