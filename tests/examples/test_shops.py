"""Each example under its real server, while what it leans on comes and goes."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from examples._servers import procfile
from tests.examples.shops import DJANGO, DJANGO_ASGI, FASTAPI, Shop, boot_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples._servers import Answer

HEALTH = "/health_check"


def _verdict(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.body, answer.health


def _offers(answer: Answer, *methods: str) -> bool:
    return answer.status == 200 and json.loads(answer.body) == list(methods)


def test_a_shop_sells_whatever_happens_to_payments_and_says_when_its_database_is_broken(
    shop: Shop,
) -> None:
    okay = 200, "OKAY", "okay"
    degraded = 200, "OKAY", "degraded"

    def is_down(answer: Answer) -> bool:
        """Tell whether it says so. Django's site adds what follows from it: no migrations."""
        status, body, health = _verdict(answer)
        return (status, health) == (503, "failed") and body.startswith("FAILED: database (failed)")

    shop.until(HEALTH, lambda answer: _verdict(answer) == okay)
    made = shop.ask("/orders", data={"item": "tea"})
    assert (made.status, json.loads(made.body)) == (201, {"id": 1})
    assert json.loads(shop.ask("/orders").body) == ["tea"]
    assert _offers(shop.ask("/payment-methods"), "card", "paypal", "invoice")

    shop.payments.stop()
    shop.until(HEALTH, lambda answer: _verdict(answer) == degraded)
    for _ in range(12):  # more than it takes to open the breaker of each worker
        assert _offers(shop.ask("/payment-methods"), "invoice")
    shop.until(f"{HEALTH}?verbose", lambda answer: "[-] payments failed" in answer.body)
    if shop.kind is FASTAPI:  # what can't be done without payments is refused, and the rest goes on
        assert shop.ask("/orders/1/payment", data={}).status == 503

    shop.break_database()
    shop.until(HEALTH, is_down)
    assert shop.ask("/orders").status == 500
    assert shop.ask(f"{HEALTH}/live").status == 200
    assert _offers(shop.ask("/payment-methods"), "invoice")

    shop.mend_database()
    shop.until(HEALTH, lambda answer: _verdict(answer) == degraded)
    shop.until("/orders", lambda answer: answer.body.strip() == '["tea"]')

    shop.payments.start()
    shop.until(HEALTH, lambda answer: _verdict(answer) == okay)
    shop.until("/payment-methods", lambda answer: _offers(answer, "card", "paypal", "invoice"))

    assert shop.server.stop() in {0, -signal.SIGTERM}  # uvicorn ends by the signal that it was told


def test_a_release_passes_and_halts_when_nobody_has_created_the_tables(idle_shop: Shop) -> None:
    released = idle_shop.run(procfile(idle_shop.kind.folder, "release"))
    assert released.returncode == 0, released.stdout
    assert "PASSED" in released.stdout
    assert "(degraded)" in released.stdout  # the payments service is not up: no reason to halt

    idle_shop.database.unlink()
    timeout = boot_timeout(released.stdout)
    forgotten = idle_shop.run(f"healthmw smoke --procfile --timeout {timeout}")
    assert forgotten.returncode == 1, forgotten.stdout
    assert "FAILED: database (failed)" in forgotten.stdout


@pytest.fixture(params=[DJANGO, DJANGO_ASGI], ids=["wsgi", "asgi"])
def django_on_heroku(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(request.param, tmp_path, DYNO="web.1", HEROKU_RELEASE_VERSION="v42")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_django_answers_a_balancer_before_the_host_check_and_the_redirect_to_https(
    django_on_heroku: Shop,
) -> None:
    balancer = django_on_heroku.ask(HEALTH, host="10.0.0.5:8000")
    assert (balancer.status, balancer.body) == (200, "OKAY")

    assert django_on_heroku.ask("/orders", host="10.0.0.5:8000").status == 400
    assert django_on_heroku.ask("/orders").status == 301
