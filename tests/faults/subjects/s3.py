"""A bucket, in moto's server."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from healthmw.probes import S3Probe
from tests.faults.subjects.http import Service, ServiceSubject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from healthmw._probe import Probe
    from tests.faults.subject import Address


class _Storage(Service):
    """Moto's, with the bucket in it."""

    app = "tests.faults.storage_app:storage"

    def command(self) -> Sequence[str]:
        # Else a host with a dot in its name is taken for a bucket's.
        return "env", "S3_IGNORE_SUBDOMAIN_BUCKETNAME=true", *super().command()


class Bucket(ServiceSubject):
    """Through the app's client of boto3."""

    name = "`S3Probe`, moto"

    def new_server(self) -> Service:
        return _Storage()

    def probe(self, at: Address, timeout: float) -> Probe:
        import boto3
        from botocore.config import Config

        verify = True if at.ca is None else ssl.create_default_context(cafile=at.ca)
        scheme = "http" if at.ca is None else "https"
        client = boto3.client(
            "s3",
            endpoint_url=f"{scheme}://{at.host}:{at.port}",
            region_name="us-east-1",
            aws_access_key_id="app",
            aws_secret_access_key=at.password,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )
        return S3Probe("shop", client=client, verify=verify, timeout=timeout)
