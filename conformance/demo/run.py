"""One run of the demo: provider, app and traffic, and what came of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import uvicorn

import costspan
from costspan.adapters import litellm as litellm_adapter
from costspan.conformance.demo.app import Application
from costspan.conformance.demo.traffic import Ask, send_all
from costspan.conformance.provider import InvoiceLine, LoopbackProvider, contract_toml
from costspan.core.read.books import Books


class Played(NamedTuple):
    """What a run left behind: the books, the provider's invoice and its truth, in pico-USD."""

    books: Books
    invoice: tuple[InvoiceLine, ...]
    truth: dict[str | None, int]
    requests: int


def play(ledger: Path, tell: Callable[[str], None]) -> Played:
    """Run the demo into an empty ledger file.

    Args:
        ledger: The SQLite file; it must not exist.
        tell: Called with each step, for whoever watches.

    Raises:
        RuntimeError: if the app does not start.
    """
    with TemporaryDirectory(prefix="costspan-demo-") as scratch, LoopbackProvider() as provider:
        prices = Path(scratch) / "contract.toml"
        prices.write_text(contract_toml(), "utf-8")
        costspan.configure(
            ledger=ledger, spool=Path(scratch) / "spool", prices=prices, background=False
        )
        tell(f"a provider on {provider.url}, with a truth ledger and an invoice of its own")
        app = Application(provider.base_url)
        with Serving(app) as url:
            tell(f"the app under uvicorn on {url}; its shared index is built")

            def sent(ask: Ask) -> None:
                tell(f"{ask.tenant}: {ask.shows}")

            asyncio.run(send_all(url, sent))
            for job in app.jobs:
                job.result(timeout=30)
        app.pool.shutdown()
        provider.wait_idle()
        drained = costspan.flush()
        tell(f"{drained.settled.observations} observations settled into {ledger}")
        return Played(
            costspan.open_ledger(ledger),
            provider.invoice(),
            provider.totals("tenant"),
            len(provider.truth),
        )


class Serving:
    """The app under a real uvicorn in a thread, until the context is left."""

    def __init__(self, app: Application) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app.asgi, log_level="error", lifespan="on")
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        asyncio.run(self._server.serve_and_flush([self._socket]))

    def __enter__(self) -> str:
        self._thread.start()
        if not self._server.up.wait(60) or not self._server.started:
            raise RuntimeError("the demo's app did not start under uvicorn")
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def __exit__(self, *_: Any) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()


class _Server(uvicorn.Server):
    """Says when it is up, and lets LiteLLM hand over its last callbacks before the loop ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.up.set()

    async def serve_and_flush(self, sockets: list[socket.socket]) -> None:
        await self.serve(sockets)
        await litellm_adapter.flush()
