"""The service that the example shops lean on and can do without: `python examples/downstream.py`.

It stands for any HTTP service of another team. `GET /up` says that it is well, `GET /methods` how a
customer may pay, and `POST /charges` has one pay. It listens at 127.0.0.1, on $PORT or 9000.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_ANSWERS = {"/up": {"up": True}, "/methods": {"methods": ["card", "paypal", "invoice"]}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # callers keep their connections
    wbufsize = -1  # head and body leave in one packet

    def do_GET(self) -> None:
        self._answer(_ANSWERS.get(self.path))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._answer({"paid": True} if self.path == "/charges" else None)

    def _answer(self, answer: object) -> None:
        body = json.dumps(answer or {"error": "not found"}).encode()
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Keep quiet: every probe of every caller would be a line."""


def main() -> None:
    port = int(os.environ.get("PORT", "9000"))
    with ThreadingHTTPServer(("127.0.0.1", port), _Handler) as server:
        print(f"payments service at http://127.0.0.1:{server.server_port}", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
