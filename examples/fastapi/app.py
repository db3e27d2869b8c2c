"""A shop: orders live in its database; how they may be paid, another team's service knows.

`alembic upgrade head` makes the tables; `uvicorn --factory app:create_app` serves.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import httpx2
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import URL, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from healthmw import Check, CircuitBreaker, Health
from healthmw.fastapi import HealthMiddleware, require
from healthmw.probes import AlembicProbe, HTTPProbe, SQLAlchemyProbe

ALEMBIC = Path(__file__).with_name("alembic.ini")


@dataclass(frozen=True, kw_only=True)
class Settings:
    database_url: str = "sqlite:///shop.db"
    payments_url: str = "http://127.0.0.1:9000"

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            database_url=os.environ.get("DATABASE_URL", cls.database_url),
            payments_url=os.environ.get("DOWNSTREAM_URL", cls.payments_url),
        )


def database_url(written: str) -> URL:
    """Return it with an async driver. Heroku writes it postgres://..."""
    url = make_url(written)
    drivers = {
        "postgres": "postgresql+psycopg",
        "postgresql": "postgresql+psycopg",
        "sqlite": "sqlite+aiosqlite",
    }
    return url.set(drivername=drivers.get(url.drivername, url.drivername))


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Payments:
    """The other team's service, as this app sees it."""

    def __init__(self, url: str, check: Check) -> None:
        self.check = check
        self.http = httpx2.AsyncClient(base_url=url, timeout=1.0)
        # The fallback is what the shop can always offer by itself.
        self.methods = check.guard(fallback=["invoice"])(self._methods)
        self.charge = check.guard()(self._charge)

    async def _methods(self) -> list[str]:
        response = await self.http.get("/methods")
        response.raise_for_status()
        methods: list[str] = response.json()["methods"]
        return methods

    async def _charge(self, order: int) -> None:
        response = await self.http.post("/charges", json={"order": order})
        response.raise_for_status()


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(request.app.state.engine, expire_on_commit=False) as found:
        yield found


def payments(request: Request) -> Payments:
    found: Payments = request.app.state.payments
    return found


Database = Annotated[AsyncSession, Depends(session)]
PaymentsService = Annotated[Payments, Depends(payments)]

shop = APIRouter()
checkout = APIRouter()  # what can't be done without the payments service: see `create_app`


class NewOrder(BaseModel):
    item: str


@shop.get("/orders")
async def orders(database: Database) -> list[str]:
    return list(await database.scalars(select(Order.item).order_by(Order.id)))


@shop.post("/orders", status_code=201)
async def order(new: NewOrder, database: Database) -> dict[str, int]:
    row = Order(item=new.item)
    database.add(row)
    await database.commit()
    return {"id": row.id}


@shop.get("/payment-methods")
async def offered(service: PaymentsService) -> list[str]:
    return await service.methods()


@checkout.post("/orders/{number}/payment")
async def pay(number: int, database: Database, service: PaymentsService) -> dict[str, bool]:
    if await database.get(Order, number) is None:
        raise HTTPException(404)
    try:
        await service.charge(number)
    except httpx2.HTTPError as exc:
        raise HTTPException(502, "the payment has failed") from exc
    return {"paid": True}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the app, of the environment's settings if none are given."""
    settings = settings or Settings.from_environment()
    engine = create_async_engine(database_url(settings.database_url), pool_pre_ping=True)

    # The database is critical: without it this app can't serve, and /health_check says so.
    health = Health()
    health.add("database", SQLAlchemyProbe(engine, query=select(Order.id).limit(1)))

    # So are the migrations that this code wants. That the database is ahead, as it is while a newer
    # release takes over, is no failure. Once a minute will do.
    health.add("migrations", AlembicProbe(engine, config=ALEMBIC), max_age=60, failure_max_age=1)

    # The payments service is not: without it the app is degraded, and goes on.
    check = health.add(
        "payments",
        HTTPProbe(f"{settings.payments_url}/up"),
        critical=False,
        timeout=1.0,
        breaker=CircuitBreaker(),
    )
    payments = Payments(settings.payments_url, check)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await payments.http.aclose()
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.health, app.state.engine, app.state.payments = health, engine, payments
    app.include_router(shop)
    # While the circuit is open: 503 with Retry-After, before the handler runs.
    app.include_router(checkout, dependencies=[Depends(require(check))])
    app.add_middleware(HealthMiddleware, health=health)  # the last one added is asked first
    return app
