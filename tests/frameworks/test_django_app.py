"""`healthmw.django` as an installed app, each time in a project and a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

SETTINGS = """
from pathlib import Path
BASE = Path(__file__).parent
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["shop.example"]
SECURE_SSL_REDIRECT = True
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "healthmw.django", "shop"]
MIDDLEWARE = [
    "healthmw.django.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE / "db.sqlite3"}}
USE_TZ = True
"""

URLS = """
from django.http import HttpResponse
from django.urls import path
from healthmw import DependencyUnavailable

def pay(request):
    raise DependencyUnavailable("payments", retry_after=7)

async def pay_async(request):
    raise DependencyUnavailable("payments", retry_after=8)

urlpatterns = [
    path("pay", pay),
    path("pay_async", pay_async),
]
"""

HEALTH = """
from healthmw.django import health

@health.probe("warehouse", critical=False)
def warehouse():
    raise OSError("gone")
"""


LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class Site:
    """A Django project in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "settings.py").write_text(SETTINGS)
        (folder / "urls.py").write_text(URLS)
        (folder / "shop").mkdir()
        (folder / "shop/__init__.py").write_text("")
        (folder / "shop/health.py").write_text(HEALTH)

    def setting(self, line: str) -> None:
        with (self.folder / "settings.py").open("a") as file:
            file.write(f"{line}\n")

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run("-m", "django", *arguments)

    def python(self, code: str) -> Any:
        begin = "import django, json; django.setup()\n"
        run = self._run("-c", begin + textwrap.dedent(code))
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": f"{self.folder}:{ROOT}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    assert site.manage("migrate").returncode == 0
    return site


ASK = """
from django.test import Client
client = Client(raise_request_exception=False)
def ask(path, **headers):
    answer = client.get(path, headers={"host": "10.0.0.5", **headers})
    return [answer.status_code, answer.content.decode(), answer.headers.get("Health-Status")]
"""


def test_a_project_is_checked_by_its_settings(site: Site) -> None:
    found = site.python(
        ASK
        + """
from healthmw.django import health
print(json.dumps([
    sorted(health.checks), ask("/health_check"), ask("/health_check/migrations/"),
    ask("/health_check/warehouse"), ask("/health_check/no_such")[0], ask("/elsewhere")[0],
]))
"""
    )
    assert found == [
        ["cache", "database", "migrations", "warehouse"],
        [200, "OKAY", "degraded"],
        [200, "OKAY", "okay"],
        [503, "FAILED: warehouse (failed)", "failed"],
        404,
        400,  # by Django's host check, which comes behind
    ]


def test_async_django_answers_alike(site: Site) -> None:
    site.setting('ALLOWED_HOSTS = ["*"]')
    found = site.python("""
    import asyncio
    from django.test import AsyncClient
    async def main():
        client = AsyncClient(raise_request_exception=False)
        health = await client.get("/health_check")
        pay = await client.get("/pay_async", secure=True)
        after = pay.headers.get("Retry-After")
        return [health.status_code, health.content.decode(), pay.status_code, after]
    print(json.dumps(asyncio.run(main())))
    """)
    assert found == [200, "OKAY", 503, "8"]


@pytest.mark.parametrize(
    ("databases", "checks"),
    [
        ('{"default": {}, "users": DATABASES["default"]}', ["database.users", "migrations.users"]),
        ('{"default": {"ENGINE": ""}}', []),
        ("{}", []),
    ],
)
def test_what_the_settings_say_is_not_there_is_not_checked(
    site: Site, databases: str, checks: list[str]
) -> None:
    dummy = "django.core.cache.backends.dummy.DummyCache"
    site.setting(f"DATABASES = {databases}")
    site.setting(f"CACHES = {{'default': {{'BACKEND': {dummy!r}}}}}")
    found = site.python(
        ASK
        + """
from healthmw.django import health
print(json.dumps([sorted(health.checks), ask("/health_check")[0]]))
"""
    )
    assert found == [[*checks, "warehouse"], 200]


