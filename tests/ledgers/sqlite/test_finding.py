"""How the SQLite ledger finds what is open, and its lines: by an index, whatever else it holds."""

from __future__ import annotations

from typing import Any

from known_calls import flat, keep

from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger


def test_what_is_awaited_is_found_oldest_first(ledger: Ledger) -> None:
    def begun(number: int, at: int | None, **facts: Any) -> Observation:
        return Observation(
            oid=f"w:{number}", attempt_id=f"a{number}", phase="start", started_at=at, **facts
        )

    keep(
        ledger, flat(1, started_at=1), begun(2, 30), begun(3, 20), begun(4, None), begun(5, 40),
        begun(6, 10, cause="batch"), begun(7, 20),
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        assert settlement.awaiting("call", 30, 10) == ["a4", "a3", "a7", "a2"]
        assert settlement.awaiting("call", 30, 2) == ["a4", "a3"]
        assert settlement.awaiting("call", -1, 9) == []
        assert settlement.awaiting("batch", 10, 9) == ["a6"]
        assert settlement.awaiting("batch", 9, 9) == []
    keep(ledger, flat(102, attempt="a2"))
    with ledger.settling(1) as settlement:
        assert settlement.awaiting("call", 100, 10) == ["a4", "a3", "a7", "a5"]


def test_a_drain_does_not_look_at_every_event(ledger: Ledger) -> None:
    """The settled ones are not in the index by which it finds, and counts, the others."""
    statements: list[str] = []
    connection = ledger.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(statements.append)
    with ledger.settling(1) as settlement:
        settlement.awaiting("call", 100, 10)
    ledger.counts()
    connection.set_trace_callback(None)
    asked = [each for each in statements if "status = '" in each or "is_swept" in each]
    assert len(asked) == 5
    for statement in asked:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "INDEX events_s" in plan
        assert "SCAN events USING" not in plan or "is_swept" in statement


def test_a_line_is_looked_up_among_any_number_of_lines(ledger: Ledger) -> None:
    """A million tenants are a million lines: a settlement reads none but its own."""
    statements: list[str] = []
    connection = ledger.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(statements.append)
    keep(ledger, flat(1))
    connection.set_trace_callback(None)
    asked = [each for each in statements if "JOIN lines" in each and "wanted" in each]
    assert asked
    for statement in asked:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "SEARCH lines" in plan
        assert "SCAN lines" not in plan
