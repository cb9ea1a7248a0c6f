"""What a new document takes the place of, though it does not name it.

Versions are counted for each account. So if a corrected document bills as account A what the one
before it billed as A and B, the invoice of B would stand for ever, and its money count twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from costspan.core.invoices.document import Document, Notes, Order
from costspan.core.invoices.invoice import Invoice
from costspan.core.invoices.store import InvoiceStore

EMPTIED = (
    "accounts of the document that this one replaces, which it does not name: an empty version"
    " takes the place of each (--account says that a document is of one account alone)"
)
STAYING = (
    "invoices of other accounts of this provider and month stay as they are (--replace says that"
    " this document is all there is)"
)


def superseded(
    store: InvoiceStore,
    document: Document,
    order: Order,
    named: Iterable[tuple[str, str, str]],
    notes: Notes,
) -> list[Invoice]:
    """The current invoices of accounts that a document lacks and the one it replaces has.

    A document replaces those that the current invoices of its accounts were read from, of the same
    source, provider and month; with `order.replaces`, all such. One that was imported as of a
    single account (`order.account`) replaces nothing else. What stays beside it is noted.

    Args:
        store: What is kept.
        document: The new one.
        order: As it was asked for.
        named: The (provider, account, period) of its invoices.
        notes: Where it is said what is emptied and what stays.
    """
    if order.account and not order.replaces:
        return []
    accounts: dict[tuple[str, str], set[str]] = {}
    for provider, account, period in named:
        accounts.setdefault((period, provider), set()).add(account)
    found: list[Invoice] = []
    for (period, provider), here in sorted(accounts.items()):
        bytes_of = store.documents(period)
        standing = [
            each
            for each in store.current(period)
            if (each.source, each.provider) == (document.source, provider)
        ]
        former = {bytes_of[each.id] for each in standing if each.account in here}
        for each in standing:
            if each.account in here or store.line(each.id, 0) is None:
                continue
            if order.replaces or bytes_of[each.id] in former:
                found.append(each)
                notes.note(EMPTIED, each.account or "the one without a name")
            else:
                notes.note(STAYING, each.account or "the one without a name")
    return found
