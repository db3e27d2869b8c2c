"""`python manage.py test`."""

from unittest.mock import patch

import httpx2
from django.core.management import call_command
from django.test import TestCase

from healthmw import Status
from healthmw.django import health


class Shop(TestCase):
    def test_it_takes_orders(self) -> None:
        made = self.client.post("/orders", {"item": "tea"}, content_type="application/json")
        self.assertEqual(made.status_code, 201)
        self.assertEqual(self.client.get("/orders").json(), ["tea"])

    def test_who_can_not_pay_now_is_sent_an_invoice(self) -> None:
        gone = httpx2.ConnectError("nobody listens")
        with patch.object(httpx2.AsyncClient, "get", side_effect=gone):
            self.assertEqual(self.client.get("/payment-methods").json(), ["invoice"])


class Readiness(TestCase):
    def test_a_balancer_is_answered_whatever_host_it_asks_for(self) -> None:
        answer = self.client.get("/health_check", headers={"host": "10.0.0.5:8000"})
        self.assertEqual((answer.status_code, answer.content), (200, b"OKAY"))

    def test_what_it_depends_on_is_checked(self) -> None:
        critical = {name for name, check in health.checks.items() if check.critical}
        self.assertEqual(critical, {"database", "migrations"})

    def test_the_site_is_not_ready_before_it_is_migrated(self) -> None:
        with patch("django.db.migrations.recorder.MigrationRecorder.applied_migrations") as applied:
            applied.return_value = {}
            report = health.run_sync("migrations", fresh=True)
        self.assertIs(report.status, Status.FAILED)

    def test_the_settings_are_right(self) -> None:
        call_command("check", deploy=False, fail_level="WARNING")
