"""Invoices in tables of their own, beside the books; append-only by trigger."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec

from costspan.core.invoices.invoice import Invoice, InvoiceLine, Review
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.invoicing import checked, unpacked
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.postgres.migrations import lease

_WAIT_MS = 30_000
_INVOICE = (
    "id, source, provider, account, period, version, imported_at, imported_by, currency,"
    " is_provisional"
)
_LINE = (
    "number, provider, account, project, day, model, component, tier, category, requests,"
    " quantity, unit, amount, currency, description, is_provisional"
)
_OF = "invoice = (SELECT n FROM invoices WHERE id = %s)"
_KINDS = {
    "invoice": "bigint", "number": "bigint", "requests": "bigint", "quantity": "bigint",
    "amount": "numeric", "is_provisional": "boolean", "crc": "bigint",
}  # fmt: skip
_LINES = {name: _KINDS.get(name, "text") for name in f"invoice, {_LINE}, crc".split(", ")}


class PostgresInvoices:
    """An `InvoiceStore`; every write is a transaction of its own, one at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def keep(self, invoice: Invoice, lines: Iterable[InvoiceLine], raw: bytes) -> Invoice:
        """Keep a document and its lines, all or nothing; an id that is kept already stays."""
        digest = hashlib.sha256(raw).hexdigest()
        with self._writing():
            if (kept := self._one(invoice.id)) is not None:
                return kept
            number = self._next("SELECT max(n) FROM invoices")
            version = self._next(
                "SELECT max(version) FROM invoices"
                " WHERE period = %s AND source = %s AND provider = %s AND account = %s",
                invoice.period, invoice.source, invoice.provider, invoice.account,
            )  # fmt: skip
            if self._db.one("SELECT 1 FROM documents WHERE sha256 = %s", digest) is None:
                self._insert("documents", (digest, len(raw), zlib.compress(raw)))
            self._keep_lines(number, checked(invoice, lines))
            invoice = msgspec.structs.replace(invoice, version=version)
            self._insert(
                "invoices",
                (number, invoice.id, digest, invoice.source, invoice.provider, invoice.account,
                 invoice.period, version, invoice.imported_at, invoice.by, invoice.currency,
                 invoice.is_provisional),
            )  # fmt: skip
        return invoice

    def _keep_lines(self, invoice: int, lines: Iterable[InvoiceLine]) -> None:
        rows: list[Row] = []
        for line in lines:
            row = (
                invoice, line.number, line.provider, line.account, line.project, line.day,
                line.model, line.component, line.tier, line.category, line.requests, line.quantity,
                line.unit, line.amount, line.currency, line.description, line.is_provisional,
            )  # fmt: skip
            rows.append((*row, _crc(row)))
        source, bound = self._db.load("billed", _LINES, rows)
        columns = ", ".join(_LINES)
        self._db.run(f"INSERT INTO invoice_lines ({columns}) SELECT * FROM {source}", *bound)  # noqa: S608

    def invoices(self, period: str | None = None) -> list[Invoice]:
        """Every version, of one period or of all."""
        sql = f"""
            SELECT {_INVOICE} FROM invoices WHERE %s::text IS NULL OR period = %s
            ORDER BY period, source, provider, account, version"""  # noqa: S608
        return [_invoice(row) for row in self._db.rows(sql, period, period)]

    def current(self, period: str) -> list[Invoice]:
        """The latest version of each source, provider and account of a period."""
        latest = {
            (each.source, each.provider, each.account): each for each in self.invoices(period)
        }
        return list(latest.values())

    def documents(self, period: str) -> dict[str, str]:
        """Invoice id -> SHA-256 of the document it was read from."""
        sql = "SELECT id, document FROM invoices WHERE period = %s"
        return {row[0]: row[1] for row in self._db.rows(sql, period)}

    def lines(self, invoice_id: str) -> Iterator[InvoiceLine]:
        """The lines of an invoice in their order."""
        sql = f"SELECT {_LINE} FROM invoice_lines WHERE {_OF} ORDER BY number"  # noqa: S608
        for row in self._db.each(sql, invoice_id):
            yield _line(invoice_id, row)

    def line(self, invoice_id: str, number: int) -> InvoiceLine | None:
        """One line of an invoice."""
        sql = f"SELECT {_LINE} FROM invoice_lines WHERE {_OF} AND number = %s"  # noqa: S608
        row = self._db.one(sql, invoice_id, number)
        return None if row is None else _line(invoice_id, row)

    def sums(self, invoice_id: str) -> dict[str, tuple[int, int]]:
        """Category -> how many lines of an invoice are of it, and their amounts in pico."""
        sql = f"""
            SELECT category, count(*), sum(amount) FROM invoice_lines WHERE {_OF}
            GROUP BY category ORDER BY category"""  # noqa: S608
        return {row[0]: (int(row[1]), int(row[2])) for row in self._db.rows(sql, invoice_id)}

    def raw(self, invoice_id: str) -> bytes:
        """The bytes of the document of an invoice, checked against their sha256."""
        row = self._db.one(
            "SELECT sha256, packed FROM invoices JOIN documents ON sha256 = document WHERE id = %s",
            invoice_id,
        )
        if row is None:
            raise LookupError(f"no invoice {invoice_id}")
        return unpacked(invoice_id, row[0], row[1])

    def keep_review(self, review: Review) -> None:
        """Append what somebody decided about a variance."""
        with self._writing():
            number = self._next("SELECT max(n) FROM reviews")
            row = (number, review.variance, review.state, review.by, review.note, review.at)
            self._insert("reviews", row)

    def reviews(self) -> list[Review]:
        """Every review, in the order they were kept."""
        sql = "SELECT variance, state, reviewed_by, note, at FROM reviews ORDER BY n"
        return [
            Review(variance=variance, state=state, by=by, note=note, at=at)
            for variance, state, by, note, at in self._db.rows(sql)
        ]

    def _one(self, invoice_id: str) -> Invoice | None:
        sql = f"SELECT {_INVOICE} FROM invoices WHERE id = %s"  # noqa: S608
        row = self._db.one(sql, invoice_id)
        return None if row is None else _invoice(row)

    def _next(self, sql: str, *bound: Any) -> int:
        row = self._db.one(sql, *bound)
        return 1 if row is None or row[0] is None else int(row[0]) + 1

    def _insert(self, table: str, row: Row) -> None:
        """A row of a table of ours, with its checksum as the last column."""
        marks = ", ".join(["%s"] * (len(row) + 1))
        self._db.run(f"INSERT INTO {table} VALUES ({marks})", *row, _crc(row))  # noqa: S608

    @contextmanager
    def _writing(self) -> Generator[None]:
        """A transaction; those of invoices and of reviews wait for one another, not for settlers.

        Raises:
            LedgerBusy: if another is under way for too long.
        """
        try:
            self._db.begin(
                f"SET LOCAL lock_timeout = {_WAIT_MS};"
                f" {lease(self._db.place.schema + ' invoices')}; SET LOCAL lock_timeout = 0"
            )
        except LedgerError as error:
            self._db.roll_back()
            raise LedgerBusy(f"{error}; nothing was kept") from error
        try:
            yield
            self._db.script("COMMIT")
        finally:
            self._db.roll_back()


def _crc(row: Row) -> int:
    """The checksum of a row: as everywhere, of integers and texts alone."""
    return checksum(*(str(value) if isinstance(value, int) else value for value in row))


def _invoice(row: Row) -> Invoice:
    names = ("id", "source", "provider", "account", "period", "version", "imported_at", "by",
             "currency", "is_provisional")  # fmt: skip
    return Invoice(**dict(zip(names, row, strict=True)))


def _line(invoice_id: str, row: Row) -> InvoiceLine:
    said = dict(zip(_LINE.split(", "), row, strict=True))
    said["amount"] = int(said["amount"])
    return InvoiceLine(invoice=invoice_id, **said)


def rows_of(db: Database, table: str) -> Iterator[tuple[Row, bool]]:
    """Every row of a table of invoices, and whether its checksum is right."""
    for *row, crc in db.each(f"SELECT * FROM {table}"):  # noqa: S608 -- a name of ours
        values = tuple(int(each) if isinstance(each, Decimal) else each for each in row)
        yield values, _crc(values) == crc
