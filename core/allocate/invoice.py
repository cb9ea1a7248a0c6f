"""A whole invoice of an account whose calls nobody records: brought into the platform's books.

From there it is a pool like another. It is refused where events name the account: what they cost is
in the books already, and the difference is reconciliation's.
"""

from __future__ import annotations

from typing import NamedTuple

from costspan.core.allocate.activity import Measured
from costspan.core.allocate.methods import AllocationError
from costspan.core.allocate.rule import WholeInvoice
from costspan.core.invoices.invoice import Invoice
from costspan.core.settle.ledger import Ledger

POOL = "invoice"
_CURRENCY = "USD"


class BroughtIn(NamedTuple):
    """An invoice: what it comes to, and what of that is not in the books yet (pico-USD)."""

    said: str
    amount: int
    missing: int
    about: dict[str, str]


def brought_in(
    ledger: Ledger, period: str, wanted: WholeInvoice, known: Measured | None
) -> BroughtIn:
    """The current invoice of an account, and what the books lack of it.

    A later version of the invoice is brought in by what it differs.

    Raises:
        AllocationError: if there is none, if it may still change or is not in USD, if events of
            the period are of that account, or if reconciliation brought some of it in.
    """
    invoice = _current(ledger, period, wanted)
    said = f"{wanted.source} {wanted.account}".strip()
    if invoice.currency != _CURRENCY:
        raise AllocationError(
            f"the invoice of {said} is in {invoice.currency or 'no currency'}: the books are in"
            f" {_CURRENCY}, and sums never cross currencies"
        )
    if invoice.is_provisional:
        raise AllocationError(f"the invoice of {said} is provisional: import it when it is final")
    if many := _events_of(invoice, known):
        raise AllocationError(
            f"{many:,} events of {period} are of the account of {said}: it is no untagged"
            " invoice. Use costspan reconcile, which posts the difference"
        )
    amount = sum(line.amount for line in ledger.invoices.lines(invoice.id) if line.currency)
    earlier = 0
    for record in ledger.free_postings(period):
        about = record.about
        if record.kind != "invoice_adjust" or not _is_of(about, invoice):
            continue
        if about.get("whole") != "yes":
            raise AllocationError(
                f"the invoice of {said} was reconciled already ({record.id}, by {record.by})"
            )
        earlier += sum(line.cost for line in record.lines)
    about = {
        "invoice": invoice.id,
        "source": invoice.source,
        "account": invoice.account,
        "version": str(invoice.version),
        "whole": "yes",
    }
    return BroughtIn(said, amount, amount - earlier, about)


def _current(ledger: Ledger, period: str, wanted: WholeInvoice) -> Invoice:
    found = [
        each
        for each in ledger.invoices.current(period)
        if (each.source, each.account) == (wanted.source, wanted.account)
    ]
    if len(found) == 1:
        return found[0]
    said = f"{wanted.source} {wanted.account}".strip()
    if found:
        raise AllocationError(
            f"{len(found)} invoices of {said} for {period}: their providers differ"
        )
    raise AllocationError(f"no invoice of {said} for {period}: costspan invoices import")


def _is_of(about: dict[str, str], invoice: Invoice) -> bool:
    """A record may be about several invoices: their ids, sources and accounts, with commas."""
    if invoice.id in about.get("invoice", "").split(","):
        return True
    pairs = zip(
        about.get("source", "").split(","), about.get("account", "").split(","), strict=False
    )
    return (invoice.source, invoice.account) in pairs


def _events_of(invoice: Invoice, known: Measured | None) -> int:
    """An invoice of no account is of all of a provider's."""
    assert known is not None
    return sum(
        many
        for (provider, account), many in known.accounts.items()
        if (provider in ("", invoice.provider) and (account == invoice.account))
        or (provider == invoice.provider and not invoice.account)
    )
