"""`/health` and `/metrics` over HTTP, for whoever looks after processes."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from costspan.cli.exits import UsageError

_REQUEST_SECONDS = 10.0
"""A client that says nothing for so long is left."""


class Answer(NamedTuple):
    """What a page says."""

    status: HTTPStatus
    content_type: str
    text: str


Pages = dict[str, Callable[[], Answer]]


@contextmanager
def serving(address: tuple[str, int], pages: Pages) -> Generator[str]:
    """Answer in threads of its own; yields the URL.

    Raises:
        UsageError: if nobody can listen there.
    """
    try:
        server = _server(address, pages)
    except OSError as error:
        host, port = address
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, name="costspan-http", daemon=True)
    thread.start()
    host, port = address[0], server.server_address[1]
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _server(address: tuple[str, int], pages: Pages) -> ThreadingHTTPServer:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            # As the class above the HTTP server's does: that one asks the network for our name.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = address[0], address[1]

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is nothing to tell."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_SECONDS
        server_version = "costspan"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            page = pages.get(self.path.partition("?")[0])
            if page is None:
                known = ", ".join(pages)
                answer = Answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"{known}\n")
            else:
                answer = page()
            body = answer.text.encode("utf-8", "backslashreplace")
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A look every few seconds is nothing to tell."""

    return Server(address, Handler)
