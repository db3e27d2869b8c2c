"""The plugin that looks for passwords (`tests/leaks.py`) finds them wherever they are shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.leaks import PASSWORDS, Watch

ROOT = Path(__file__).parent.parent

_BEGIN = """
import logging, subprocess, sys
import pytest
from healthmw import Health
from tests.transports import Answer

password = "bait-" + 24 * "0"
health = Health()
health.add("it", print)

"""

# The body of a test, and where it shows the password.
LEAKS = {
    "the log of shop": "logging.getLogger('shop').warning('at %s', password)",
    "the log of cart": """
    try:
        raise OSError(password)
    except OSError:
        logging.getLogger('cart').exception('at')""",
    "Captured stdout call": "print(password)",
    "Captured stderr call": "print(password, file=sys.stderr)",
    "what a test read of its output": "print(password); capsys.readouterr()",
    "what a child process wrote": """
    code = "import sys; print('bait-' + 24 * '0')"
    subprocess.run([sys.executable, '-IS', '-c', code], capture_output=True, check=True)""",
    "an answer": "Answer(status=200, headers=(), body=password.encode())",
    "an exception that a test expects": """
    with pytest.raises(ValueError, match='why'):
        try:
            raise OSError(password)
        except OSError as exc:
            raise ValueError('why') from exc""",
    "the file server.log": "(tmp_path / 'server.log').write_text(password)",
    "a result": "object.__setattr__(health.check('it').latest, 'detail', password)",
}
_FIXTURES = {"what a test read of its output": "capsys", "the file server.log": "tmp_path"}


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_it.py"
    test.write_text(_BEGIN + program, encoding="utf-8")
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.leaks", "-p", "no:cacheprovider",
            "-c", "/dev/null", "--rootdir", folder, test,
        ],
        # Of the plugins that are installed none is needed, and to import them takes seconds.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_password_fails_the_run_wherever_it_was_and_is_not_shown_again(tmp_path: Path) -> None:
    tests = [
        f"def test_{number}({_FIXTURES.get(where, '')}):\n    {body}\n"
        for number, (where, body) in enumerate(LEAKS.items())
    ]
    done = run(tmp_path, "\n".join(tests))
    assert done.returncode == 1, done.stdout
    assert f"{len(LEAKS)} passed" in done.stdout
    for number, where in enumerate(LEAKS):
        assert f"test_it.py::test_{number}: in {where}: " in done.stdout
    assert not PASSWORDS.search(done.stdout + done.stderr)


def test_a_run_without_a_password_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it():\n    print('bait-', health, password[:20])\n")
    assert done.returncode == 0, done.stdout
    assert "no password in any of" in done.stdout


def test_a_password_is_seen_in_text_and_bytes_and_once_for_each_place() -> None:
    watch = Watch()
    password = "bait-" + 24 * "a"
    for said in (f"dsn=//app:{password}@db", f"dsn=//app:{password}@db".encode()):
        watch.see("a log", said)
    watch.see("a body", f"{password}{password}")
    assert [(one.where, one.before) for one in watch.sightings] == [
        ("a log", "dsn=//app:"),
        ("a body", ""),
        ("a body", "***"),
    ]
    assert password not in f"{watch.sightings}"
