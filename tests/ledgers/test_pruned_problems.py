"""What was found in observations that went to an archive cannot be found again: no damage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from known_calls import begin, keep

from costspan.core.retention import prune
from costspan.core.schema import Observation
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

JANUARY = 1_768_000_000 * 10**9
LATER = 1_800_000_000 * 10**9


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    at = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgres":
        at = request.getfixturevalue("url")
    with closing(open_url(at, create=True)) as opened:
        begin(opened)
        yield opened


def seen(oid: str, **facts: Any) -> Observation:
    return Observation(oid=oid, provider_result="ok", flat_cost="1", started_at=JANUARY, **facts)


def principal(tenant: str) -> dict[str, str]:
    return {"tenant": tenant, "tenant_source": "principal"}


def test_every_kind_of_problem(ledger: Ledger, tmp_path: Path) -> None:
    keep(
        ledger,
        seen("w:1", attempt_id="a1", **principal("acme")),
        seen("w:2", attempt_id="a1", layer="framework", **principal("globex")),
        seen("w:3", attempt_id="a2", response_id="r", provider="openai", tenant="acme"),
        seen("w:4", attempt_id="a3", response_id="r", provider="openai", tenant="acme"),
        seen("w:5", response_id="r", provider="openai"),
        seen("w:6", attempt_id="a6", tenant="acme"),
    )
    keep(ledger, seen("w:6", attempt_id="a6", tenant="globex"))
    kinds = {"identity_conflict", "unmatched", "conflict"}
    assert {kind for kind, *_ in ledger.problems()} == kinds
    assert wrong(ledger) == []
    close_period(ledger, "2026-01", "ann", "month's end", LATER)
    pruned = prune(ledger, "2026-02", tmp_path / "archive", "ann", "space", LATER + 1)
    assert pruned is not None
    assert pruned.observations > 0
    assert wrong(ledger) == []
    keep(ledger, seen("w:7", attempt_id="a1", layer="manual", **principal("acme")))
    assert ("archived", "w:7", "a1") in ledger.problems()
    assert wrong(ledger) == []


def wrong(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]
