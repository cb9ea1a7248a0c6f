"""Opening a PostgreSQL ledger, and rebuilding it."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from postgres_books import ask, begin, flat, keep
from postgres_server import PostgresServer

from costspan.core.config import Config
from costspan.core.drain import add_observations
from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.core.rebuild import copy_books, nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger, open_url

# --- opening -------------------------------------------------------------------------------------


def test_reading_creates_nothing(url: str) -> None:
    with pytest.raises(LedgerMissing, match="costspan drain"):
        open_url(url, create=False)
    with psycopg.connect(url) as foreign:
        sql = "SELECT 1 FROM pg_namespace WHERE nspname = 'costspan'"
        assert foreign.execute(sql).fetchone() is None


def test_what_cannot_be_opened_is_said_without_the_password(postgres: PostgresServer) -> None:
    for url in (
        f"postgresql://who:secret@/nowhere?host={postgres.folder}",
        "postgresql://who:secret@127.0.0.1:1/x?password=secret",
        f"postgresql://who:secret@/nowhere?host={postgres.folder}&nonsense=1",
    ):
        with pytest.raises(LedgerError, match="cannot be opened") as raised:
            open_url(url, create=True)
        assert "secret" not in str(raised.value)


def test_the_password_is_not_in_the_name_of_a_ledger(url: str) -> None:
    with closing(open_url(url.replace("postgres@", "postgres:secret@"), create=True)) as ledger:
        assert ledger.url == url


def test_a_schema_whose_name_the_server_would_cut_is_refused(url: str) -> None:
    """Else two ledgers whose names begin alike would be one, with two leases."""
    for name in ("s" * 53, "é" * 27, "books_rebuilding"):
        with pytest.raises(LedgerError, match="at most 52 bytes"):
            open_url(f"{url}&schema={name}", create=True)
    with closing(open_url(f"{url}&schema={'s' * 52}", create=True)) as ledger:
        begin(ledger)
        keep(ledger, flat(1))
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
        assert [each.event.id for each in ledger.events()] == ["a1"]


# --- rebuilding ----------------------------------------------------------------------------------


def test_rebuilding_gives_the_same_books_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    config = Config(ledger=url, spool=tmp_path / "spool")
    add_observations(config, [flat(1), flat(2, parent="a1"), flat(3, cause="step", user="bob")])
    add_observations(config, [flat(1, usd="2"), Observation(oid="w:9", attempt_id="a4")])
    ask(url, "CREATE ROLE reader_of_books")
    ask(url, "GRANT SELECT ON lines, postings TO reader_of_books")
    with closing(open_url(url, create=True)) as ledger:
        before = (nets(ledger), list(ledger.events()), ledger.counts(), set(ledger.problems()))
        last = ledger.postings_after(0, -1)[-1][0]
        rebuild(config)
        counts = ledger.counts()
        assert (nets(ledger), list(ledger.events())) == before[:2]
        assert counts.pop("postings") <= before[2].pop("postings"), "revisions are not replayed"
        assert (counts, set(ledger.problems())) == before[2:]
        assert ledger.postings_after(0, -1)[0][0] > last, "no number is given twice"
        keep(ledger, flat(5, executed_model="other"))
        assert list(ledger.roll_ups()) == list(ledger.added_up())
    assert ask(url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'costspan%'") == [
        ("costspan",)
    ]
    with pytest.raises(psycopg.IntegrityError, match="append-only"):
        ask(url, "DELETE FROM postings")
    sql = "SELECT has_table_privilege('reader_of_books', 'costspan.{}', 'SELECT')"
    assert [ask(url, sql.format(name)) for name in ("lines", "postings", "journal")] == [
        [(True,)], [(True,)], [(False,)]
    ]  # fmt: skip
    ask(url, "DROP OWNED BY reader_of_books; DROP ROLE reader_of_books")


def test_a_rebuild_that_fails_changes_nothing_and_can_be_tried_again(ledger: Ledger) -> None:
    keep(ledger, flat(1))
    for _ in (1, 2):
        with suppress(ZeroDivisionError), ledger.rebuilding() as fresh:
            begin(fresh)
            keep(fresh, flat(2))
            raise ZeroDivisionError
    assert [each.event.id for each in ledger.events()] == ["a1"]
    keep(ledger, flat(3))


def test_a_rebuild_drops_nothing_that_is_somebody_elses(url: str) -> None:
    with closing(open_url(url, create=True)) as ledger:
        begin(ledger)
        ask(url, "CREATE SCHEMA costspan_rebuilding")
        ask(url, "CREATE TABLE costspan_rebuilding.precious (x int)")
        with pytest.raises(LedgerError, match="precious"), ledger.rebuilding():
            pytest.fail("it is rebuilt")
        ask(url, "SELECT * FROM costspan_rebuilding.precious")
