"""`python -m pytest`, in this folder."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from app import ALEMBIC, create_app
from flask import Flask
from flask.testing import FlaskClient

from healthmw import Status


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/shop.db")
    monkeypatch.setenv("DOWNSTREAM_URL", "http://127.0.0.1:1")  # nobody listens there
    app = create_app()
    yield app
    app.extensions["shop"].dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def migrated(app: Flask) -> None:  # noqa: ARG001 - it stands for its database
    command.upgrade(Config(ALEMBIC), "head")


def test_the_shop_is_not_ready_before_it_is_migrated(app: Flask, client: FlaskClient) -> None:
    answer = client.get("/health_check")
    assert answer.status_code == 503
    assert answer.text == "FAILED: database (failed), migrations (failed)"

    command.upgrade(Config(ALEMBIC), "head")
    report = app.extensions["healthmw"].run_sync(fresh=True)
    assert report.results["database"].status is Status.OKAY
    assert report.results["migrations"].status is Status.OKAY


@pytest.mark.usefixtures("migrated")
def test_migrations_and_models_agree() -> None:
    command.check(Config(ALEMBIC))


@pytest.mark.usefixtures("migrated")
def test_it_takes_orders(client: FlaskClient) -> None:
    assert client.post("/orders", json={"item": "tea"}).status_code == 201
    assert client.get("/orders").json == ["tea"]


def test_who_can_not_pay_now_is_sent_an_invoice(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise httpx2.ConnectError("nobody listens")

    monkeypatch.setattr(httpx2.Client, "get", gone)
    assert client.get("/payment-methods").json == ["invoice"]


@pytest.mark.usefixtures("migrated")
def test_while_payments_are_known_to_be_down_nobody_is_kept_waiting(
    app: Flask, client: FlaskClient
) -> None:
    client.post("/orders", json={"item": "tea"})
    assert client.post("/orders/1/payment").status_code == 502

    app.extensions["payments"].check.breaker.force_open()
    assert client.post("/orders/1/payment").status_code == 503
    assert client.post("/orders", json={"item": "more tea"}).status_code == 201
