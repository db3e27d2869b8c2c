"""The app that the tests' Celery workers run: `celery -A celery_app worker`."""

from __future__ import annotations

import os

import celery

app = celery.Celery("shop", broker=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True
