"""An event that later evidence takes away leaves nothing on any line, whenever that was posted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from known_calls import begin, keep

from costspan.core.rebuild import nets
from costspan.core.schema import Observation
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

JANUARY = 1_768_000_000 * 10**9
LATER = 1_800_000_000 * 10**9
SEEN: dict[str, Any] = {
    "tenant": "acme",
    "provider_result": "ok",
    "flat_cost": "1",
    "started_at": JANUARY,
}
FRAMEWORK = Observation(oid="l:1", operation_ids=("langchain:R",), layer="framework", **SEEN)
PROXY = Observation(
    oid="p:1", attempt_id="a1", operation_ids=("litellm:C", "langchain:R"), layer="gateway", **SEEN
)


@pytest.fixture(params=["sqlite", "postgres"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    found: str = request.getfixturevalue("url")
    return found


@pytest.fixture
def ledger(at: str) -> Iterator[Ledger]:
    with closing(open_url(at, create=True)) as opened:
        begin(opened)
        yield opened


def problems(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


def test_after_a_close_too(ledger: Ledger) -> None:
    """The reversal is posted in the open month: on the same line, in another period."""
    keep(ledger, FRAMEWORK)
    assert [each.event.id for each in ledger.events()] == ["langchain:R"]
    close_period(ledger, "2026-01", "ann", "month's end", LATER)
    before = nets(ledger)
    keep(ledger, PROXY)
    assert [each.event.id for each in ledger.events()] == ["a1"]
    assert [(each.posted_period, each.events) for each in ledger.postings("langchain:R")] == [
        ("2026-01", 1), ("2026-02", -1),
    ]  # fmt: skip
    assert nets(ledger) == before
    assert problems(ledger) == []


def test_what_was_not_taken_back_is_found(ledger: Ledger, at: str) -> None:
    keep(ledger, FRAMEWORK)
    if at.startswith("sqlite"):
        with closing(sqlite3.connect(at.removeprefix("sqlite:///"))) as db:
            db.execute("DELETE FROM events")
            db.commit()
    else:
        with psycopg.connect(at) as connection:
            connection.execute("DELETE FROM costspan.events")
            connection.execute("DELETE FROM costspan.places")
    assert "postings 1 (langchain:R): line 1 has amounts of what is no event" in problems(ledger)
