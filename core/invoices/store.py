"""What a ledger keeps of invoices: beside the books, never in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from costspan.core.invoices.invoice import Invoice, InvoiceLine, Review


class InvoiceStore(Protocol):
    """Invoices, their lines, their raw bytes and the reviews of variances; all append-only."""

    def keep(self, invoice: Invoice, lines: Iterable[InvoiceLine], raw: bytes) -> Invoice:
        """Keep a document and its lines, all or nothing, and return it with its version.

        An invoice of the same id is returned as it is kept already. Any other is the next version
        of its source, provider, account and period; `invoice.version` is not looked at.

        Raises:
            ValueError: if a line is another invoice's, is out of order, or has another currency
                than the invoice (a line without money has the currency "").
            LedgerError: if the ledger cannot be written; nothing of the document is kept then.
        """
        ...

    def invoices(self, period: str | None = None) -> list[Invoice]:
        """Every version, of one period or of all; by period, source, account, then version."""
        ...

    def current(self, period: str) -> list[Invoice]:
        """The latest version of each source, provider and account of a period."""
        ...

    def documents(self, period: str) -> dict[str, str]:
        """Invoice id -> SHA-256 (hex) of the document it was read from; every version."""
        ...

    def lines(self, invoice_id: str) -> Iterator[InvoiceLine]:
        """The lines of an invoice in their order; none if there is no such invoice."""
        ...

    def line(self, invoice_id: str, number: int) -> InvoiceLine | None:
        """One line of an invoice."""
        ...

    def sums(self, invoice_id: str) -> dict[str, tuple[int, int]]:
        """Category -> how many lines of an invoice are of it, and their amounts in pico."""
        ...

    def raw(self, invoice_id: str) -> bytes:
        """The bytes of the document of an invoice, as they were imported.

        Raises:
            LookupError: if there is no such invoice.
            LedgerError: if the bytes are no longer those that were kept.
        """
        ...

    def keep_review(self, review: Review) -> None:
        """Append what somebody decided about a variance."""
        ...

    def reviews(self) -> list[Review]:
        """Every review, in the order they were kept."""
        ...
