"""`python -m pytest`, in this folder."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from app import ALEMBIC, create_app
from fastapi import FastAPI
from fastapi.testclient import TestClient

from healthmw import Status


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/shop.db")
    monkeypatch.setenv("DOWNSTREAM_URL", "http://127.0.0.1:1")  # nobody listens there
    app: FastAPI = create_app()
    return app


@pytest.fixture
def migrated(app: FastAPI) -> None:  # noqa: ARG001 - it stands for its database
    command.upgrade(Config(ALEMBIC), "head")


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Serve the app, as its lifespan has it."""
    with TestClient(app) as client:
        yield client


def test_the_shop_is_not_ready_before_it_is_migrated(client: TestClient) -> None:
    answer = client.get("/health_check")
    assert answer.status_code == 503
    assert answer.text == "FAILED: database (failed), migrations (failed)"


@pytest.mark.usefixtures("migrated")
def test_it_is_ready_then_and_without_payments_only_degraded(client: TestClient) -> None:
    answer = client.get("/health_check")
    assert (answer.status_code, answer.text) == (200, "OKAY")
    assert answer.headers["health-status"] == Status.DEGRADED


@pytest.mark.usefixtures("migrated")
def test_migrations_and_models_agree() -> None:
    command.check(Config(ALEMBIC))


@pytest.mark.usefixtures("migrated")
def test_it_takes_orders(client: TestClient) -> None:
    assert client.post("/orders", json={"item": "tea"}).status_code == 201
    assert client.get("/orders").json() == ["tea"]


def test_who_can_not_pay_now_is_sent_an_invoice(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise httpx2.ConnectError("nobody listens")

    monkeypatch.setattr(httpx2.AsyncClient, "get", gone)
    assert client.get("/payment-methods").json() == ["invoice"]


@pytest.mark.usefixtures("migrated")
def test_while_payments_are_known_to_be_down_nobody_is_kept_waiting(
    app: FastAPI, client: TestClient
) -> None:
    client.post("/orders", json={"item": "tea"})
    assert client.post("/orders/1/payment").status_code == 502

    app.state.payments.check.breaker.force_open()
    answer = client.post("/orders/1/payment")
    assert answer.status_code == 503
    assert client.post("/orders", json={"item": "more tea"}).status_code == 201
