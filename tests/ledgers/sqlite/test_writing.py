"""Writing to the SQLite ledger: append-only, one settler, wide sums, and all or nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_calls import flat, keep

from costspan.core import counters
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal.records import Counts, Refusals
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.recorder import Recorder
from costspan.core.settle import settle
from costspan.core.settle.entries import Amount, Line, Posting
from costspan.core.settle.ledger import Ledger, open_url

LINE = Line("acme", "direct", None, "2026-01", "2026-01-31", "gpt-4o")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE postings SET cost = 0",
        "DELETE FROM postings",
        "INSERT OR REPLACE INTO postings SELECT * FROM postings",
        "REPLACE INTO postings SELECT * FROM postings",
        "UPDATE OR REPLACE postings SET id = 7",
    ],
)
@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
def test_postings_are_only_ever_added_to(
    ledger: Ledger, path: Path, statement: str, recursive_triggers: str
) -> None:
    keep(ledger, flat(1), flat(2))
    before = ledger.postings("a1")
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute(f"PRAGMA recursive_triggers = {recursive_triggers}")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            foreign.execute(statement)
    assert ledger.postings("a1") == before != []


def test_sums_are_wider_than_any_integer_of_the_store(ledger: Ledger) -> None:
    keep(ledger, *(flat(number, "9000000") for number in range(1, 6)))
    (roll_up,) = ledger.roll_ups()
    assert (roll_up.cost, roll_up.events) == (45_000_000 * PICO, 5)
    assert roll_up.cost > 2**63


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-9, 9)), max_size=8), st.data())
def test_roll_ups_are_the_same_in_any_batching(
    amounts: list[tuple[int, int]], data: st.DataObject
) -> None:
    postings = [Posting("e", LINE, "2026-01", Amount(*amount), 0) for amount in amounts]
    rows = []
    for cut in (0, data.draw(st.integers(0, len(postings)))):
        with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
            for batch in (postings[:cut], postings[cut:]):
                with ledger.settling(0) as settlement:
                    settlement.post(batch)
            found = [(each.cost, each.charge) for each in ledger.roll_ups()]
            total = tuple(map(sum, zip(*amounts, strict=True))) if amounts else (0, 0)
            assert found == ([total] if any(total) else [])
            sql = "SELECT cost_usd, cost_pico, charge_usd, charge_pico FROM lines"
            rows.append(ledger.connection.execute(sql).fetchall())  # type: ignore[attr-defined]
    assert rows[0] == rows[1]


def test_one_settler_at_a_time(ledger: Ledger, path: Path) -> None:
    with closing(open_url(f"sqlite:///{path}", create=True)) as other:
        busy = pytest.raises(LedgerBusy, match="records stay in the spool")
        with ledger.settling(1), busy, other.settling(0):
            pytest.fail("two settlers")
        keep(other, flat(1))
    assert [each.event.id for each in ledger.events()] == ["a1"]


def test_a_settlement_that_fails_changes_nothing(ledger: Ledger) -> None:
    keep(ledger, flat(1))

    def fail() -> None:
        with ledger.settling(1) as settlement:
            settle(settlement, [flat(2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [each.event.id for each in ledger.events()] == ["a1"]
    keep(ledger, flat(2))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (2 * PICO, 2 * PICO)}


def test_a_connection_does_not_cross_a_fork(ledger: Ledger, path: Path) -> None:
    keep(ledger, flat(1))
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            list(ledger.events())
            said = b"no error"
        except LedgerError as error:
            said = str(error).encode()
        ledger.close()  # closes nothing of the parent's
        os.write(write, said)
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"before a fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    assert (path.parent / "ledger.db-wal").exists(), "the parent still writes to it"
    keep(ledger, flat(2))
    with closing(open_url(f"sqlite:///{path}", create=False)) as again:
        assert [each.event.id for each in again.events()] == ["a1", "a2"]


def test_a_record_that_cannot_be_settled_holds_nothing_up(tmp_path: Path) -> None:
    """It went around `clean`: a time that no store can hold. It stays, is counted, is retried."""
    config = Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    for number in range(1, 30):
        writer.record(flat(number, started_at=2**63 + 7 if number == 11 else 1))
    writer.rotate()
    before = counters.snapshot().get("unsettled:OverflowError", 0)
    for times in (1, 2):
        done = drain(config)
        assert (done.unreadable, done.segments) == (1, 1)
        assert counters.snapshot()["unsettled:OverflowError"] == before + times
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        assert len(list(ledger.events())) == 28
        assert nets(ledger) == {("acme", "direct", "1970-01"): (28 * PICO, 28 * PICO)}
    assert len(list(config.spool.glob("*.seg"))) == 1


def test_a_new_line_of_the_books_is_forgotten_when_its_settlement_fails(ledger: Ledger) -> None:
    with contextlib.suppress(ZeroDivisionError), ledger.settling(1) as settlement:
        settle(settlement, [flat(1)])
        raise ZeroDivisionError
    keep(ledger, flat(2))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (PICO, PICO)}
    (event,) = ledger.events()
    assert event.decision is not None
    assert event.decision.rules == ("O4", "C6")


def test_refusals_of_every_process_are_counted(ledger: Ledger) -> None:
    with ledger.settling(1) as settlement:
        settlement.append_control(
            [
                Refusals("old", {"disk:28": 2}, 1),
                Counts("new", {"refused:disk:28": 3, "ladder:held": 7}, 1),
                Counts("new", {"refused:disk:28": 1}, 1),
            ]
        )
    assert ledger.counts("refused") == {"refused": 5}
