"""The actors that the tests' Dramatiq workers run: `dramatiq dramatiq_app`."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker

url = os.environ["BROKER"]
kind: type[Any] = RedisBroker if url.startswith("redis") else RabbitmqBroker
broker = kind(url=url)
dramatiq.set_broker(broker)


@dramatiq.actor
def send_mail(to: str) -> None: ...
