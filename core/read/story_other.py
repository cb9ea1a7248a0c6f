"""What a page tells of amounts and bills that are of no event."""

from __future__ import annotations

from collections.abc import Iterator

from costspan.core.read import words
from costspan.core.read.free_entry import FreeEntry
from costspan.core.read.invoice_line import InvoiceBeside
from costspan.core.read.story_event import Fact, posted

_POSTINGS_MAX = 200


def entry_lines(entry: FreeEntry) -> Iterator[Fact]:
    """A free posting: who, why, how it was come by, where it stands."""
    yield Fact("kind", entry.kind)
    yield Fact("month", entry.period)
    yield Fact("by", entry.by)
    yield Fact("reason", entry.reason)
    yield Fact("recorded", words.when(entry.recorded_at))
    for name, text in sorted(entry.about.items()):
        yield Fact("how", f"{name}: {text}", "quiet")
    yield from map(posted, entry.postings[:_POSTINGS_MAX])
    if len(entry.postings) > _POSTINGS_MAX:
        rest = len(entry.postings) - _POSTINGS_MAX
        yield Fact("posted", f"and {rest:,} more (--json has them all)", "quiet")


def invoice_lines(found: InvoiceBeside) -> Iterator[Fact]:
    """An invoice or one of its lines, and the books beside it."""
    invoice, line = found.invoice, found.line
    account = f" account {invoice.account}" if invoice.account else ""
    yield Fact("invoice", f"{invoice.id}")
    yield Fact("from", f"{invoice.provider}{account}, read by {invoice.source}")
    provisional = ", provisional" if invoice.is_provisional else ""
    yield Fact("month", f"{invoice.period}, version {invoice.version}{provisional}")
    yield Fact("imported", f"{words.when(invoice.imported_at)} by {invoice.by}")
    if line is not None:
        yield Fact("line", f"{line.number}: {line.description}")
        for name in ("day", "project", "model", "component", "tier", "category"):
            if value := getattr(line, name):
                yield Fact(name, str(value))
        if line.requests is not None:
            yield Fact("requests", f"{line.requests:,}")
        if line.quantity is not None:
            yield Fact("quantity", f"{line.quantity:,} {line.unit or 'units'}")
    currency = (line.currency if line is not None else "") or invoice.currency or "USD"
    yield Fact("billed", f"{words.trimmed(found.amount)} {currency}", "strong")
    if found.implied is not None:
        yield Fact("which is", f"{found.implied} USD per 1M tokens (or per one of another unit)")
    yield Fact("in the books", words.counted(found.events, "event"))
    if found.seen is not None:
        yield Fact("seen", f"{found.seen:,} of this component")
    if found.difference:
        yield Fact("difference", f"{found.difference:,} (billed less seen)", "warn")
    for owner, (cost, charge, events) in found.owners.items():
        amounts = f"cost {words.trimmed(cost)}, charge {words.trimmed(charge)} USD"
        yield Fact("owner", f"{owner}: {amounts}, {words.counted(events, 'event')}")
    for one in found.dearest:
        used = "" if one.quantity is None else f"{one.quantity:,} of it, "
        cost = "cost unknown" if one.cost is None else f"cost {words.trimmed(one.cost)} USD"
        yield Fact("event", f"{one.event}: {used}{cost} ({one.owner})", "quiet")
