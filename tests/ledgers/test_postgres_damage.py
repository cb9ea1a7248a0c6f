"""Books with something in every table: as sound as SQLite's, and one flipped byte is found."""

# ruff: noqa: S608 -- names of our own tables

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from everything import differences, everything
from full_books import full
from postgres_server import PostgresServer
from psycopg.rows import dict_row

from costspan.core.invoices.invoice import Review
from costspan.core.privacy.erasure import erase
from costspan.core.rebuild import copy_books, nets
from costspan.core.retention import prune, restore
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

NAMED_BY = {
    "writers": "journal", "events": "event ", "places": "events", "postings": "event ",
    "lines": "line",
}  # fmt: skip
MEANS_NOTHING = {
    ("meta", "rebuilt"),  # another number makes connections look up their lines anew
    ("price_books", "n"),
}
EMPTY = {"archived", "charge_books", "copied", "reviews"}
COLUMNS = """
    SELECT relname, attname, format_type(atttypid, NULL),
           attnum = ANY(coalesce((SELECT indkey::int2[] FROM pg_index
                                  WHERE indrelid = c.oid AND indisprimary), '{1}'))
    FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0
    WHERE relnamespace = 'costspan'::regnamespace AND relkind = 'r' ORDER BY relname, attnum"""
FLIPPED = {
    "text": "overlay({0} PLACING chr(ascii(substr({0}, length({0}) / 2 + 1, 1)) # 1)"
    " FROM length({0}) / 2 + 1 FOR 1)",
    "bigint": "{0} # 1",
    "numeric": "{0} + 1",
    "boolean": "NOT {0}",
    "bytea": "set_byte({0}, length({0}) / 2, get_byte({0}, length({0}) / 2) # 1)",
}


@pytest.fixture(scope="module")
def place(postgres: PostgresServer) -> Iterator[str]:
    found = postgres.database()
    full(found).close()  # type: ignore[arg-type]
    yield found
    postgres.drop(found)


@pytest.fixture(scope="module")
def ledger(place: str) -> Iterator[Ledger]:
    with closing(open_url(place, create=False)) as opened:
        yield opened


