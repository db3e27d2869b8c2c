"""The files of platforms that can't be had here, against the schemas that those publish.

Where no package carries one, what concerns healthmw is read and checked.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
from cfnlint.api import ManualArgs, lint

from healthmw import Health
from healthmw._release import VARIABLES
from tests.docs_page import blocks
from tests.recipes.pages import HOW_TO, documents, recipe, shell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

HEALTHMW = shlex.join([sys.executable, "-m", "healthmw"])
DEADLINE = Health().deadline
LONGEST = 20.0  # seconds that a request may take, for the sums


def run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def container(deployment: Any) -> Any:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    return found


def validate_as_deployment(deployment: Any) -> None:
    kubernetes_validate.validate(deployment, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_takes_the_deployment() -> None:
    (deployment,) = documents("kubernetes", "deployment.yaml")
    validate_as_deployment(deployment)
    (hook,) = documents("kubernetes", "prestop.yaml")
    container(deployment).update(hook)
    validate_as_deployment(deployment)

    container(deployment)["readinessProbe"]["path"] = "/health_check"  # a usual mistake
    with pytest.raises(kubernetes_validate.ValidationError):
        validate_as_deployment(deployment)


def test_the_times_of_the_deployment_fit_together() -> None:
    (deployment,) = documents("kubernetes", "deployment.yaml")
    web = container(deployment)
    (drain_delay,) = [
        float(found)
        for block in blocks(HOW_TO / "kubernetes.md")
        for found in re.findall(r"drain_delay=(\d+)", block.code)
    ]
    ready = web["readinessProbe"]
    seen_after = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]

    assert drain_delay > seen_after
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > drain_delay + LONGEST
    for kind in ("startup", "readiness", "liveness"):
        assert web[f"{kind}Probe"]["timeoutSeconds"] > DEADLINE
    paths = [
        web[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")
    ]
    assert paths == ["/health_check/startup", "/health_check", "/health_check/live"]
    (hook,) = documents("kubernetes", "prestop.yaml")
    assert hook["lifecycle"]["preStop"]["sleep"]["seconds"] == drain_delay
    assert {one["name"] for one in web["env"]} <= set(VARIABLES)


def test_compose_takes_the_services(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(recipe("docker", "compose.yaml"))
    run("check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file))


def health_commands() -> Iterator[tuple[str, str]]:
    """Yield the command of each health check that runs in a container, and what it should ask."""
    dockerfile = recipe("docker", "Dockerfile").replace("\\\n", " ")
    (found,) = re.findall(r"^HEALTHCHECK .*? CMD (.*)$", dockerfile, re.MULTILINE)
    yield found, "/health_check"
    (compose,) = documents("docker", "compose.yaml")
    yield compose["services"]["web"]["healthcheck"]["test"], "/health_check"
    template = recipe("aws", "template.yaml")
    (found,) = re.findall(r"- CMD-SHELL\n *- (.*)\n", template)
    yield found, "/health_check/live"


@pytest.mark.parametrize("number", range(3))
def test_the_command_of_a_container_tells_well_from_unwell(
    number: int, well: str, unwell: str, tmp_path: Path
) -> None:
    command, path = list(health_commands())[number]
    assert "localhost:8000" in command
    command = command.replace("healthmw", HEALTHMW, 1)

    status, said = shell(command.replace("localhost:8000", well), tmp_path)
    assert status == 0, said
    status, said = shell(command.replace("localhost:8000", unwell), tmp_path)
    # What `live` says doesn't hang on a dependency.
    assert status == (0 if path.endswith("/live") else 1), said
    status, said = shell(command.replace("localhost:8000", "127.0.0.1:1"), tmp_path)
    assert status == 1, "Docker reserves 2"
    assert "refused" in said


def test_cloudformation_takes_the_template() -> None:
    template = recipe("aws", "template.yaml")
    assert cfnlint(template) == []
    usual = template.replace("HealthCheckTimeoutSeconds: 6", 'HealthCheckTimeoutSeconds: "six"')
    assert len(cfnlint(usual)) == 1


def cfnlint(template: str) -> list[object]:
    """Return what AWS's schemas have against it."""
    config = ManualArgs(regions=["eu-central-1"])
    return list(lint(template, config=config))


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    file = tmp_path / "deploy.yml"
    file.write_text(recipe("github-actions", "deploy.yml"))
    run("check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file))


def test_cloud_runs_containers_are_those_of_kubernetes() -> None:
    (service,) = documents("deploy-platforms", "service.yaml")
    (web,) = service["spec"]["template"]["spec"]["containers"]
    pod = {"containers": [web | {"name": "web"}]}  # Cloud Run gives it a name
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": pod},
        kubernetes_validate.latest_version(),
        strict=True,
    )
    for probe in (web["startupProbe"], web["livenessProbe"]):
        assert DEADLINE < probe["timeoutSeconds"] <= probe["periodSeconds"]
        assert probe["periodSeconds"] * probe["failureThreshold"] <= 240
    assert web["livenessProbe"]["httpGet"]["path"] == "/health_check/live"


def test_render_asks_what_restarts_nothing_in_vain() -> None:
    (blueprint,) = documents("deploy-platforms", "render.yaml")
    (service,) = blueprint["services"]
    assert service["healthCheckPath"] == "/health_check/startup"
    assert service["type"] == "web"
    assert service["maxShutdownDelaySeconds"] <= 300


def test_fly_asks_and_stops_as_the_page_says() -> None:
    config = tomllib.loads(recipe("deploy-platforms", "fly.toml"))
    (check,) = config["http_service"]["checks"]
    assert check["path"] == "/health_check"
    assert float(check["timeout"].removesuffix("s")) > DEADLINE
    assert config["kill_signal"] == "SIGTERM"
    assert config["deploy"]["strategy"] == "bluegreen"


def jsons(page: str) -> list[Any]:
    return [json.loads(one.code) for one in blocks(HOW_TO / f"{page}.md") if one.language == "json"]


def test_railway_asks_for_readiness() -> None:
    (config,) = jsons("deploy-platforms")
    assert config["deploy"]["healthcheckPath"] == "/health_check"


def commands_in(value: Any) -> Iterable[str]:
    """Yield each `healthmw ...` in what was read from a file."""
    if isinstance(value, str):
        yield from re.findall(r"healthmw (?:smoke|check|wait)\b[^|&;]*", value)
    elif isinstance(value, dict):
        for each in value.values():
            yield from commands_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from commands_in(each)


def test_the_commands_in_the_files_have_the_options_that_they_use() -> None:
    files = [
        *jsons("deploy-platforms"),
        tomllib.loads(recipe("deploy-platforms", "fly.toml")),
        *documents("github-actions", "deploy.yml"),
        *documents("docker", "compose.yaml"),
    ]
    commands = [command for file in files for command in commands_in(file)]
    assert len(commands) >= 5
    described: dict[str, str] = {}
    for command in commands:
        _, name, *words = shlex.split(command)
        if name not in described:
            described[name] = run("healthmw", name, "--help")
        ours = words[: words.index("--")] if "--" in words else words
        for word in ours:
            if word.startswith("--"):
                assert word in described[name], command


def test_releases_are_named_by_variables_that_are_looked_at() -> None:
    said = HOW_TO.joinpath("deploy-platforms.md").read_text()
    named = set(re.findall(r"The release in the answers is[^.]*?`([A-Z_]+)`", said))
    assert named == {"RENDER_GIT_COMMIT", "FLY_IMAGE_REF", "RAILWAY_GIT_COMMIT_SHA", "K_REVISION"}
    assert named <= set(VARIABLES)
