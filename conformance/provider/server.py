"""The provider as a running server, in this process."""

import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from socketserver import TCPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Final, Self

from costspan.conformance.provider.batches import Batches
from costspan.conformance.provider.exchange import Backend
from costspan.conformance.provider.handler import Handler
from costspan.conformance.provider.invoice import InvoiceLine, invoice_lines
from costspan.conformance.provider.prices import (
    DEFAULT_ALIASES,
    DEFAULT_PRICES,
    PriceList,
    Prices,
)
from costspan.conformance.provider.script import Predicate, requested
from costspan.conformance.provider.step import Fields, Step
from costspan.conformance.provider.truth import Row, Total

_SHUTDOWN_POLL_SECONDS: Final = 0.02
_JOIN_SECONDS: Final = 5.0


class LoopbackProvider:
    """A provider on 127.0.0.1 with OpenAI's and Anthropic's wire: does as told, knows the truth.

    Args:
        prices: Model, or ``model#tier``, to component to USD per 1M tokens (decimal strings).
        aliases: Dated name to model; a model is served under its latest dated name.
        host: The address to bind.
        port: 0 takes a free one.
        clock: Unix time in ns; a test of several days brings its own.

    Use it as a context manager, or call ``start`` and ``close``. Scripts: see
    ``costspan.conformance.provider.script``.
    """

    def __init__(
        self,
        *,
        prices: Prices = DEFAULT_PRICES,
        aliases: Mapping[str, str] = DEFAULT_ALIASES,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._backend = Backend(PriceList(prices, aliases), clock)
        self._batches = Batches(self._backend)
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def start(self) -> Self:
        """Bind and serve in a thread of its own.

        Raises:
            OSError: The port is taken.
        """
        if self._server is None:
            server = _Server(self._address, self._backend, self._batches)
            host, port = server.server_address[:2]
            self._address = (str(host), int(port))  # A second start is at the same place.
            self._thread = Thread(
                target=server.serve_forever,
                args=(_SHUTDOWN_POLL_SECONDS,),
                name="loopback-provider",
                daemon=True,
            )
            self._server = server
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop: hang up on everyone, end all threads. The truth stays readable."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        if server is not None and thread is not None:
            server.shutdown()
            server.server_close()
            thread.join(_JOIN_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The root, under which ``/__truth`` and ``/__script`` are: an Anthropic client's base."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its base URL."""
        return f"{self.url}/v1"

    def script(self, match: str | Predicate, *steps: Step | str | Fields) -> None:
        """Say what to do with the requests that ``match``: a key, or a predicate over the call.

        Raises:
            ScriptError: A step cannot be read.
        """
        self._backend.scripts.add(match, *steps)

    def fail_model(self, model: str, status: int = 503, times: int = 1) -> None:
        """The next ``times`` requests for a model get this status; then it serves again."""
        self.script(requested(model), Step(status=status, retry_after=0, times=times))

    def forget_scripts(self) -> None:
        """Serve everything by its directive or by default again."""
        self._backend.scripts.clear()

    @property
    def truth(self) -> tuple[Row, ...]:
        """Every finished request, by order of arrival; see ``wait_idle`` for those in flight."""
        return self._backend.ledger.rows()

    def totals(self, by: Total = "tenant") -> dict[str | None, int]:
        """Cost in pico-USD per tenant, purpose, project, model (as executed) and so on."""
        return self._backend.ledger.totals(by)

    def invoice(self) -> tuple[InvoiceLine, ...]:
        """The bill in exact pico-USD; its sum is the sum of the truth."""
        return invoice_lines(self.truth)

    def wait_idle(self, seconds: float = 10.0) -> bool:
        """Wait until no request is in flight; False when ``seconds`` passed first."""
        return self._backend.ledger.wait_idle(seconds)

    def wait_received(self, count: int, seconds: float = 10.0) -> bool:
        """Wait until ``count`` requests have arrived, finished or not; False when late."""
        return self._backend.ledger.wait_received(count, seconds)

    def wait_case(self, case: str, seconds: float = 10.0) -> bool:
        """Wait until a request whose directive names ``case`` has been read; False when late."""
        return self._backend.ledger.wait_case(case, seconds)

    @property
    def bugs(self) -> tuple[str, ...]:
        """Tracebacks of what went wrong inside the provider; tests expect none."""
        return tuple(self._backend.bugs)


class _Server(TCPServer):
    """A thread a connection; all of them end with the server."""

    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], backend: Backend, batches: Batches) -> None:
        super().__init__(address, Handler)
        self.backend = backend
        self.batches = batches
        self._lock = Lock()
        self._connections: dict[Thread, socket.socket] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread."""
        thread = Thread(
            target=self._serve, args=(request, client_address), name="loopback-client", daemon=True
        )
        with self._lock:
            for ended in [known for known in self._connections if not known.is_alive()]:
                del self._connections[ended]
            thread.start()
            self._connections[thread] = request

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except Exception:  # A client's connection must not end the server.
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's matter; the rest is a bug, kept for tests."""
        if not isinstance(sys.exc_info()[1], OSError):
            self.backend.bugs.append(traceback.format_exc())

    def server_close(self) -> None:
        """Hang up on every client and wait for its thread."""
        super().server_close()
        with self._lock:
            connections = dict(self._connections)
        for connection in connections.values():
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # It is closed already.
        for thread in connections:
            thread.join(_JOIN_SECONDS)
