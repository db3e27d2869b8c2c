"""Probes of what web apps commonly lean on. Each loads its driver when it is made, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from healthmw._lazy import on_first_use

if TYPE_CHECKING:
    from healthmw.probes._alembic import AlembicProbe
    from healthmw.probes._amqp import AMQPProbe
    from healthmw.probes._asyncmy import AsyncmyProbe
    from healthmw.probes._asyncpg import AsyncpgProbe
    from healthmw.probes._celery import CeleryProbe
    from healthmw.probes._certificate import CertificateProbe
    from healthmw.probes._clock import ClockProbe
    from healthmw.probes._disk import DirectoryProbe, DiskProbe
    from healthmw.probes._dns import DNSProbe
    from healthmw.probes._dramatiq import DramatiqProbe
    from healthmw.probes._dsn import probe_from_dsn
    from healthmw.probes._elasticsearch import ElasticsearchProbe
    from healthmw.probes._event_loop import EventLoopProbe
    from healthmw.probes._grpc import GRPCProbe
    from healthmw.probes._headroom import HeadroomProbe
    from healthmw.probes._heartbeat import HeartbeatProbe, beat
    from healthmw.probes._http import HTTPProbe
    from healthmw.probes._kafka import KafkaProbe
    from healthmw.probes._latch import Latch
    from healthmw.probes._ldap import LDAPProbe
    from healthmw.probes._memcached import MemcachedProbe
    from healthmw.probes._mongo import MongoProbe
    from healthmw.probes._mqtt import MQTTProbe
    from healthmw.probes._nats import NATSProbe
    from healthmw.probes._psycopg import PsycopgProbe
    from healthmw.probes._psycopg_pool import PsycopgPoolProbe
    from healthmw.probes._pymysql import PyMySQLProbe
    from healthmw.probes._redis import RedisProbe
    from healthmw.probes._resources import FileDescriptorProbe, LoadProbe, MemoryProbe
    from healthmw.probes._rq import RQProbe
    from healthmw.probes._s3 import S3Probe
    from healthmw.probes._settings import SettingsProbe
    from healthmw.probes._smtp import SMTPProbe
    from healthmw.probes._sqlalchemy import SQLAlchemyProbe
    from healthmw.probes._sqlalchemy_pool import SQLAlchemyPoolProbe
    from healthmw.probes._tcp import TCPProbe

__all__ = (
    "AMQPProbe",
    "AlembicProbe",
    "AsyncmyProbe",
    "AsyncpgProbe",
    "CeleryProbe",
    "CertificateProbe",
    "ClockProbe",
    "DNSProbe",
    "DirectoryProbe",
    "DiskProbe",
    "DramatiqProbe",
    "ElasticsearchProbe",
    "EventLoopProbe",
    "FileDescriptorProbe",
    "GRPCProbe",
    "HTTPProbe",
    "HeadroomProbe",
    "HeartbeatProbe",
    "KafkaProbe",
    "LDAPProbe",
    "Latch",
    "LoadProbe",
    "MQTTProbe",
    "MemcachedProbe",
    "MemoryProbe",
    "MongoProbe",
    "NATSProbe",
    "PsycopgPoolProbe",
    "PsycopgProbe",
    "PyMySQLProbe",
    "RQProbe",
    "RedisProbe",
    "S3Probe",
    "SMTPProbe",
    "SQLAlchemyPoolProbe",
    "SQLAlchemyProbe",
    "SettingsProbe",
    "TCPProbe",
    "beat",
    "probe_from_dsn",
)

# Hidden from type checkers: to them any misspelt name would be one that is loaded on first use.
if not TYPE_CHECKING:
    __getattr__, __dir__ = on_first_use(
        __name__,
        {
            "AMQPProbe": "_amqp",
            "AlembicProbe": "_alembic",
            "AsyncmyProbe": "_asyncmy",
            "AsyncpgProbe": "_asyncpg",
            "CeleryProbe": "_celery",
            "CertificateProbe": "_certificate",
            "ClockProbe": "_clock",
            "DNSProbe": "_dns",
            "DirectoryProbe": "_disk",
            "DiskProbe": "_disk",
            "DramatiqProbe": "_dramatiq",
            "ElasticsearchProbe": "_elasticsearch",
            "EventLoopProbe": "_event_loop",
            "FileDescriptorProbe": "_resources",
            "GRPCProbe": "_grpc",
            "HTTPProbe": "_http",
            "HeadroomProbe": "_headroom",
            "HeartbeatProbe": "_heartbeat",
            "KafkaProbe": "_kafka",
            "LDAPProbe": "_ldap",
            "Latch": "_latch",
            "LoadProbe": "_resources",
            "MQTTProbe": "_mqtt",
            "MemcachedProbe": "_memcached",
            "MemoryProbe": "_resources",
            "MongoProbe": "_mongo",
            "NATSProbe": "_nats",
            "PsycopgPoolProbe": "_psycopg_pool",
            "PsycopgProbe": "_psycopg",
            "PyMySQLProbe": "_pymysql",
            "RQProbe": "_rq",
            "RedisProbe": "_redis",
            "S3Probe": "_s3",
            "SMTPProbe": "_smtp",
            "SQLAlchemyPoolProbe": "_sqlalchemy_pool",
            "SQLAlchemyProbe": "_sqlalchemy",
            "SettingsProbe": "_settings",
            "TCPProbe": "_tcp",
            "beat": "_heartbeat",
            "probe_from_dsn": "_dsn",
        },
    )
