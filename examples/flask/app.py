"""A shop: orders live in its database; how they may be paid, another team's service knows.

`alembic upgrade head` makes the tables; `gunicorn 'app:create_app()'` serves.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from flask import Blueprint, Flask, abort, current_app, request
from sqlalchemy import URL, Engine, create_engine, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from healthmw import Check, CircuitBreaker, Health
from healthmw.flask import HealthMW, require
from healthmw.probes import AlembicProbe, HTTPProbe, SQLAlchemyProbe

ALEMBIC = Path(__file__).with_name("alembic.ini")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


def settings() -> dict[str, str]:
    """Return what the environment says."""
    return {
        "DATABASE_URL": os.environ.get("DATABASE_URL", "sqlite:///shop.db"),
        "PAYMENTS_URL": os.environ.get("DOWNSTREAM_URL", "http://127.0.0.1:9000"),
    }


def database_url(written: str) -> URL:
    """Return it with the driver that we install. Heroku writes it postgres://..."""
    url = make_url(written)
    drivers = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
    return url.set(drivername=drivers.get(url.drivername, url.drivername))


class Payments:
    """The other team's service, as this app sees it."""

    def __init__(self, url: str, check: Check) -> None:
        self.check = check
        self.http = httpx2.Client(base_url=url, timeout=1.0)
        # The fallback is what the shop can always offer by itself. While that service is slow, it
        # holds up four of a worker's eight threads at most.
        self.methods = check.guard(fallback=["invoice"], max_concurrent=4)(self._methods)
        self.charge = check.guard(max_concurrent=4)(self._charge)

    def _methods(self) -> list[str]:
        response = self.http.get("/methods")
        response.raise_for_status()
        methods: list[str] = response.json()["methods"]
        return methods

    def _charge(self, order: int) -> None:
        response = self.http.post("/charges", json={"order": order})
        response.raise_for_status()


def payments() -> Payments:
    found: Payments = current_app.extensions["payments"]
    return found


shop = Blueprint("shop", __name__)


def engine() -> Engine:
    found: Engine = current_app.extensions["shop"]
    return found


@shop.get("/orders")
def orders() -> list[str]:
    with Session(engine()) as session:
        return list(session.scalars(select(Order.item).order_by(Order.id)))


@shop.post("/orders")
def order() -> tuple[dict[str, Any], int]:
    with Session(engine()) as session:
        row = Order(item=request.get_json()["item"])
        session.add(row)
        session.commit()
        return {"id": row.id}, 201


@shop.get("/payment-methods")
def offered() -> list[str]:
    return payments().methods()


@shop.post("/orders/<int:number>/payment")
@require("payments")  # while its circuit is open: 503 with Retry-After, before the view runs
def pay(number: int) -> dict[str, bool]:
    with Session(engine()) as session:
        if session.get(Order, number) is None:
            abort(404)
    try:
        payments().charge(number)
    except httpx2.HTTPError:
        abort(502, "the payment has failed")
    return {"paid": True}


def create_app(config: Mapping[str, Any] | None = None) -> Flask:
    """Make the app, of the environment's settings and of `config`, which comes before them."""
    app = Flask(__name__)
    app.config.update({**settings(), **(config or {})})
    app.register_blueprint(shop)

    engine = create_engine(database_url(app.config["DATABASE_URL"]), pool_pre_ping=True)
    app.extensions["shop"] = engine

    # The database is critical: without it this app can't serve, and /health_check says so.
    health = Health()
    health.add("database", SQLAlchemyProbe(engine, query=select(Order.id).limit(1)))

    # So are the migrations that this code wants. That the database is ahead, as it is while a newer
    # release takes over, is no failure. Once a minute will do.
    health.add("migrations", AlembicProbe(engine, config=ALEMBIC), max_age=60, failure_max_age=1)

    # The payments service is not: without it the app is degraded, and goes on.
    url = app.config["PAYMENTS_URL"]
    check = health.add(
        "payments",
        HTTPProbe(f"{url}/up"),
        critical=False,
        timeout=1.0,
        breaker=CircuitBreaker(),
    )
    app.extensions["payments"] = Payments(url, check)
    HealthMW(app, health=health)
    return app
