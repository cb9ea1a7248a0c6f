"""The server that tests have is gone when they are, however they end."""

from __future__ import annotations

import os

import pytest
from postgres_server import PostgresServer


class _Broken(Exception):
    pass


class _BreaksAsItStarts(PostgresServer):
    def start(self) -> None:
        super().start()
        raise _Broken


def _fail(server: PostgresServer) -> None:
    assert server.version
    raise _Broken


def _is_gone(server: PostgresServer) -> bool:
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
    return not server.folder.exists()


def test_a_test_that_fails_leaves_no_server() -> None:
    with pytest.raises(_Broken), PostgresServer() as server:
        _fail(server)
    assert _is_gone(server)


def test_a_start_that_breaks_leaves_no_server() -> None:
    server = _BreaksAsItStarts()
    with pytest.raises(_Broken), server:
        pass
    assert _is_gone(server)