def test_an_unavailable_dependency_is_answered(site: Site) -> None:
    found = site.python("""
    from django.test import Client
    answer = Client().get("/pay", headers={"host": "shop.example"}, secure=True)
    print(json.dumps([answer.status_code, answer["Retry-After"], answer.content.decode()]))
    """)
    assert found[:2] == [503, "7"]
    assert "payments" not in found[2]


def test_the_admins_get_no_mail_for_each_poll(site: Site) -> None:
    """Django logs a 5xx as an error, and has the admins told of it, unless it has been logged."""
    site.setting("ADMINS = [('Ann', 'ann@shop.example')]\nDEBUG = False")
    site.setting("HEALTHMW = {'max_age': 0}\nMANAGERS = ADMINS")
    found = site.python("""
    from django.core import mail
    from django.test import Client
    from django.test.utils import setup_test_environment
    from healthmw.django import health
    setup_test_environment()
    health.add("gone", lambda: 1 / 0)
    client = Client(raise_request_exception=False)
    statuses = [client.get("/health_check").status_code for _ in range(3)]
    statuses.append(client.get("/pay", headers={"host": "shop.example"}, secure=True).status_code)
    print(json.dumps([statuses, len(mail.outbox)]))
    """)
    assert found == [[503] * 4, 0]


def test_routes_in_place_of_the_middleware(site: Site) -> None:
    site.setting('MIDDLEWARE = []\nALLOWED_HOSTS = ["*"]\nHEALTHMW = {"path": "/up"}')
    with (site.folder / "urls.py").open("a") as urls:
        urls.write("from django.urls import include\n")
        urls.write('urlpatterns += [path("internal/", include("healthmw.django.urls"))]\n')
    found = site.python(
        ASK + 'print(json.dumps([ask("/internal/up"), ask("/internal/up/database/")]))'
    )
    assert found == [[200, "OKAY", "degraded"], [200, "OKAY", "okay"]]


def test_where_every_view_asks_for_a_login_a_balancer_needs_none(site: Site) -> None:
    auth = "django.contrib.auth.middleware"
    site.setting('MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]')
    site.setting('SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"')
    site.setting(f'MIDDLEWARE += ["{auth}.AuthenticationMiddleware"]')
    site.setting(f'MIDDLEWARE += ["{auth}.LoginRequiredMiddleware"]')
    with (site.folder / "urls.py").open("a") as urls:
        urls.write("from django.urls import include\n")
        urls.write('urlpatterns += [path("", include("healthmw.django.urls"))]\n')
    asked = (
        ASK.replace("10.0.0.5", "shop.example")
        + "print(json.dumps([ask('/health_check')[0], ask('/pay')[0]]))"
    )
    assert site.python(asked) == [200, 302]


def test_a_database_behind_the_code_fails_and_one_ahead_passes(site: Site) -> None:
    ask = (
        "from healthmw.django import health\n"
        "result = health.run_sync('migrations').results['migrations']\n"
        "print(json.dumps([result.status, dict(result.measurements), result.detail]))"
    )
    assert site.python(ask) == ["okay", {"ahead": 0}, ""]
    assert site.manage("migrate", "auth", "0011").returncode == 0
    status, _, detail = site.python(ask)
    name = "auth.0012_alter_user_first_name_max_length"
    needs = "\nprint(json.dumps(health.check('migrations').probe.needs))"
    assert name in site.python(ask.replace("print", "str") + needs)
    said = f"the database is behind the code by 1 migration: {name}; run manage.py migrate"
    assert (status, detail) == ("failed", said)
    assert site.manage("migrate").returncode == 0
    newer = """
    from django.db import connection
    from django.db.migrations.recorder import MigrationRecorder
    MigrationRecorder(connection).record_applied("auth", "0099_of_the_next_release")
    MigrationRecorder(connection).record_applied("an_app_that_went", "0001_initial")
    """
    ahead = {"ahead": 1, "ahead_migrations": "auth.0099_of_the_next_release"}
    assert site.python(textwrap.dedent(newer) + ask) == ["okay", ahead, ""]


