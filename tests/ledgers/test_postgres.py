"""The PostgreSQL ledger: append-only, one settler, wide sums, and connections that break."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_books import ask, begin, flat, keep
from postgres_server import PostgresServer

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.recorder import Recorder
from costspan.core.settle import settle
from costspan.core.settle.entries import Amount, Line, Posting
from costspan.core.settle.ledger import Ledger, open_url

LINE = Line("acme", "direct", None, "2026-01", "2026-01-31", "gpt-4o")


# --- append-only ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE postings SET cost = 0",
        "DELETE FROM postings",
        "TRUNCATE postings",
        "TRUNCATE lines, postings CASCADE",
        "INSERT INTO postings SELECT * FROM postings ON CONFLICT (id) DO UPDATE SET cost = 0",
        "MERGE INTO postings AS p USING postings AS o ON p.id = o.id"
        " WHEN MATCHED THEN UPDATE SET cost = 0",
        "SET session_replication_role = 'replica'; DELETE FROM postings",
    ],
)
def test_postings_are_only_ever_added_to(
    postgres: PostgresServer, ledger: Ledger, url: str, statement: str
) -> None:
    if statement.startswith("MERGE") and postgres.version < 15:
        pytest.skip("PostgreSQL knows no MERGE before 15")
    keep(ledger, flat(1), flat(2))
    before = ledger.postings("a1")
    with pytest.raises(psycopg.IntegrityError, match="append-only"):
        ask(url, statement)
    with pytest.raises(psycopg.IntegrityError, match="duplicate key"):
        ask(url, "INSERT INTO postings SELECT * FROM postings")
    assert ledger.postings("a1") == before != []


def test_the_lines_of_the_books_keep_their_names(ledger: Ledger, url: str) -> None:
    keep(ledger, flat(1))
    with pytest.raises(psycopg.IntegrityError, match="keep their names"):
        ask(url, "UPDATE lines SET owner = 'globex'")


# --- sums ----------------------------------------------------------------------------------------


def test_sums_are_wider_than_any_integer_of_the_store(ledger: Ledger) -> None:
    keep(ledger, *(flat(number, "9000000") for number in range(1, 6)))
    (roll_up,) = ledger.roll_ups()
    assert (roll_up.cost, roll_up.events) == (45_000_000 * PICO, 5)
    assert roll_up.cost > 2**63
    assert list(ledger.added_up()) == [roll_up]
    ((_, total),) = ledger.sums(())
    assert total == (45_000_000 * PICO, 45_000_000 * PICO, 5)


@settings(max_examples=8)
@given(
    amounts=st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-9, 9)), max_size=8),
    data=st.data(),
)
def test_roll_ups_are_the_same_in_any_batching(
    postgres: PostgresServer, amounts: list[tuple[int, int]], data: st.DataObject
) -> None:
    postings = [Posting("e", LINE, "2026-01", Amount(*amount), 0) for amount in amounts]
    cut = data.draw(st.integers(0, len(postings)))
    url = postgres.database()
    with closing(open_url(url, create=True)) as ledger:
        for batch in (postings[:cut], postings[cut:]):
            with ledger.settling(0) as settlement:
                settlement.post(batch)
        total = tuple(map(sum, zip(*amounts, strict=True))) if amounts else (0, 0)
        for found in (ledger.roll_ups(), ledger.added_up()):
            assert [(each.cost, each.charge) for each in found] == ([total] if any(total) else [])
    postgres.drop(url)


# --- who may write -------------------------------------------------------------------------------


def test_one_settler_at_a_time(ledger: Ledger, url: str) -> None:
    with closing(open_url(url, create=True)) as other:
        busy = pytest.raises(LedgerBusy, match="records stay in the spool")
        with ledger.settling(1), busy, other.settling(0):
            pytest.fail("two settlers")
        keep(other, flat(1))
        twice = pytest.raises(LedgerError, match="by this very process")
        with ledger.settling(1), twice, ledger.settling(0):
            pytest.fail("one settler twice")
    assert [each.event.id for each in ledger.events()] == ["a1"]


def test_ledgers_of_two_schemas_do_not_wait_for_each_other(ledger: Ledger, url: str) -> None:
    with closing(open_url(f"{url}&schema=other", create=True)) as other, ledger.settling(1):
        begin(other)
        keep(other, flat(1))
        assert other.counts("events") == {"events": 1}
    assert ledger.counts("events") == {"events": 0}


def test_a_settlement_that_fails_changes_nothing(ledger: Ledger) -> None:
    keep(ledger, flat(1))
    with suppress(ZeroDivisionError), ledger.settling(1) as settlement:
        settle(settlement, [flat(2, executed_model="other")])
        raise ZeroDivisionError
    assert [each.event.id for each in ledger.events()] == ["a1"]
    keep(ledger, flat(2, executed_model="other"))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (2 * PICO, 2 * PICO)}
    assert list(ledger.roll_ups()) == list(ledger.added_up())


def test_a_settler_reads_what_it_wrote_and_others_do_not(ledger: Ledger, url: str) -> None:
    with closing(open_url(url, create=False)) as other:
        with ledger.settling(1) as settlement:
            settle(settlement, [flat(1)])
            assert [each.event.id for each in ledger.events()] == ["a1"]
            assert list(other.events()) == []
        assert [each.event.id for each in other.events()] == ["a1"]


def test_a_snapshot_is_one_state_of_the_books(ledger: Ledger, url: str) -> None:
    keep(ledger, flat(1))
    with closing(open_url(url, create=False)) as reader:
        with reader.snapshot():
            assert reader.counts("events") == {"events": 1}
            keep(ledger, flat(2))
            assert len(list(reader.events())) == 1
        assert len(list(reader.events())) == 2
        begun = reader.events()
        next(begun)
        keep(ledger, flat(3))
        assert [each.event.id for each in begun] == ["a2"]
        keep(reader, flat(4))
        assert len(list(reader.events())) == 4


def test_a_connection_does_not_cross_a_fork(ledger: Ledger, url: str) -> None:
    keep(ledger, flat(1))
    said, tell = os.pipe()
    ledger.reading().cursors()
    if (pid := os.fork()) == 0:
        told = b"no error"
        try:
            list(ledger.events())
        except LedgerError as error:
            told = str(error).encode()
        ledger.close()  # closes nothing of the parent's
        with suppress(LedgerError), ledger.settling(1):
            told = b"settles"
        with closing(open_url(url, create=True)) as own:
            keep(own, flat(3))
        os.write(tell, told)
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"before a fork" in os.read(said, 1000)
    os.close(said)
    os.close(tell)
    keep(ledger, flat(2))
    assert [each.event.id for each in ledger.events()] == ["a1", "a2", "a3"]


# --- connections that break ----------------------------------------------------------------------


def test_a_connection_lost_in_the_middle_changes_nothing_and_is_replaced(
    ledger: Ledger, url: str
) -> None:
    keep(ledger, flat(1))
    list(ledger.events())
    lost = pytest.raises(LedgerError, match="records stay in the spool")
    with lost, ledger.settling(1) as settlement:
        settle(settlement, [flat(2)])
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
        ask(url, f"{end} AND datname = current_database()")
        settle(settlement, [flat(3)])
    with suppress(LedgerError):
        ledger.counts()  # the reader's is noticed when it is used
    assert [each.event.id for each in ledger.events()] == ["a1"]
    keep(ledger, flat(2), flat(3))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (3 * PICO, 3 * PICO)}


def test_a_killed_server_loses_nothing_that_was_committed(
    postgres: PostgresServer, ledger: Ledger
) -> None:
    keep(ledger, flat(1))
    lost = pytest.raises(LedgerError, match="records stay in the spool")
    with lost, ledger.settling(1) as settlement:
        settle(settlement, [flat(2)])
        postgres.kill()
        settle(settlement, [flat(3)])
    with pytest.raises(LedgerError, match="cannot be opened"):
        keep(ledger, flat(2))
    postgres.start()
    keep(ledger, flat(1), flat(2))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (2 * PICO, 2 * PICO)}


def test_a_server_that_is_down_costs_nothing_but_disk(
    postgres: PostgresServer, ledger: Ledger, url: str, tmp_path: Path
) -> None:
    config = Config(ledger=url, spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    for number in range(1, 30):
        writer.record(flat(number))
    writer.rotate()
    postgres.kill()
    with pytest.raises(LedgerError):
        drain(config)
    assert len(list(config.spool.glob("*.seg"))) == 1
    postgres.start()
    assert drain(config).settled.observations == 29
    assert list(config.spool.glob("*.seg")) == []
