"""A PostgreSQL server for these tests, and the journals and the oracle of tests/settle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from costspan.core.settle.ledger import Ledger, open_url

for name in ("verify", "settle", "ledgers"):
    sys.path.insert(0, str(Path(__file__).parents[1] / name))


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    """A server that runs as long as the tests do; one that was killed is started again."""
    from postgres_server import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(postgres: object) -> Iterator[str]:
    """A database of the test's own."""
    from postgres_server import PostgresServer

    assert isinstance(postgres, PostgresServer)
    found = postgres.database()
    yield found
    postgres.drop(found)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An open ledger with a policy."""
    from postgres_books import begin

    with closing(open_url(url, create=True)) as opened:
        begin(opened)
        yield opened
