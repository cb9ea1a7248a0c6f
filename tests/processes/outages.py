"""A PostgreSQL server behind a way that can be shut: each form of an outage, and its end."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "ledgers"))

from postgres_server import PostgresServer as PostgresServer  # found in the folder above
from readable import readable

CONNECT_SECONDS = 2
"""The least that libpq waits for a server that says nothing."""


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


_WELCOME = _message(b"R", struct.pack("!i", 0)) + _message(b"Z", b"I")
_STARTING = _message(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")


class Way:
    """A port of 127.0.0.1 that leads to the server, as long as it is open.

    Attributes:
        state: `open`; `silent`: takes connections and says nothing, those it has freeze; `mute`:
            welcomes whoever comes, and answers no question; `starting`: says that it starts up.
        taken: How many connections came since the state was last set.
        carried: How many connections lead to the server now.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.state = "open"
        self.taken = self.carried = 0
        self._held: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    def shut(self, state: str) -> None:
        """From now on it is like this."""
        self.state, self.taken = state, 0

    def open(self) -> None:
        """It leads to the server again; what was held is cut off."""
        self.state = "open"
        for each in self._held:
            each.close()
        self._held.clear()

    def close(self) -> None:
        """It leads nowhere."""
        self.shut("closed")
        # Wakes the thread that waits for whoever comes.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.open()

    def _take(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.taken += 1
            if self.state == "open":
                self.carried += 1
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()
                continue
            self._held.append(client)
            if self.state != "silent":
                client.recv(8192)
                client.sendall(_STARTING if self.state == "starting" else _WELCOME)
            if self.state == "starting":
                client.close()

    def _carry(self, client: socket.socket) -> None:
        try:
            self._pump(client)
        finally:
            self.carried -= 1

    def _pump(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with client, server, contextlib.suppress(OSError):
            server.connect(self._target)
            while True:
                for each in readable([client, server]):
                    said = each.recv(65536)
                    if self.state != "open":
                        self._held += [client.dup(), server.dup()]
                        return
                    if not said:
                        return
                    (server if each is client else client).sendall(said)


@contextlib.contextmanager
def a_way_to(server: PostgresServer) -> Iterator[Way]:
    """A way to a server, for as long as the block runs."""
    way = Way(f"{server.folder}/.s.PGSQL.5432")
    try:
        yield way
    finally:
        way.close()


def url_by(way: Way, url: str) -> str:
    """The URL of a database of the server, by the way."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    said = f"sslmode=disable&connect_timeout={CONNECT_SECONDS}"
    return f"postgresql://postgres@127.0.0.1:{way.port}/{name}?{said}"


@contextlib.contextmanager
def outage(kind: str, server: PostgresServer, way: Way, url: str) -> Iterator[None]:
    """The ledger is out of reach in this way; afterwards it is there again."""
    if kind == "killed":
        server.kill()
        yield
        server.start()
    elif kind == "too many":
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(psycopg.connect(url))
            yield
    elif kind == "read only":
        _alter(url, "SET default_transaction_read_only = on")
        yield
        _alter(url, "RESET default_transaction_read_only")
    else:
        way.shut(kind)
        yield
        way.open()


def _alter(url: str, what: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("SET default_transaction_read_only = off")
        db.execute(f"ALTER DATABASE {name} {what}".encode())


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this file's own: it is killed here."""
    with PostgresServer() as found:
        yield found
