"""What stands against closing a period: records not settled yet, calls without end or price."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from costspan.core.journal import records, spool
from costspan.core.journal.frames import read_frames
from costspan.core.money import format_usd
from costspan.core.periods import NO_PERIOD, month_of
from costspan.core.read.waiting import waiting
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import effective_of


class Unsettled(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a period whose cost is not known.

    `open` ones have no end yet; `unknown` ones have no price or no usage. `earlier` counts both in
    periods before, which an earlier close was forced over or which came after it.
    """

    open: int = 0
    unknown: int = 0
    earlier: int = 0


def unsettled(ledger: Ledger, period: str) -> Unsettled:
    """Count the events that a close up to and with this period (YYYY-MM) would leave out."""
    before = max((close.period for close in ledger.closes()), default="")
    is_open = is_unknown = earlier = 0
    for each in ledger.untold():
        decision = each.decision
        if decision is not None and decision.cost is not None:
            continue
        effective, _ = effective_of(each.event, decision)
        if effective <= before:
            earlier += 1
        elif effective <= period:
            is_open += decision is None
            is_unknown += decision is not None
    return Unsettled(open=is_open, unknown=is_unknown, earlier=earlier)


def against_closing(
    ledger: Ledger, period: str, folders: Iterable[Path], unpriced_threshold: int
) -> list[str]:
    """What stands against closing a period, a text each that says what to do.

    Args:
        ledger: The books.
        period: The last month that would be sealed (YYYY-MM).
        folders: The spool folders of this machine.
        unpriced_threshold: So many events of unknown cost may be left out.
    """
    found = [text for folder in folders for text in _waits(folder, period)]
    left = unsettled(ledger, period)
    if left.open:
        found.append(
            f"{left.open:,} open calls of the period: nobody saw them end (costspan drain"
            " --sweep-older gives them up)"
        )
    if left.unknown > unpriced_threshold:
        found.append(
            f"{left.unknown:,} events of unknown cost in the period, {unpriced_threshold:,} are"
            " allowed (costspan report --unpriced lists them)"
        )
    if timeless := _timeless(ledger):
        found.append(timeless)
    return found


def _timeless(ledger: Ledger) -> str:
    """What the first close would seal in no month: it would be on no statement, ever."""
    if ledger.closes():
        return ""  # late truth goes to a month that is open
    lines = list(ledger.roll_ups(posted_period=NO_PERIOD))
    calls = sum(each.events for each in lines)
    if not calls:
        return ""
    charge = format_usd(sum(each.charge for each in lines))
    return (
        f"{calls:,} calls that nobody gave a time, charged {charge} USD: they would be on no"
        " statement (say when they were: ingest an observation with started_at or"
        " effective_period for each)"
    )


def _waits(folder: Path, period: str) -> Iterator[str]:
    """Records of the period, or of who knows when, that wait in a spool folder."""
    found = waiting(folder)
    if found.unreadable is not None:
        yield f"{folder} cannot be looked into: {found.unreadable}"
    if found.complete:
        yield f"{found.complete:,} segments wait in {folder}: run costspan drain first"
    live = sum(_of_period(path, period) for path in spool.segments(folder)) if found.live else 0
    if live and not found.complete:
        yield (
            f"{live:,} records of the period are with live writers in {folder}: their segments can"
            " be drained once they are done (rotated), in a few seconds while they drain themselves"
        )


def _of_period(path: Path, period: str) -> int:
    """How many observations of up to this period a segment holds; nothing is taken from it."""
    try:
        payloads = read_frames(path.read_bytes()).payloads
    except OSError:
        return 0  # drained since the folder was read
    many = 0
    for payload in payloads:
        try:
            record = records.decode(payload, None)
        except (ValueError, TypeError):
            continue
        if isinstance(record, Observation):
            at = record.started_at or record.ended_at or record.recorded_at
            many += at is None or month_of(at) <= period
    return many
