"""Real servers on a port of their own, and clients that write down what was answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from children import environment, until

UVICORN = ("uvicorn", "shop:app", "--host", "127.0.0.1", "--port", "0", "--log-level", "info")
GUNICORN = (
    *("gunicorn", "--bind", "127.0.0.1:0", "--no-control-socket"),
    *("--graceful-timeout", "300", "--log-level", "info"),
)
SYNC = (*GUNICORN, "--workers", "2", "shop:wsgi")
ASGI = (*GUNICORN, "--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", "shop:app")

SERVERS: dict[str, tuple[str, ...]] = {
    "uvicorn, 1 worker": UVICORN,
    "uvicorn, 2 workers": (*UVICORN, "--workers", "2"),
    "gunicorn sync": SYNC,
    "gunicorn sync, preload": (*SYNC, "--preload"),
    "gunicorn uvicorn": ASGI,
    "gunicorn uvicorn, preload": (*ASGI, "--preload"),
}

CLIENTS = 4
_STOP_SECONDS = 30.0
"""A server whose workers have ended by then has none that hangs: gunicorn would wait for longer."""
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Server:
    """A server under way; what it logs is in `log`."""

    def __init__(self, name: str, folder: Path) -> None:
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *SERVERS[name]],
                stdout=log, stderr=log, cwd=folder, env=environment(SHOP_FOLDER=str(folder)),
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text("utf-8", "replace")

    def port(self) -> int:
        """The port that it says it listens on, once it does."""

        def said() -> int:
            assert self.process.poll() is None, self.log
            found = _ADDRESS.search(self.log)
            return int(found[1]) if found else 0

        return until(said, f"an address in {self._log}")

    def stopped(self) -> int:
        """Its exit code, once it is gone."""
        return self.process.wait(_STOP_SECONDS)


@contextlib.contextmanager
def serving(name: str, folder: Path) -> Iterator[Server]:
    """A server for as long as the block runs."""
    server = Server(name, folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)  # its workers too: one may hang
        server.process.wait()


class Traffic:
    """Clients that ask until they are told to stop; a request cut off is asked again by nobody."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.answers = 0
        self.cut_off = 0
        self.statuses: set[int] = set()
        self.calls: set[str] = set()
        self.requests: set[str] = set()
        self.pids: set[int] = set()
        paths = ("/work", "/threaded")
        self._threads = [
            threading.Thread(target=self._ask, args=(paths[n % 2],)) for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, path: str) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", path)
                reply = connection.getresponse()
                self._note(reply.status, reply.read())
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.cut_off += 1
                self._stop.wait(0.01)  # nobody listens: a worker comes again, or we are stopped
            finally:
                connection.close()

    def _note(self, status: int, body: bytes) -> None:
        with self._lock:
            self.statuses.add(status)
            if status != 200:
                return
            said = json.loads(body)
            self.answers += 1
            self.calls.update(said["calls"])
            self.pids.add(said["pid"])
            if said["request"] is not None:
                self.requests.add(said["request"])

    def until_answers(self, many: int) -> None:
        """Wait for so many more answers."""
        goal = self.answers + many
        until(lambda: self.answers >= goal, f"{many} answers")

    def stop(self) -> None:
        """Let the clients finish what they asked."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
