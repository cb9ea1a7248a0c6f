"""Free postings: amounts that are of no event, each with a name, a reason, and what made it.

They stand in buckets of their own, so that no row of events ever changes by them: `allocated` has
what pools were shared out to tenants (its cost adds up to nothing), `adjustment` all else. A credit
lowers a charge; an invoice adjustment brings the books to what the provider bills; capacity is what
was paid for and not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec

from costspan.core.bounded import Invalid
from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED
from costspan.core.journal.records import FreeKind, FreeLine, FreePostings
from costspan.core.names import tenant_id
from costspan.core.periods import is_period
from costspan.core.settle.entries import Amount, Line, Posted, Posting
from costspan.core.settle.posting import posted_period

ALLOCATED = "allocated"
ADJUSTMENT = "adjustment"
FREE_BUCKETS = frozenset({ALLOCATED, ADJUSTMENT})
"""No event ever stands here."""
AMOUNT_PICO_MAX = 2**63 - 1
LAST_DAY = "-31"
"""After its period, the day that a line without one is of: as texts, no month's days go further."""

_encode = msgspec.json.Encoder(order="sorted").encode


class FreePostingError(ValueError):
    """Amounts that cannot be posted; the text says why. Nothing was posted."""


def free_postings(
    *,
    kind: FreeKind,
    period: str,
    lines: Sequence[FreeLine],
    about: Mapping[str, str],
    by: str,
    reason: str,
    recorded_at: int,
) -> FreePostings:
    """The record of amounts (pico-USD) of an effective period (YYYY-MM), to be settled.

    Lines of nothing are left out; several on one line are added up.

    Raises:
        FreePostingError: if a line is not of a bucket that such postings have or not of a tenant,
            `@platform` or `@unattributed`; if an allocation does not add up to nothing; if an
            amount is more than an int64; without a period, `by`, `reason` or lines.
    """
    if kind not in get_args(FreeKind):
        raise FreePostingError(f"{kind!r} is no kind of free posting")
    if not is_period(period):
        raise FreePostingError(f"{period!r} is no period: write YYYY-MM")
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise FreePostingError(f"`{name}` is empty: every hand that moves money has a name")
    bucket = ALLOCATED if kind == "allocation" else ADJUSTMENT
    sums: dict[tuple[str, str, str | None, str, str], list[int]] = {}
    for line in lines:
        _check(line, bucket)
        key = (line.owner, line.bucket, line.pool, line.day, line.model)
        total = sums.setdefault(key, [0, 0])
        total[0] += line.cost
        total[1] += line.charge
    kept = tuple(
        FreeLine(*key, cost, charge)
        for key, (cost, charge) in sorted(
            sums.items(), key=lambda item: [part or "" for part in item[0]]
        )
        if cost or charge
    )
    if not kept:
        raise FreePostingError("there is nothing to post")
    if any(abs(line.cost) > AMOUNT_PICO_MAX or abs(line.charge) > AMOUNT_PICO_MAX for line in kept):
        raise FreePostingError("an amount of more than 9.2 million USD: post it in parts")
    if kind == "allocation" and sum(line.cost for line in kept) != 0:
        raise FreePostingError("an allocation's cost must add up to nothing")
    content = (kind, period, kept, sorted(about.items()), by, reason, recorded_at)
    id = f"@{kind}:{hashlib.sha256(_encode(content)).hexdigest()[:32]}"
    return FreePostings(id, kind, period, kept, dict(about), by, reason, recorded_at)


def _check(line: FreeLine, bucket: str) -> None:
    if line.bucket != bucket:
        raise FreePostingError(f"a line of bucket {line.bucket!r}: these are of {bucket!r}")
    if line.owner in (PLATFORM, UNATTRIBUTED):
        if line.charge:
            raise FreePostingError(f"{line.owner} is charged nothing: only tenants are")
        return
    try:
        tenant = tenant_id(line.owner)
    except Invalid as error:
        raise FreePostingError(f"{line.owner!r} is no tenant: {error}") from error
    if tenant != line.owner:
        raise FreePostingError(
            f"{line.owner!r} is no tenant: write it in its normal form, {tenant!r}"
        )


def target_of_free(record: FreePostings) -> Posted:
    """What stands in the books for such a record."""
    return tuple(
        (
            Line(line.owner, line.bucket, line.pool, record.period, line.day, line.model),
            Amount(line.cost, line.charge),
        )
        for line in record.lines
    )


def free_entries(record: FreePostings, posted: Posted, closed_until: str | None) -> list[Posting]:
    """The entries that bring a record into the books, where `posted` stands for it already."""
    was, now = dict(posted), dict(target_of_free(record))
    period = posted_period(record.period, closed_until)
    nothing = Amount(0, 0)
    entries: list[Posting] = []
    for line in now.keys() | was.keys():
        old, new = was.get(line, nothing), now.get(line, nothing)
        change = Amount(new.cost - old.cost, new.charge - old.charge)
        if change != nothing:
            entries.append(Posting(record.id, line, period, change, 0))
    return sorted(entries, key=lambda entry: [part or "" for part in _parts(entry.line)])


def _parts(line: Line) -> tuple[str | None, ...]:
    return (line.owner, line.bucket, line.pool, line.effective_period, line.day, line.model)
