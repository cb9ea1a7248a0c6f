"""A provider, a PostgreSQL ledger and processes, for the deployments that examples/ shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from costspan.conformance.provider import LoopbackProvider, contract_toml

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "ledgers"):
    sys.path.insert(0, str(folder))  # importlib mode puts no folder there

from deployed import Deployed  # noqa: E402  # found in the folder above


@pytest.fixture(scope="session")
def postgres() -> Iterator[object]:
    """A server that runs as long as the tests do."""
    from postgres_server import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as running:
        yield running


@pytest.fixture
def deployed(postgres: object, provider: LoopbackProvider, tmp_path: Path) -> Iterator[Deployed]:
    """A new ledger, a spool, and the environment of what is deployed on them."""
    from postgres_server import PostgresServer

    assert isinstance(postgres, PostgresServer)
    prices = tmp_path / "prices.toml"
    prices.write_text(contract_toml(), "utf-8")
    url = postgres.database()
    with ExitStack() as processes:
        yield Deployed(provider, url, tmp_path, prices, processes)
    postgres.drop(url)
