"""A service that is called with `requests`, and what it says it was given."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from costspan.carrier import HEADER, Keys, Signed, from_carrier

KEYS = Keys({"k1": "s" * 32}, "k1", "front", audiences=["back", "other"])


class Service:
    """A server that answers as the URL asks, and remembers who came with what."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str]]] = []
        self.go_on = threading.Event()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
                if "hang" in asked:
                    service.go_on.wait(20)
                    return
                if "drop" in asked:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(int(asked.get("status", "200")))
                if "to" in asked:
                    self.send_header("Location", asked["to"])
                if "digest" in asked and "authorization" not in self.headers:
                    self.send_header("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
                self.send_header("Content-Length", "10")
                self.end_headers()
                self.wfile.write(b"0123456789")

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"http://{self.host}{path}"

    def carriers(self) -> list[Signed | None]:
        """What each request said, where it said anything."""
        read = {"back", "other"}
        return [
            next((s for a in read if (s := from_carrier(headers, KEYS, audience=a))), None)
            if HEADER in headers
            else None
            for _, headers in self.came
        ]

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)