def test_a_migration_is_noticed_without_a_restart(site: Site) -> None:
    assert site.manage("migrate", "auth", "0011").returncode == 0
    found = site.python("""
    import subprocess, sys
    from healthmw.django import health
    before = health.run_sync("migrations", fresh=True).ok
    subprocess.run([sys.executable, "-m", "django", "migrate"], check=True, stdout=subprocess.PIPE)
    print(json.dumps([before, health.run_sync("migrations", fresh=True).ok]))
    """)
    assert found == [False, True]


def test_requests_keep_their_own_connections(site: Site) -> None:
    found = site.python("""
    from django.db import connections
    from healthmw.django import health
    for _ in range(20):
        assert health.run_sync(fresh=True).ok
    print(json.dumps(connections["default"].connection is None))
    """)
    assert found is True


@pytest.mark.parametrize("probe", ["DatabaseProbe", "MigrationsProbe"])
def test_a_child_closes_its_own_while_a_thread_of_its_parent_looked(probe: str, site: Site) -> None:
    code = """
    import os, signal, threading
    from django.db.backends.signals import connection_created
    from healthmw.django import probes

    probe = probes.PROBE(timeout=60)
    looking, forked = threading.Event(), threading.Event()

    def look_on(**_):
        looking.set()
        forked.wait(20)

    connection_created.connect(look_on)
    thread = threading.Thread(target=probe)
    thread.start()
    assert looking.wait(20)
    child = os.fork()
    if not child:
        signal.alarm(20)
        probe.close()
        connection_created.disconnect(look_on)
        probe()
        probe.close()
        os._exit(0)
    forked.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert site.python(code.replace("PROBE", probe)) == 0


def test_a_file_that_is_no_database(site: Site) -> None:
    (site.folder / "db.sqlite3").write_bytes(b"this is no database, and never was" * 100)
    run = site.manage("health_check", "--group", "database")
    assert run.returncode == 1
    assert "[-] database failed" in run.stdout


def test_a_file_that_is_missing(site: Site) -> None:
    (site.folder / "db.sqlite3").unlink()
    run = site.manage("health_check", "--group", "database")
    assert (run.returncode, "does not exist" in run.stdout) == (1, True)
    assert not (site.folder / "db.sqlite3").exists()


def test_a_cache_that_loses_what_is_written(site: Site) -> None:
    (site.folder / "shop/lossy.py").write_text(
        "from django.core.cache.backends.dummy import DummyCache\nclass Lossy(DummyCache): ...\n"
    )
    site.setting('CACHES = {"default": {"BACKEND": "shop.lossy.Lossy"}}')
    run = site.manage("health_check", "--group", "cache")
    assert run.returncode == 1
    assert "could not be read back" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        ([], 0, "OKAY\n"),
        (["--group", "warehouse", "--verbosity=0"], 1, "FAILED: warehouse (failed)\n"),
        (["--group", "no_such"], 2, "there is no group or check 'no_such'"),
    ],
)
def test_the_command(site: Site, arguments: list[str], code: int, shown: str) -> None:
    run = site.manage("health_check", *arguments)
    assert (run.returncode, shown in run.stdout + run.stderr) == (code, True), run


def test_the_command_in_json(site: Site) -> None:
    run = site.manage("health_check", "--group=release", "--format=json")
    assert run.returncode == 1  # degraded is not good enough for a release
    assert json.loads(run.stdout)["status"] == "fail"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("HEALTHMW = {'max_age': -1}", "max_age=-1"),
        ("HEALTHMW = {'path': 'up'}", "must begin with '/'"),
        ("HEALTHMW = {'maxage': 1}", "no key 'maxage', only release, "),
        ("HEALTHMW = {'drain_delay': -1}", "drain_delay=-1"),
        ("HEALTHMW = []", "HEALTHMW must be a dict"),
        ("HEALTHMW = {'checks': ['databses']}", "no 'databses', only databases"),
        ("HEALTHMW = {'checks': 'databases'}", "must list names"),
        ("HEALTHMW = {'health': 'settings.BASE'}", "which is no Health"),
        ("HEALTHMW = {'health': 'settings.BASE', 'max_age': 1}", "'max_age' must be given to it"),
        ("HEALTHMW = {'health': 'settings.BASE', 'a': 1, 2: 3}", "no key 'a', only release, "),
        ("DATABASES['a b'] = DATABASES['default']", "DATABASES: name='database.a b' can't be"),
        (f"CACHES = {{'default': {LOCMEM}, 'a b': {LOCMEM}}}", "CACHES: name='cache.a b' can't be"),
    ],
)
def test_wrong_settings_are_reported(site: Site, setting: str, said: str) -> None:
    """Also where an app has a module `health`, which needs what the settings are to make."""
    site.setting(setting)
    run = site.manage("check")
    assert (run.returncode, said in run.stderr, "healthmw.E001" in run.stderr) == (1, True, True)


@pytest.mark.parametrize("mounted", ["middleware", "routes"])
def test_a_term_drains_first(site: Site, mounted: str) -> None:
    site.setting("ALLOWED_HOSTS = ['*']\nHEALTHMW = {'drain_delay': 0.5}")
    if mounted == "routes":
        site.setting("MIDDLEWARE = []")
        with (site.folder / "urls.py").open("a") as urls:
            urls.write("from django.urls import include\n")
            urls.write('urlpatterns += [path("", include("healthmw.django.urls"))]\n')
    found = site.python("""
    import os, signal, threading
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())  # as a server does
    from django.test import Client
    from healthmw.django import health
    client = Client(raise_request_exception=False)
    def ask(path):
        return client.get(path).status_code
    before = ask("/health_check")
    os.kill(os.getpid(), signal.SIGTERM)
    while not health.draining:
        over.wait(0.01)
    during = [ask("/health_check"), ask("/health_check/live"), over.is_set()]
    print(json.dumps([before, during, over.wait(30)]))
    """)
    assert found == [200, [503, 200, False], True]


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_no_connection_is_left_behind(site: Site, interface: str) -> None:
    site.setting('ALLOWED_HOSTS = ["*"]\nHEALTHMW = {"max_age": 0}')
    found = site.python(f"""
    import asyncio, os, threading
    from django.db import connections
    from django.test import AsyncClient, Client
    from healthmw.django import health
    opened = []
    from django.db.backends.signals import connection_created
    connection_created.connect(lambda connection, **_: opened.append(connection), weak=False)
    async def by_asgi():
        client = AsyncClient()
        for _ in range(20):
            assert (await client.get("/health_check")).status_code == 200
    if {interface == "asgi"}:
        asyncio.run(by_asgi())
    else:
        client = Client()
        for _ in range(20):
            assert client.get("/health_check").status_code == 200
    asyncio.run(health.aclose())
    print(json.dumps([len(opened) > 0, sum(one.connection is not None for one in opened)]))
    """)
    assert found == [True, 0]


def test_a_middleware_that_comes_too_late_is_reported(site: Site) -> None:
    site.setting("MIDDLEWARE = MIDDLEWARE[1:] + MIDDLEWARE[:1]")
    run = site.manage("check", "--fail-level=WARNING")
    assert (run.returncode, "healthmw.W001" in run.stderr) == (1, True)


def test_a_health_of_the_projects_own(site: Site) -> None:
    (site.folder / "shop/health.py").write_text(
        "from healthmw import Health\nhealth = Health(release='v7')\n"
        "health.add('it', lambda: None)\n"
    )
    site.setting("HEALTHMW = {'health': 'shop.health.health', 'show': 'summary'}")
    assert site.manage("check").returncode == 0
    found = site.python(
        ASK
        + """
from healthmw.django import health
print(json.dumps([health.release, ask("/health_check"), ask("/health_check/it")[0]]))
"""
    )
    assert found == ["v7", [200, "OKAY", "okay"], 404]
