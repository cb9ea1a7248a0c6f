"""A desk with empty books, and rows of LiteLLM's own making."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
sys.path.insert(0, str(Path(__file__).parents[1] / "ledgers"))
sys.path.insert(0, str(Path(__file__).parent))

from desk import Desk

from costspan.conformance.provider import contract_toml

ROWS = Path(__file__).with_name("spend_logs.json")


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """A desk whose contract is the loopback provider's prices; its ledger is not there yet."""
    desk = Desk(tmp_path, tmp_path, capsys)
    contract = tmp_path / "prices.toml"
    contract.write_text(contract_toml(), "utf-8")
    for name in ("RULES", "CHARGES", "PROFILE", "CONFIG", "GATEWAYS"):
        monkeypatch.delenv(f"COSTSPAN_{name}", raising=False)
    monkeypatch.setenv("COSTSPAN_LEDGER", str(desk.ledger))
    monkeypatch.setenv("COSTSPAN_SPOOL", str(desk.spool))
    monkeypatch.setenv("COSTSPAN_PRICES", str(contract))
    return desk


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """A row of each kind of call, as LiteLLM wrote them (spend_logs.py)."""
    return list(json.loads(ROWS.read_text("utf-8")))


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A PostgreSQL server of our own."""
    from postgres_server import PostgresServer

    with PostgresServer() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def any_ledger(
    request: pytest.FixtureRequest, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    """The desk, with books in SQLite and then in PostgreSQL."""
    if request.param == "sqlite":
        yield desk
        return
    server = request.getfixturevalue("server")
    url = server.database()
    monkeypatch.setenv("COSTSPAN_LEDGER", url)
    yield desk
    server.drop(url)
