"""HTTP: reads requests, routes them, and answers what is not a model call itself."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qs, urlsplit

from costspan.conformance.provider.answer import Failure
from costspan.conformance.provider.batches import BATCHES, FILES, Batches, NoSuchObject
from costspan.conformance.provider.call import ENDPOINTS, BadRequest, Caller
from costspan.conformance.provider.exchange import Backend, serve
from costspan.conformance.provider.invoice import BadQuery, Query, costs_page, render, usage_page
from costspan.conformance.provider.invoice_anthropic import cost_report, usage_report
from costspan.conformance.provider.line import Line
from costspan.conformance.provider.script import requested
from costspan.conformance.provider.step import ScriptError
from costspan.conformance.provider.wire_openai import (
    encode,
    error_body,
    model_object,
    models_body,
)

_MOST_BODY_BYTES: Final = 64 * 2**20
_USAGE: Final = "/v1/organization/usage/"
_REPORTS: Final = {
    "/v1/organizations/cost_report": cost_report,
    "/v1/organizations/usage_report/messages": usage_report,
}


class Served(Protocol):
    """What the handler needs of its server."""

    backend: Backend
    batches: Batches


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: BaseServer

    @property
    def _backend(self) -> Backend:
        return cast(Served, self.server).backend

    @property
    def _batches(self) -> Batches:
        return cast(Served, self.server).batches

    def do_POST(self) -> None:
        """A model call, a file, a batch, or a script."""
        path = urlsplit(self.path).path
        line = self._line()
        if path == "/__script":
            self._answer(line, lambda: self._add_script(line))
        elif path in (FILES, BATCHES):
            self._answer(line, lambda: self._batches.post(path, self._headers(), self._body(line)))
        else:
            headers = self._headers()
            serve(self._backend, line, Caller.read(path, headers), lambda: self._body(line))
        self.close_connection = line.closing

    def do_GET(self) -> None:
        """The models, files and batches, the bill, the truth."""
        line = self._line()
        self._answer(line, self._get)
        self.close_connection = line.closing

    def do_DELETE(self) -> None:
        """Forget the scripts."""
        line = self._line()
        self._answer(line, self._forget_scripts)
        self.close_connection = line.closing

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in OpenAI's shape; the connection ends."""
        del explain
        self.close_connection = True
        failure = Failure(int(code), message or "the request is not HTTP")
        Line(self.connection, closing=True, chunked=False).send(int(code), error_body(failure))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the truth ledger is the log."""

    def _headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items()}

    def _line(self) -> Line:
        modern = self.request_version == "HTTP/1.1"
        return Line(self.connection, closing=self.close_connection, chunked=modern)

    def _answer(self, line: Line, action: Callable[[], bytes]) -> None:
        """Send what the action gives, or its error; a client that left is no matter."""
        status = 200
        try:
            body = action()
        except _Refused as refused:
            status, body = refused.failure.status, error_body(refused.failure)
        except NoSuchObject as error:
            status, body = 404, error_body(Failure(404, str(error)))
        except (BadQuery, BadRequest, ScriptError) as error:
            status, body = 400, error_body(Failure(400, str(error)))
        line.send(status, body)

    def _get(self) -> bytes:
        url = urlsplit(self.path)
        query: Query = parse_qs(url.query)
        backend, path = self._backend, url.path
        if path == "/__truth":
            return self._truth(query)
        if path == "/v1/models":
            return models_body(backend.prices.models())
        if path.removeprefix("/v1/models/") in backend.prices.models():
            return encode(model_object(path.removeprefix("/v1/models/")))
        if path.startswith((f"{FILES}/", f"{BATCHES}/")):
            return self._batches.get(path)
        now = backend.clock() // 10**9
        if path == "/v1/organization/costs":
            self._require_key()
            return render(costs_page(backend.ledger.rows(), query, now)).encode()
        if path in (f"{_USAGE}completions", f"{_USAGE}embeddings"):
            self._require_key()
            kind = path.removeprefix(_USAGE)
            return render(usage_page(backend.ledger.rows(), query, now, kind)).encode()
        if path in _REPORTS:
            self._require_admin_key()
            return encode(_REPORTS[path](backend.ledger.rows(), query, now))
        status = 405 if path in ENDPOINTS else 404
        raise _Refused(Failure(status, f"Invalid URL or method ({self.command} {path})"))

    def _truth(self, query: Query) -> bytes:
        """All rows; with ``idle=SECONDS``, after waiting that long for requests in flight."""
        ledger, idle = self._backend.ledger, query.get("idle", ["0"])[-1]
        if not (idle.isascii() and idle.isdigit() and len(idle) <= 4):
            raise BadQuery("idle is a whole number of seconds")
        is_idle = ledger.wait_idle(float(idle))
        rows = ledger.rows()
        return encode(
            {
                "object": "list",
                "idle": is_idle,
                "data": [row.as_json() for row in rows],
                "total_cost_pico": sum(row.cost_pico for row in rows),
            }
        )

    def _add_script(self, line: Line) -> bytes:
        try:
            given = json.loads(self._body(line))
            steps: list[Any] = list(given["steps"])
            match = given["key"] if "key" in given else requested(given["model"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ScriptError('a script is {"key" or "model": NAME, "steps": [STEP, …]}') from error
        self._backend.scripts.add(match, *steps)
        return encode({"ok": True})

    def _forget_scripts(self) -> bytes:
        if urlsplit(self.path).path != "/__script":
            raise _Refused(Failure(404, "Invalid URL"))
        self._backend.scripts.clear()
        return encode({"ok": True})

    def _require_key(self) -> None:
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key.strip():
            message = "You need an admin key: Authorization: Bearer KEY (any KEY will do here)."
            raise _Refused(Failure(401, message, "invalid_api_key"))

    def _require_admin_key(self) -> None:
        if not self.headers.get("x-api-key", "").strip():
            message = "You need an admin key: x-api-key: KEY (any KEY will do here)."
            raise _Refused(Failure(401, message, "invalid_api_key"))
        if not self.headers.get("anthropic-version"):
            raise BadQuery("anthropic-version: header is required")

    def _body(self, line: Line) -> bytes:
        """The request's body; an unreadable one ends the connection, as its end is unknown."""
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                return self._chunks()
            size = _size(self.headers.get("Content-Length", "0"), 10)
            return _whole(self.rfile.read(size), size)
        except BadRequest:
            line.abandon()
            raise

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := _size(self.rfile.readline(64).split(b";")[0].decode("latin-1"), 16):
            body += _whole(self.rfile.read(size), size)
            self.rfile.readline(8)
            _size(str(len(body)), 10)
        while self.rfile.readline(65_537).strip():
            pass  # Trailers say nothing to us.
        return bytes(body)


class _Refused(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _size(text: str, base: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError as error:
        raise BadRequest("the length of the body cannot be read") from error
    if not 0 <= size <= _MOST_BODY_BYTES:
        raise BadRequest(f"the body must have from 0 to {_MOST_BODY_BYTES} bytes")
    return size


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise BadRequest("the body ended early")
    return data
