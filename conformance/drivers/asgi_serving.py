"""ASGI applications under a real uvicorn in a thread, all on one event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import uvicorn

T = TypeVar("T")

ON_LOOPBACK: dict[str, Any] = {"verify": False, "trust_env": False, "timeout": 60.0}
"""httpx's options: nothing to verify, and no proxy to go through; certificates are slow."""

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class Serving:
    """Serves each application on a free port of 127.0.0.1, until it is closed.

    Services on one loop are no less apart than on two: all that they share is the wire.

    Attributes:
        places: `host:port` of each application, in order.

    Raises:
        RuntimeError: if one of them does not start.
    """

    def __init__(self, *applications: Any) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in applications]
        self.places = [f"127.0.0.1:{each.getsockname()[1]}" for each in self._sockets]
        self._up: Future[None] = Future()
        self._servers = [
            uvicorn.Server(uvicorn.Config(each, log_config=None, access_log=False, lifespan="on"))
            for each in applications
        ]
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)

    def start(self) -> Self:
        """Serve; returns when every application is up."""
        self._thread.start()
        self._up.result(_START_SECONDS)
        return self

    def close(self) -> None:
        """Finish what is being served, and end the loop."""
        for server in self._servers:
            server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        for each in self._sockets:
            each.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the servers' loop, from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        serving = [
            asyncio.create_task(server.serve([at]))
            for server, at in zip(self._servers, self._sockets, strict=True)
        ]
        while not all(server.started for server in self._servers):
            if any(task.done() for task in serving):
                self._up.set_exception(RuntimeError("an application did not start under uvicorn"))
                break
            await asyncio.sleep(0.01)  # uvicorn tells nobody when it is up
        else:
            self._up.set_result(None)
        await asyncio.gather(*serving)
