"""Whole invoices of accounts whose calls nobody records: brought into the platform's books.

From there such an invoice is a pool like another. It is refused where events name the account: what
they cost is in the books already, and the difference is reconciliation's. What was brought in is
taken out again once the rule names it no more, or events of the account have come after all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from costspan.core.allocate.activity import Measured
from costspan.core.allocate.methods import AllocationError
from costspan.core.allocate.rule import AllocationRule, WholeInvoice
from costspan.core.invoices.invoice import Invoice
from costspan.core.journal.records import FreePostings
from costspan.core.prices.names import canonical_provider
from costspan.core.settle.ledger import Ledger

POOL = "invoice"
_CURRENCY = "USD"

_Named = tuple[str, str]
"""(source, account)."""


class BroughtIn(NamedTuple):
    """An invoice: what of it is to be in the books, and what of that is not yet (pico-USD).

    `note` is what somebody should know of it: why it is taken out, or what may count twice.
    """

    said: str
    amount: int
    missing: int
    about: dict[str, str]
    note: str = ""


class _Earlier(NamedTuple):
    """What was brought in of an account before: the sum, and what the last record was about."""

    amount: int
    about: dict[str, str]


def brought_in(
    ledger: Ledger, period: str, rule: AllocationRule, known: Measured | None
) -> Iterator[BroughtIn]:
    """The invoices that a rule names, and those brought in before that it does not name.

    A later version of an invoice is brought in by what it differs.

    Raises:
        AllocationError: if there is no such invoice, if it may still change or is not in USD, if
            reconciliation brought some of it in, if the rule names it twice, or if events of the
            period are of an account that was never brought in.
    """
    records = [each for each in ledger.free_postings(period) if each.kind == "invoice_adjust"]
    earlier = _brought_in_before(records)
    named: set[_Named] = set()
    for each in rule.invoice:
        if (each.source, each.account) in named:
            said = _said(each.source, each.account)
            raise AllocationError(f"the rule names the invoice of {said} twice")
        named.add((each.source, each.account))
        before = earlier.pop((each.source, each.account), None)
        yield _named(ledger, period, each, known, records, before)
    for (source, account), (amount, about) in earlier.items():
        if amount:
            note = "the rule does not name it: it is taken out of the books"
            yield BroughtIn(_said(source, account), 0, -amount, about, note)


def _named(
    ledger: Ledger,
    period: str,
    wanted: WholeInvoice,
    known: Measured | None,
    records: list[FreePostings],
    before: _Earlier | None,
) -> BroughtIn:
    """An invoice that the rule names."""
    assert known is not None
    invoice = _current(ledger, period, wanted)
    said = _said(wanted.source, wanted.account)
    names, amount = {wanted.account, *wanted.known_as}, 0
    for line in ledger.invoices.lines(invoice.id):
        names.add(line.project or line.account)  # which events may give as their account
        amount += line.amount if line.currency else 0
    if wanted.account:
        names.discard("")
    many = _events_of(invoice, names, known)
    if many and before is None:
        raise AllocationError(
            f"{many:,} events of {period} are of the account of {said}: it is no untagged"
            " invoice. Use costspan reconcile, which posts the difference"
        )
    earlier, last = before or _Earlier(0, {})
    if many:
        note = (
            f"{many:,} events of {period} are of its account now: it is not in the books any more."
            " Name it in no rule; costspan reconcile posts the difference"
        )
        return BroughtIn(said, 0, -earlier, last, note)
    if amount and invoice.currency != _CURRENCY:
        raise AllocationError(
            f"the invoice of {said} is in {invoice.currency or 'no currency'}: the books are in"
            f" {_CURRENCY}, and sums never cross currencies"
        )
    if invoice.is_provisional:
        raise AllocationError(f"the invoice of {said} is provisional: import it when it is final")
    for record in records:
        if record.about.get("whole") != "yes" and _is_of(record.about, invoice):
            raise AllocationError(
                f"the invoice of {said} was reconciled already ({record.id}, by {record.by})"
            )
    about = {
        "invoice": invoice.id,
        "source": invoice.source,
        "account": invoice.account,
        "version": str(invoice.version),
        "whole": "yes",
    }
    return BroughtIn(said, amount, amount - earlier, about, _doubt(invoice, known))


def _brought_in_before(records: list[FreePostings]) -> dict[_Named, _Earlier]:
    """What stands in the books of each account whose invoice was ever brought in whole."""
    found: dict[_Named, _Earlier] = {}
    for each in sorted(records, key=lambda each: (each.recorded_at, each.id)):
        if each.about.get("whole") == "yes":
            key = (each.about.get("source", ""), each.about.get("account", ""))
            before = found[key].amount if key in found else 0
            found[key] = _Earlier(before + sum(line.cost for line in each.lines), each.about)
    return found


def _current(ledger: Ledger, period: str, wanted: WholeInvoice) -> Invoice:
    found = [
        each
        for each in ledger.invoices.current(period)
        if (each.source, each.account) == (wanted.source, wanted.account)
    ]
    if len(found) == 1:
        return found[0]
    said = _said(wanted.source, wanted.account)
    if found:
        raise AllocationError(
            f"{len(found)} invoices of {said} for {period}: their providers differ"
        )
    raise AllocationError(f"no invoice of {said} for {period}: costspan invoices import")


def _said(source: str, account: str) -> str:
    return f"{source} {account}".strip()


def _is_of(about: dict[str, str], invoice: Invoice) -> bool:
    """A record may be about several invoices: their ids, sources and accounts, with commas."""
    if invoice.id in about.get("invoice", "").split(","):
        return True
    pairs = zip(
        about.get("source", "").split(","), about.get("account", "").split(","), strict=False
    )
    return (invoice.source, invoice.account) in pairs


def _events_of(invoice: Invoice, names: set[str], known: Measured) -> int:
    """How many events an invoice bills; one of no account is of all of a provider's."""
    provider = canonical_provider(invoice.provider)
    return sum(
        many
        for biller, many in known.accounts.items()
        if biller.provider in ("", provider)
        and (biller.account in names or (biller.provider and not invoice.account))
    )


def _doubt(invoice: Invoice, known: Measured) -> str:
    """What may be of this account, or not: nobody said."""
    provider = canonical_provider(invoice.provider)
    many = sum(
        many
        for biller, many in known.accounts.items()
        if biller.provider in ("", provider) and not biller.account
    )
    if not many:
        return ""
    return (
        f"{many:,} events of {provider}, or of no known provider, name no account: what of them is"
        " of this one is counted twice"
    )
