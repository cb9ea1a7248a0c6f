"""An amount that is of no event: who posted it, why, how it was come by, and where it stands."""

from __future__ import annotations

import msgspec

from costspan.core.journal.records import FreePostings
from costspan.core.read import words
from costspan.core.read.corrections import Entry, Months, entry_of
from costspan.core.settle.ledger import Ledger

_OWNERS_MAX = 6
_SAID = {
    "adjustment": "An adjustment",
    "credit": "A credit",
    "allocation": "An allocation of the platform's pools",
    "invoice_adjust": "An adjustment to what the provider bills",
    "capacity": "Capacity that was paid for and not used",
}


class FreeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A free posting as it stands in the books. `about` says how it was come by."""

    id: str
    kind: str
    period: str
    by: str
    reason: str
    recorded_at: int
    about: dict[str, str]
    postings: tuple[Entry, ...]


def find_free(ledger: Ledger, name: str) -> FreePostings | None:
    """The free posting of this id, or of the only one that begins so."""
    if not name.startswith("@"):
        return None
    entries = ledger.postings(name)
    period = entries[0].line.effective_period if entries else None
    found = [each for each in ledger.free_postings(period) if each.id.startswith(name)]
    same = [each for each in found if each.id == name]
    return (same or found)[0] if len(same or found) == 1 else None


def free_entry(ledger: Ledger, record: FreePostings) -> FreeEntry:
    """The record and its postings."""
    months = Months(ledger.closes())
    return FreeEntry(
        id=record.id,
        kind=record.kind,
        period=record.period,
        by=record.by,
        reason=record.reason,
        recorded_at=record.recorded_at,
        about=dict(record.about),
        postings=tuple(entry_of(each, months) for each in ledger.postings(record.id)),
    )


def headline_of_free(record: FreePostings) -> str:
    """Who pays how much by it, and why."""
    charges: dict[str, int] = {}
    costs: dict[str, int] = {}
    for line in record.lines:
        charges[line.owner] = charges.get(line.owner, 0) + line.charge
        costs[line.owner] = costs.get(line.owner, 0) + line.cost
    charged = [(owner, amount) for owner, amount in sorted(charges.items()) if amount]
    if charged:
        said = [
            f"{owner} pays {words.dollars(abs(amount))} {'more' if amount > 0 else 'less'}"
            for owner, amount in charged
        ]
    else:
        said = [
            f"{words.dollars(abs(amount))} of cost is {'put on' if amount > 0 else 'taken from'}"
            f" {owner}"
            for owner, amount in sorted(costs.items())
            if amount
        ]
        said.append("no tenant is charged")
    if len(said) > _OWNERS_MAX:
        said = [*said[: _OWNERS_MAX - 1], f"{len(said) - _OWNERS_MAX + 1:,} others likewise"]
    kind = _SAID.get(record.kind, record.kind)
    return f"{kind} for {record.period}: {words.listed(said)}. Why: {record.reason} ({record.by})."
