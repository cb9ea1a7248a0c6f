"""Rows of FOCUS are sums of calls: before one is added, it is certain that none counts twice.

All rows are read, and added up, before the first sum goes in. What the books have stays as it is:
an export that has other sums than before has parts of a day alone, or a day that has grown since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from costspan.cli.backfill_outcome import Outcome
from costspan.cli.backfill_report import say_rejected
from costspan.cli.exits import UsageError
from costspan.cli.moments import day
from costspan.cli.printing import counted
from costspan.core.backfill.claim import Claim
from costspan.core.config import Config
from costspan.core.periods import month_of
from costspan.core.read.books import Books
from costspan.core.schema import Observation
from costspan.core.settle.ledger import open_url
from costspan.plugins.backfill import focus, focus_sums
from costspan.plugins.backfill.placed import UnreadableSource

_BACKFILL, _FROM = "label:backfill", f"label:{focus.LABEL_FROM}"


def sums_of(claims: Iterator[Claim], settings: Config, outcome: Outcome) -> Iterator[Claim]:
    """The rows added up: all are read now, and nothing speaks against them.

    Raises:
        UnreadableSource: if a row cannot be read: its sum would be too small, and stay so.
        UsageError: if a month has calls in the books, or was ingested with other tenants.
    """
    months: set[str] = set()
    said_from: set[str] = set()

    def noted() -> Iterator[Claim]:
        for claim in claims:
            months.add(month_of(claim.seen.started_at or 0))
            said_from.add((claim.seen.labels or {})[focus.LABEL_FROM])
            yield claim

    sums = focus_sums.added_up(noted())
    first = next(sums, None)
    if outcome.torn_rows:
        say_rejected(outcome)
        raise UnreadableSource(
            f"{counted(outcome.torn_rows, 'row')} cannot be read, and sums without them would be"
            " too small: nothing was changed. Mend the file, or take them out of it"
        )
    if first is None:
        return iter(())
    _refuse_metered(settings, sorted(months), said_from)
    return chain((first,), sums)


def _refuse_metered(settings: Config, months: Sequence[str], said_from: Collection[str]) -> None:
    """No sum may be added to a month whose calls are known, or that has it under another name."""
    with Books(open_url(settings.ledger_url, create=True)) as books:
        for month in months:
            rows = books.totals((_BACKFILL, _FROM), month)["rows"]
            if others := sum(row["events"] for row in rows if row[_BACKFILL] != "focus"):
                raise UsageError(
                    f"{counted(others, 'event')} of {month} in the books already: these rows are"
                    f" sums of the same calls, and would double them. {focus.MEANT}"
                )
            held = {row[_FROM] or "another" for row in rows}
            if differ := sorted(held - set(said_from)):
                raise UsageError(
                    f"{month} was ingested with --tenant-from {differ[0]}: with another one the"
                    " same rows would be others, and be added once more"
                )


def fresh(settings: Config, sums: Sequence[Observation], outcome: Outcome) -> list[Observation]:
    """Those that go in. A sum that is another in the books is named, and does not.

    The ledger would believe either of the two: a part of a day could take the day's place.
    """
    ledger = open_url(settings.ledger_url, create=True)
    try:
        held = ledger.reading().observations({seen.oid or "" for seen in sums})
        kept = {seen.oid: seen for seen in held}
    finally:
        ledger.close()
    found: list[Observation] = []
    for seen in sums:
        there = kept.get(seen.oid)
        if there is None or _amounts(there) == _amounts(seen):
            found.append(seen)
        else:
            outcome.withhold(_named(seen, there))
    return found


def _amounts(seen: Observation) -> tuple[object, ...]:
    return seen.usage, seen.host_cost


def _named(seen: Observation, there: Observation) -> str:
    whose = seen.tenant or "nobody"
    return (
        f"{day(seen.started_at or 0)}, {whose}, {seen.executed_model}: {_said(there)} in the books,"
        f" {_said(seen)} here"
    )


def _said(seen: Observation) -> str:
    usage = ", ".join(f"{count:,} {name}" for name, count in (seen.usage or {}).items())
    return f"{usage or 'usage unknown'} for {seen.host_cost or '0'} USD"
