"""What a ledger keeps of invoices: versions, bytes, lines, reviews; and that nothing changes."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from costspan.core.invoices.invoice import Invoice, InvoiceLine, Review
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.rebuild import rebuild
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.sqlite.invoices import SqliteInvoices
from costspan.plugins.ledgers.sqlite.store import SqliteLedger

TABLES = ("documents", "invoices", "invoice_lines", "reviews")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    ledger = SqliteLedger(str(tmp_path / "ledger.db"), create=True)
    yield ledger
    ledger.close()


@pytest.fixture
def kept(ledger: SqliteLedger) -> SqliteInvoices:
    return SqliteInvoices(ledger.connection)


def invoice(raw: bytes, **facts: Any) -> Invoice:
    told: dict[str, Any] = {
        "source": "openai",
        "provider": "openai",
        "account": "",
        "period": "2026-11",
    }
    told |= {"version": 0, "imported_at": 7, "by": "mia", "currency": "USD"}
    return Invoice(**{"id": sha256(raw).hexdigest(), **told, "is_provisional": False, **facts})


def line(of: Invoice, number: int = 0, **facts: Any) -> InvoiceLine:
    told: dict[str, Any] = {"project": None, "day": "2026-11-05", "model": "gpt-4o", "tier": None}
    told |= {"component": "input", "category": "usage", "requests": None, "quantity": 3}
    told |= {"unit": "tokens", "amount": 5, "currency": of.currency, "description": "gpt-4o"}
    whose = {"invoice": of.id, "provider": of.provider, "account": of.account}
    return InvoiceLine(**{**whose, "number": number, **told, "is_provisional": False, **facts})


def test_other_bytes_are_the_next_version_and_the_same_are_none(kept: SqliteInvoices) -> None:
    first, second = invoice(b"a"), invoice(b"b")
    assert kept.keep(first, [line(first)], b"a").version == 1
    assert kept.keep(second, [], b"b").version == 2
    again = kept.keep(msgspec.structs.replace(first, by="eve"), [line(first, 9)], b"a")
    assert (again.version, again.by) == (1, "mia")
    for other in ({"account": "x"}, {"period": "2026-12"}, {"provider": "azure"}):
        apart = invoice(repr(other).encode(), **other)
        assert kept.keep(apart, [], b"c").version == 1
    assert [each.version for each in kept.invoices("2026-11") if each.provider == "openai"] == [
        *(1, 2, 1)
    ]
    assert [each.id for each in kept.current("2026-11") if each.account == ""] == [
        *(invoice(b"{'provider': 'azure'}").id, second.id)
    ]
    assert len(kept.invoices()) == 5


@pytest.mark.parametrize("amount", [0, 1, -1, 10**12, -(10**12) - 1, 5 * 10**29, -7 * 10**25 - 3])
def test_amounts_of_any_size_come_back_exactly(kept: SqliteInvoices, amount: int) -> None:
    one = invoice(b"a")
    lines = [line(one, number, amount=amount) for number in range(3)]
    kept.keep(one, lines, b"a")
    assert list(kept.lines(one.id)) == lines
    assert kept.line(one.id, 2) == lines[2]
    assert kept.line(one.id, 3) is None
    assert kept.sums(one.id) == {"usage": (3, 3 * amount)}


def test_nothing_of_a_document_with_one_bad_line_is_kept(kept: SqliteInvoices) -> None:
    one = invoice(b"a")
    for bad in (
        line(one, 1, invoice="f" * 64),
        line(one, 2),
        line(one, 1, currency="EUR"),
        line(one, 1, currency="", amount=1),
    ):
        with pytest.raises(ValueError, match="line"):
            kept.keep(one, [line(one), bad], b"a")
    with pytest.raises(LedgerError, match="nothing of it was kept"):
        kept.keep(one, [line(one, category=None)], b"a")
    assert kept.invoices() == []
    assert list(kept.lines(one.id)) == []
    kept.keep(one, [line(one), line(one, 1, currency="", amount=0)], b"a")


def test_the_bytes_are_kept_and_looked_at(kept: SqliteInvoices, ledger: SqliteLedger) -> None:
    one, other = invoice(b"raw" * 1000), invoice(b"", account="x")
    kept.keep(one, [], b"raw" * 1000)
    kept.keep(other, [], b"raw" * 1000)
    assert kept.raw(one.id) == kept.raw(other.id) == b"raw" * 1000
    assert ledger.connection.execute("SELECT count(*) FROM documents").fetchone() == (1,)
    with pytest.raises(LookupError):
        kept.raw("none")
    ledger.connection.execute("DROP TRIGGER documents_no_update")
    good = ledger.connection.execute("SELECT packed FROM documents").fetchone()[0]
    for packed in (good[:-1] + b"x", zlib.compress(b"other")):
        ledger.connection.execute("UPDATE documents SET packed = ?", (packed,))
        with pytest.raises(LedgerError, match=r"damaged|not what was imported"):
            kept.raw(one.id)


def test_reviews_are_appended(kept: SqliteInvoices) -> None:
    told = [
        Review(variance="v", state="open", by="mia", note="?", at=1),
        Review(variance="v", state="accepted", by="joe", note="!", at=0),
    ]
    for each in told:
        kept.keep_review(each)
    assert kept.reviews() == told


@pytest.mark.parametrize("table", TABLES)
def test_nothing_kept_can_be_changed(
    kept: SqliteInvoices, ledger: SqliteLedger, table: str
) -> None:
    one = invoice(b"a")
    kept.keep(one, [line(one)], b"a")
    kept.keep_review(Review(variance="v", state="open", by="mia", note="", at=1))
    connection = ledger.connection
    row = connection.execute(f"SELECT * FROM {table}").fetchone()  # noqa: S608 -- TABLES
    marks = ",".join("?" * len(row))
    for sql, values in (
        (f"DELETE FROM {table}", ()),  # noqa: S608
        (f"UPDATE {table} SET crc = 0", ()),  # noqa: S608
        (f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row),  # noqa: S608
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(sql, values)
    assert connection.execute(f"SELECT * FROM {table}").fetchall() == [row]  # noqa: S608
    assert checksum(*row[:-1]) == row[-1]


def test_no_line_joins_an_invoice_that_stands(kept: SqliteInvoices, ledger: SqliteLedger) -> None:
    one = invoice(b"a")
    kept.keep(one, [line(one)], b"a")
    more = "INSERT INTO invoice_lines SELECT invoice, number + 1, provider, account, project, day,"
    more += " model, component, tier, category, requests, quantity, unit, whole, pico, currency,"
    more += " description, is_provisional, crc FROM invoice_lines"
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        ledger.connection.execute(more)


def test_a_rebuild_leaves_invoices_alone(
    kept: SqliteInvoices, ledger: SqliteLedger, tmp_path: Path
) -> None:
    from costspan.core import config

    one = invoice(b"a")
    kept.keep(one, [line(one)], b"a")
    kept.keep_review(Review(variance="v", state="open", by="mia", note="", at=1))
    rebuild(config.load({"ledger": ledger.url, "spool": str(tmp_path / "spool")}))
    assert [each.id for each in kept.invoices()] == [one.id]
    assert (kept.raw(one.id), list(kept.lines(one.id))) == (b"a", [line(one)])
    assert len(kept.reviews()) == 1


def test_a_settler_in_its_transaction_keeps_invoices_waiting(ledger: SqliteLedger) -> None:
    other = SqliteLedger(ledger.path, create=True)
    connection = other.connection
    with ledger.settling(0):
        store = SqliteInvoices(connection, wait_ms=0)
        with pytest.raises(LedgerBusy):
            store.keep_review(Review(variance="v", state="open", by="mia", note="", at=1))
    store.keep_review(Review(variance="v", state="open", by="mia", note="", at=1))
    other.close()