def found(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


def owner(place: str) -> psycopg.Connection[tuple[object, ...]]:
    connection = psycopg.connect(place, autocommit=True)
    connection.execute("SET search_path = costspan")
    return connection


def test_sound_books_verify(ledger: Ledger) -> None:
    assert found(ledger) == []


def test_both_ledgers_hold_the_same_full_books(ledger: Ledger, tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as other:
        one, two = everything(other), everything(ledger)
        for each in (one, two):
            del each["events"], each["these"], each["untold"], each["journal"]  # pseudonyms differ
            del each["observations"]
        assert differences(one, two) == []
        assert nets(other) == nets(ledger)
        assert list(other.invoices.invoices()) == list(ledger.invoices.invoices())
        (invoice,) = ledger.invoices.current("2026-02")
        assert list(ledger.invoices.lines(invoice.id)) == list(other.invoices.lines(invoice.id))
        assert ledger.invoices.sums(invoice.id) == other.invoices.sums(invoice.id)
        assert ledger.invoices.raw(invoice.id) == other.invoices.raw(invoice.id)
        assert ledger.invoices.line(invoice.id, 0) == other.invoices.line(invoice.id, 0)


def test_a_flipped_byte_of_any_column_is_named(ledger: Ledger, place: str) -> None:
    flips = 0
    missed: list[object] = []
    with closing(owner(place)) as db:
        columns = db.execute(COLUMNS).fetchall()
        keys: dict[object, list[object]] = {}
        for table, column, _, is_key in columns:
            if is_key:
                keys.setdefault(table, []).append(column)
        for table, column, kind, _ in columns:
            key = ", ".join(map(str, keys[table]))
            changed = FLIPPED[str(kind)].format(column)
            sql = f"""
                UPDATE {table} SET {column} = {changed}
                WHERE ({key}) = (SELECT {key} FROM {table} WHERE {column} IS NOT NULL
                                 AND {column}::text != '' ORDER BY {key} DESC LIMIT 1)
                RETURNING *"""
            undo = f"""
                DELETE FROM {table};
                INSERT INTO {table} SELECT * FROM pg_temp.kept"""
            db.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}".encode())
            db.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            try:
                with db.cursor(row_factory=dict_row) as cursor:
                    changed_rows = cursor.execute(sql.encode()).fetchall()
            except (psycopg.IntegrityError, psycopg.DataError):
                changed_rows = []
            always(db, str(table))
            if changed_rows and (table, changed_rows[0].get("key", column)) not in MEANS_NOTHING:
                flips += 1
                names = (str(table), NAMED_BY.get(str(table), str(table)))
                is_named = any(text.startswith(names) for text in ledger.damaged())
                what = [] if is_named else found(ledger)
                if not (is_named or any(name in text for text in what for name in names)):
                    missed.append((table, column, what))
            db.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            db.execute(f"BEGIN; {undo}; COMMIT".encode())
            always(db, str(table))
            db.execute("DROP TABLE pg_temp.kept")
    assert missed == []
    assert flips > 90
    assert found(ledger) == []


def always(db: psycopg.Connection[tuple[object, ...]], table: str) -> None:
    db.execute(
        f"""DO $$ DECLARE t name; BEGIN
            FOR t IN SELECT tgname FROM pg_trigger
                WHERE tgrelid = 'costspan.{table}'::regclass AND NOT tgisinternal
            LOOP EXECUTE format('ALTER TABLE costspan.{table} ENABLE ALWAYS TRIGGER %I', t);
            END LOOP; END $$""".encode()
    )


def test_a_trigger_that_is_asleep_is_named(ledger: Ledger, place: str) -> None:
    with closing(owner(place)) as db:
        db.execute("ALTER TABLE postings DISABLE TRIGGER postings_append_only")
        (what,) = found(ledger)
        assert "the trigger postings_append_only is gone, or does not always fire" in what
        always(db, "postings")
    assert found(ledger) == []


@pytest.mark.parametrize(
    ("gone", "named"),
    [("events", "places {} (a1): there is no such event"), ("places", "events {}")],
)
def test_half_of_an_event_is_named(ledger: Ledger, place: str, gone: str, named: str) -> None:
    with closing(owner(place)) as db:
        row = db.execute("SELECT n FROM places WHERE id = 'a1'").fetchone()
        assert row is not None
        db.execute(f"CREATE TEMP TABLE half AS SELECT * FROM {gone} WHERE n = {row[0]}".encode())
        db.execute(f"DELETE FROM {gone} WHERE n = {row[0]}".encode())
        try:
            assert [each for each in ledger.damaged() if each.startswith(named.format(row[0]))]
        finally:
            db.execute(f"INSERT INTO {gone} SELECT * FROM pg_temp.half".encode())
    assert found(ledger) == []


def test_invoices_and_reviews_are_only_ever_added_to(ledger: Ledger, place: str) -> None:
    ledger.invoices.keep_review(Review(variance="v", state="open", by="ann", note="a\0b", at=1))
    assert [each.note for each in ledger.invoices.reviews()] == ["a\0b"]
    assert found(ledger) == []
    with closing(owner(place)) as db:
        for table in ("documents", "invoices", "invoice_lines", "reviews"):
            for change in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
                with pytest.raises(psycopg.IntegrityError, match="append-only"):
                    db.execute(change.encode())
        with pytest.raises(psycopg.IntegrityError, match="append-only"):
            db.execute(
                """INSERT INTO invoice_lines SELECT invoice, number + 9, provider, account, project,
                   day, model, component, tier, category, requests, quantity, unit, amount,
                   currency, description, is_provisional, crc FROM invoice_lines"""
            )


def test_pruning_erasing_and_rebuilding(place: str, tmp_path: Path) -> None:
    with closing(open_url(place, create=True)) as ledger:
        before = (nets(ledger), list(ledger.events()), sorted(map(repr, ledger.journal())))
        kept = ledger.counts("observations")
        pruned = prune(ledger, "2026-03", tmp_path, "ann", "old", 5)
        assert pruned is not None
        assert ledger.archive.count() == pruned.observations > 0
        assert found(ledger) == []
        assert restore(ledger, tmp_path).observations == pruned.observations
        assert (nets(ledger), list(ledger.events()), sorted(map(repr, ledger.journal()))) == before
        assert ledger.counts("observations") == kept
        done = erase(ledger, user="person-1", by="ann", reason="asked for it", now_ns=9)
        assert done.is_compact
        assert ledger.persons.pseudonym_of("person-1") is None
        assert ledger.persons.pseudonym_of("person-2") is not None
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
            assert nets(fresh) == before[0]
        assert (nets(ledger), list(ledger.events()), sorted(map(repr, ledger.journal()))) == before
        assert found(ledger) == []
