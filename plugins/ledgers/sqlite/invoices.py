"""Invoices in the ledger's file: tables of their own (invoices.sql), append-only by trigger."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from costspan.core.invoices.invoice import Invoice, InvoiceLine, Review
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.money import PICO
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.invoicing import checked, unpacked

_WAIT_MS = 30_000

_INVOICE = (
    "SELECT id, source, provider, account, period, version, imported_at, imported_by, currency,"
    " is_provisional FROM invoices"
)
_IN_ORDER = " ORDER BY period, source, provider, account, version"
_LINE = (
    "SELECT number, provider, account, project, day, model, component, tier, category, requests,"
    " quantity, unit, whole, pico, currency, description, is_provisional FROM invoice_lines"
    " WHERE invoice = (SELECT n FROM invoices WHERE id = ?)"
)
_COLUMNS = {"documents": 4, "invoices": 13, "invoice_lines": 19, "reviews": 7}
_NEXT = "SELECT coalesce(max(n), 0) + 1 FROM invoices"


class SqliteInvoices:
    """An `InvoiceStore` over a connection whose database holds the tables of invoices.sql.

    The connection is in autocommit mode (`isolation_level=None`), as a ledger's is; every write is
    a transaction of its own.
    """

    def __init__(self, connection: sqlite3.Connection, wait_ms: int = _WAIT_MS) -> None:
        self._connection = connection
        self._wait_ms = wait_ms

    def keep(self, invoice: Invoice, lines: Iterable[InvoiceLine], raw: bytes) -> Invoice:
        """Keep a document and its lines, all or nothing; an id that is kept already stays."""
        digest = hashlib.sha256(raw).hexdigest()
        with self._writing() as connection:
            if (kept := self._one(invoice.id)) is not None:
                return kept
            (number,) = connection.execute(_NEXT).fetchone()
            (version,) = connection.execute(
                "SELECT coalesce(max(version), 0) + 1 FROM invoices"
                " WHERE period = ? AND source = ? AND provider = ? AND account = ?",
                (invoice.period, invoice.source, invoice.provider, invoice.account),
            ).fetchone()
            known = "SELECT 1 FROM documents WHERE sha256 = ?"
            if connection.execute(known, (digest,)).fetchone() is None:
                self._insert("documents", [(digest, len(raw), zlib.compress(raw))])
            rows = ((number, *_row(line)) for line in checked(invoice, lines))
            self._insert("invoice_lines", rows)
            invoice = msgspec.structs.replace(invoice, version=version)
            row = (
                *(number, invoice.id, digest, invoice.source, invoice.provider, invoice.account),
                *(invoice.period, version, invoice.imported_at, invoice.by, invoice.currency),
                int(invoice.is_provisional),
            )
            self._insert("invoices", [row])
        return invoice

    def invoices(self, period: str | None = None) -> list[Invoice]:
        """Every version, of one period or of all."""
        sql = f"{_INVOICE} WHERE ? IS NULL OR period = ? {_IN_ORDER}"
        return [_invoice(row) for row in self._connection.execute(sql, (period, period))]

    def current(self, period: str) -> list[Invoice]:
        """The latest version of each source, provider and account of a period."""
        latest = {
            (each.source, each.provider, each.account): each for each in self.invoices(period)
        }
        return list(latest.values())

    def documents(self, period: str) -> dict[str, str]:
        """Invoice id -> SHA-256 of the document it was read from."""
        sql = "SELECT id, document FROM invoices WHERE period = ?"
        return dict(self._connection.execute(sql, (period,)).fetchall())

    def lines(self, invoice_id: str) -> Iterator[InvoiceLine]:
        """The lines of an invoice in their order."""
        for row in self._connection.execute(f"{_LINE} ORDER BY number", (invoice_id,)):
            yield _line(invoice_id, row)

    def line(self, invoice_id: str, number: int) -> InvoiceLine | None:
        """One line of an invoice."""
        sql = f"{_LINE} AND number = ?"
        row = self._connection.execute(sql, (invoice_id, number)).fetchone()
        return None if row is None else _line(invoice_id, row)

    def sums(self, invoice_id: str) -> dict[str, tuple[int, int]]:
        """Category -> lines and pico; no partial sum can overflow an integer of SQLite."""
        sql = (
            "SELECT category, count(*), sum(whole), sum(pico / 1000000), sum(pico % 1000000)"
            " FROM invoice_lines WHERE invoice = (SELECT n FROM invoices WHERE id = ?)"
            " GROUP BY category ORDER BY category"
        )
        return {
            category: (lines, whole * PICO + millions * 10**6 + rest)
            for category, lines, whole, millions, rest in self._connection.execute(
                sql, (invoice_id,)
            )
        }

    def raw(self, invoice_id: str) -> bytes:
        """The bytes of the document of an invoice, checked against their sha256."""
        row = self._connection.execute(
            "SELECT sha256, packed FROM invoices JOIN documents ON sha256 = document WHERE id = ?",
            (invoice_id,),
        ).fetchone()
        if row is None:
            raise LookupError(f"no invoice {invoice_id}")
        digest, packed = row
        return unpacked(invoice_id, digest, packed)

    def keep_review(self, review: Review) -> None:
        """Append what somebody decided about a variance."""
        with self._writing() as connection:
            sql = "SELECT coalesce(max(n), 0) + 1 FROM reviews"
            (number,) = connection.execute(sql).fetchone()
            row = (number, review.variance, review.state, review.by, review.note, review.at)
            self._insert("reviews", [row])

    def reviews(self) -> list[Review]:
        """Every review, in the order they were kept."""
        sql = "SELECT variance, state, reviewed_by, note, at FROM reviews ORDER BY n"
        return [
            Review(variance=variance, state=state, by=by, note=note, at=at)
            for variance, state, by, note, at in self._connection.execute(sql)
        ]

    def _insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Rows of a table of ours, each with its checksum as the last column."""
        marks = ",".join("?" * _COLUMNS[table])
        self._connection.executemany(
            f"INSERT INTO {table} VALUES ({marks})",  # noqa: S608 -- a name of invoices.sql
            ((*row, checksum(*row)) for row in rows),
        )

    def _one(self, invoice_id: str) -> Invoice | None:
        row = self._connection.execute(f"{_INVOICE} WHERE id = ?", (invoice_id,)).fetchone()
        return None if row is None else _invoice(row)

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        connection = self._connection
        connection.execute(f"PRAGMA busy_timeout = {self._wait_ms}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            kind = LedgerBusy if is_busy else LedgerError
            raise kind(f"the ledger cannot be written ({error}); nothing was kept") from error
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise LedgerError(
                    f"the ledger could not be written ({error}); nothing of it was kept"
                ) from error
            raise


def _row(line: InvoiceLine) -> tuple[Any, ...]:
    whole, pico = divmod(line.amount, PICO)
    return (
        *(line.number, line.provider, line.account, line.project, line.day, line.model),
        *(line.component, line.tier, line.category, line.requests, line.quantity, line.unit),
        *(whole, pico, line.currency, line.description, int(line.is_provisional)),
    )


def _invoice(row: tuple[Any, ...]) -> Invoice:
    return Invoice(
        id=row[0],
        source=row[1],
        provider=row[2],
        account=row[3],
        period=row[4],
        version=row[5],
        imported_at=row[6],
        by=row[7],
        currency=row[8],
        is_provisional=bool(row[9]),
    )


def _line(invoice_id: str, row: tuple[Any, ...]) -> InvoiceLine:
    return InvoiceLine(
        invoice=invoice_id,
        number=row[0],
        provider=row[1],
        account=row[2],
        project=row[3],
        day=row[4],
        model=row[5],
        component=row[6],
        tier=row[7],
        category=row[8],
        requests=row[9],
        quantity=row[10],
        unit=row[11],
        amount=row[12] * PICO + row[13],
        currency=row[14],
        description=row[15],
        is_provisional=bool(row[16]),
    )
