from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from healthmw import Health

if TYPE_CHECKING:
    from collections.abc import Mapping

# What each platform sets, as its documentation shows it.
PLATFORMS = {
    "heroku": (
        {"HEROKU_RELEASE_VERSION": "v42", "HEROKU_SLUG_COMMIT": "2c3a0b24069af49b3de35b8e8c26765c"},
        "v42",
    ),
    "heroku build": ({"HEROKU_BUILD_COMMIT": "2c3a0b2", "HEROKU_SLUG_COMMIT": "old"}, "2c3a0b2"),
    "heroku slug": ({"HEROKU_SLUG_COMMIT": "2c3a0b2"}, "2c3a0b2"),
    "render": ({"RENDER_GIT_COMMIT": "d0beb8f5c55b36df"}, "d0beb8f5c55b36df"),
    "fly": (
        {
            "FLY_MACHINE_VERSION": "01GWMSKJ0Y8NWCB4XDE3BFGXBE",
            "FLY_IMAGE_REF": "registry.fly.io/my-app:deployment-01GWMS@sha256:5b6d",
        },
        "registry.fly.io/my-app:deployment-01GWMS@sha256:5b6d",
    ),
    "fly machine": ({"FLY_MACHINE_VERSION": "01GWMSKJ0Y8NWC"}, "01GWMSKJ0Y8NWC"),
    "railway": (
        {"RAILWAY_GIT_COMMIT_SHA": "d0beb8f5c55b", "RAILWAY_DEPLOYMENT_ID": "5c5f-1"},
        "d0beb8f5c55b",
    ),
    "railway image": ({"RAILWAY_DEPLOYMENT_ID": "5c5f-1"}, "5c5f-1"),
    "cloud run": ({"K_REVISION": "hello-00042-abc", "K_SERVICE": "hello"}, "hello-00042-abc"),
    "build": ({"GIT_COMMIT": "4d2"}, "4d2"),
    "git": ({"GIT_SHA": "4d2"}, "4d2"),
    "cloud build": ({"COMMIT_SHA": "4d2"}, "4d2"),
    "source": ({"SOURCE_VERSION": "4d2"}, "4d2"),
    "on purpose": ({"RELEASE": "v7", "HEROKU_RELEASE_VERSION": "v42", "GIT_SHA": "4d2"}, "v7"),
    "nowhere": ({"HOME": "/root"}, None),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_environment_names_the_release(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, release = PLATFORMS[platform]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Health().release == release
    assert Health(release="mine").release == "mine", "what the app says comes first"
    assert Health(release="").release is None, "and it may hide it"


@pytest.mark.parametrize("unusable", ["", "a b", "v1\r\nX: y", "v1\n", "ü", "x" * 129])
def test_what_cannot_stand_in_a_header_is_passed_over(
    unusable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE", unusable)
    assert Health().release is None
    monkeypatch.setenv("GIT_SHA", "4d2")
    assert Health().release == "4d2"


ASKING = """
import asyncio, json
from healthmw import Health
from healthmw.asgi import HealthApp

async def main():
    health = Health()
    health.add("it", lambda: None)
    scope = {"type": "http", "method": "GET", "path": "/", "client": None, "query_string": b"",
             "headers": [(b"accept", b"application/json")]}
    messages = []
    async def send(message): messages.append(message)
    await HealthApp(health)(scope, None, send)
    headers = {k.decode(): v.decode() for k, v in messages[0]["headers"]}
    print(json.dumps([headers.get("health-release"), json.loads(messages[1]["body"])]))

asyncio.run(main())
"""


@pytest.mark.parametrize(("environ", "shown"), [({"GIT_SHA": "4d2"}, "4d2"), ({}, None)])
def test_header_and_json_show_it(environ: Mapping[str, str], shown: str | None) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ASKING],
        env={**os.environ, **environ},
        check=True,
        capture_output=True,
        text=True,
    )
    header, body = json.loads(run.stdout)
    assert header == shown
    assert body.get("releaseId") == shown
