"""Moto's S3 behind what moto lacks: a look at the signature. On uvicorn, see `http_apps.py`.

It knows URLs that are signed by version 4, as the AWS Signature Version 4 documentation says.
"""

from __future__ import annotations

import asyncio
import hmac
from contextvars import Context
from typing import Any
from urllib.parse import parse_qs

from asgiref.wsgi import WsgiToAsgi
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.test import Client

from tests.faults.http_apps import password, respond

_USER = "app"

_wsgi = DomainDispatcherApplication(create_backend_app)
Client(_wsgi).put("/shop")  # the bucket, which moto keeps in memory
_moto = WsgiToAsgi(_wsgi)  # type: ignore[no-untyped-call] # asgiref has no types here


async def storage(scope: Any, receive: Any, send: Any) -> None:
    """Answer those whose signature was made with the password."""
    if _is_signed(scope):
        # In a context of its own: asgiref's sees what the connection's last request left in it.
        work = _moto(scope, receive, send)
        await asyncio.get_running_loop().create_task(work, context=Context())
    else:
        await respond(send, 403, b"" if scope["method"] == "HEAD" else b"SignatureDoesNotMatch")


def _is_signed(scope: Any) -> bool:
    head = {name.decode(): value.decode() for name, value in scope["headers"]}
    query = scope["query_string"].decode()
    given = {name: values[0] for name, values in parse_qs(query).items()}
    if "X-Amz-Signature" not in given:
        return False
    signed = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
    request = AWSRequest(scope["method"], f"http://{head['host']}{scope['path']}?{signed}")
    request.context["timestamp"] = given["X-Amz-Date"]
    region = given["X-Amz-Credential"].split("/")[2]
    signer = S3SigV4QueryAuth(Credentials(_USER, password()), "s3", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return hmac.compare_digest(signer.signature(text, request), given["X-Amz-Signature"])
