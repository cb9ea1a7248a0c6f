"""What every ledger asks of an invoice before it keeps it, and of a document before it gives it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator

from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.ledger_errors import LedgerError


def checked(invoice: Invoice, lines: Iterable[InvoiceLine]) -> Iterator[InvoiceLine]:
    """The lines of an invoice.

    Raises:
        ValueError: at a line that is another invoice's, is out of order or has another currency.
    """
    for expected, line in enumerate(lines):
        if line.invoice != invoice.id or line.number != expected:
            raise ValueError(
                f"line {line.number} of invoice {line.invoice} where line {expected} of"
                f" {invoice.id} should be"
            )
        if line.currency != invoice.currency and (line.currency or line.amount):
            raise ValueError(
                f"line {line.number}: its currency is {line.currency!r}, its invoice's"
                f" {invoice.currency!r}"
            )
        yield line


def unpacked(invoice_id: str, digest: str, packed: bytes) -> bytes:
    """The bytes of a document.

    Raises:
        LedgerError: if they are not those that were kept.
    """
    try:
        raw = zlib.decompress(packed)
    except zlib.error as error:
        raise LedgerError(f"the document of invoice {invoice_id} is damaged: {error}") from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise LedgerError(
            f"the document of invoice {invoice_id} is not what was imported: its sha256 is no"
            f" longer {digest}"
        )
    return raw
