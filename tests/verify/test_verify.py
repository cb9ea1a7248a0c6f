"""Whatever journal is settled verifies; and what was not settled so does not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from corrections import corrected_journals
from full_books import call, fresh, full, keep
from hypothesis import given, settings
from journals import Journal, journals, settled

from costspan.core.config import Config
from costspan.core.rebuild import rebuild
from costspan.core.schema import Observation
from costspan.core.settle import recheck
from costspan.core.settle.ledger import Ledger
from costspan.core.verify import Problem, verify
from costspan.plugins.ledgers.sqlite.contents import Contents


def problems(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


@settings(max_examples=60)
@given(journals() | corrected_journals().map(lambda drawn: drawn[0]))
def test_every_journal_verifies(journal: Journal) -> None:
    with closing(settled(journal, gateways=())) as ledger:
        assert problems(ledger) == []


def test_who_lost_its_oid_waits_for_nothing() -> None:
    """Of two payloads under one oid the loser is no observation: nobody is to look for it."""
    client: dict[str, Any] = {"attempt_id": "a2", "flags": ("downstream",)}
    with closing(fresh()) as ledger:
        keep(ledger, Observation(oid="w0:1", writer="w0", seq=1, **client))
        for tokens in range(5):  # some of them has the smaller hash
            other = Observation(
                oid="w0:1", writer="w0", seq=1, attempt_id="a1", usage={"input": tokens}
            )
            keep(ledger, other)
            assert problems(ledger) == []
        assert ledger.counts("conflict")["conflict"] == 5


def test_what_is_rebuilt_verifies(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        rebuild(Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path))
        assert problems(ledger) == []


def test_memory_is_not_asked_for_every_event(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    with closing(fresh()) as ledger:
        keep(ledger, *(call(number) for number in range(1, 2502)))
        assert list(verify(ledger, tell=lambda what, done: told.append((what, done)))) == []
    assert [done for what, done in told if what == "events"] == [1000, 2000, 2501]


def test_a_decision_that_the_rules_do_not_give_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are asked again: whatever stands there otherwise is named, field by field."""
    with closing(fresh()) as ledger:
        keep(ledger, call(1), call(2))

        def charging_more(*given: Any) -> dict[str, Any]:
            found = decisions_of(*given)
            decision = found["a2"]
            assert decision is not None
            return {**found, "a2": msgspec.structs.replace(decision, charge=1, via="a1")}

        decisions_of = recheck.decisions_of  # type: ignore[attr-defined]  # what is replaced
        monkeypatch.setattr(recheck, "decisions_of", charging_more)
        assert problems(ledger) == ["event a2: decided again it differs: via, charge"]


def test_a_check_that_stops_stops_no_other(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        db = ledger.connection  # type: ignore[attr-defined]
        db.execute("UPDATE controls SET payload = x'c1' WHERE kind = 'Close'")
        db.execute("UPDATE events SET content = x'c1' WHERE id = 'a3'")
        found = problems(ledger)
    checks = [text.split(" ")[0] for text in found]
    assert {"controls", "events"} <= set(checks)
    assert sum("cannot be checked to the end" in text for text in found) == 2


def test_a_posting_that_the_decision_does_not_give_is_found(tmp_path: Path) -> None:
    """Every sum and checksum is made right again: only the decision speaks against it."""
    with closing(full(tmp_path / "ledger.db")) as ledger:
        db = ledger.connection  # type: ignore[attr-defined]
        (each,) = ledger.events(["a32"])
        ((line, amount),) = each.posted
        more = msgspec.structs.replace(amount, charge=amount.charge + 1)
        changed = msgspec.structs.replace(each, posted=((line, more),))
        content = Contents(db).pack(changed)
        db.execute("DROP TRIGGER postings_no_update")
        db.execute("UPDATE postings SET charge = charge + 1 WHERE event_id = 'a32'")
        db.execute("UPDATE lines SET charge_pico = charge_pico + 1 WHERE day = '2026-04-02'")
        row = (content, crc32(content), "a32")
        db.execute("UPDATE events SET content = ?, crc = ? WHERE id = ?", row)
        assert problems(ledger) == [
            "the schema: the trigger postings_no_update is gone",
            "event a32: what stands for it is not what its decision says",
        ]


def test_a_number_that_no_posting_has_is_missed(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        db = ledger.connection  # type: ignore[attr-defined]
        db.execute("DROP TRIGGER postings_no_update")
        db.execute("UPDATE postings SET id = id + 1 WHERE event_id = 'a32'")
        assert "postings 22: follows 20; a number is missing, or was changed" in problems(ledger)
