"""What `doctor` says of calls that started: those under way, those overdue, those swept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from costspan.cli.finding import Finding, most
from costspan.cli.moments import age
from costspan.core.schema import Observation
from costspan.core.settle.component import component_of
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

_FRESH_NS = 15 * 60 * 10**9
"""A call may well be under way for this long."""
_SAMPLE_MAX = 200
"""So many swept events of one kind and model are looked at in the journal."""


class _Swept(msgspec.Struct):
    """The swept events of one kind and model."""

    count: int = 0
    unknown: int = 0
    cancelled: int = 0
    oldest_ns: int | None = None
    sample: list[str] = msgspec.field(default_factory=list[str])


class Intents:
    """What one pass over the events counts of those that nobody saw end."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self._fresh = 0
        self._stale = 0
        self._oldest_ns: int | None = None
        self._swept: dict[tuple[str, str], _Swept] = {}

    def count_open(self, each: Settled) -> None:
        """Count an event that is open."""
        started = each.event.facts.started_at or each.event.facts.recorded_at or 0
        if self._now_ns - started < _FRESH_NS:
            self._fresh += 1
            return
        self._stale += 1
        self._oldest_ns = _earlier(self._oldest_ns, started)

    def count_swept(self, each: Settled) -> None:
        """Count an event that was swept."""
        facts = each.event.facts
        what = facts.executed_model or facts.requested_model or facts.name or ""
        swept = self._swept.setdefault((facts.kind or "model", what), _Swept())
        swept.count += 1
        swept.unknown += each.decision is not None and each.decision.cost is None
        swept.cancelled += each.event.outcome.startswith("cancelled")
        if each.event.at_ns is not None:
            swept.oldest_ns = _earlier(swept.oldest_ns, each.event.at_ns)
        if len(swept.sample) < _SAMPLE_MAX:
            swept.sample.append(each.event.id)

    def findings(self, ledger: Ledger) -> Iterator[Finding]:
        """What to know of them; the journal says who started the swept ones."""
        if self._swept:
            last = {writer: greatest for writer, greatest, _ in ledger.writers()}
            for (kind, what), swept in sorted(
                self._swept.items(), key=lambda item: (-item[1].count, item[0])
            ):
                yield self._of_swept(ledger, last, f"{kind} {what}".strip(), swept)
        if self._stale:
            yield Finding(
                severity="warning",
                check="open",
                count=self._stale,
                what="calls started and have not ended, the oldest"
                f" {age(self._now_ns - (self._oldest_ns or 0))} ago: a lost callback, a killed"
                " process, or an undrained spool",
                do="drain every spool; a drain gives up (sweeps) what is open for longer than the"
                " setting open_ttl, if it names an attempt or an operation",
            )
        if self._fresh:
            yield Finding(
                severity="note",
                check="open_now",
                count=self._fresh,
                what="calls started in the last quarter of an hour and have not ended yet",
                do="nothing: they may still be running",
            )

    def _of_swept(self, ledger: Ledger, last: dict[str, int], name: str, swept: _Swept) -> Finding:
        starts = _starts(ledger, swept.sample)
        sources = Counter(start.source or "an unnamed source" for start in starts)
        killed = _last_words(starts, last)
        said = f"{name}, started by {most(sources)}: nobody saw them end"
        if swept.oldest_ns is not None:
            said += f", the oldest started {age(self._now_ns - swept.oldest_ns)} ago"
        if swept.cancelled:
            said += f"; {swept.cancelled:,} were cancelled"
        if killed:
            said += f"; {killed:,} are the last that their process wrote: killed, or idle since"
        if (rest := swept.count - swept.cancelled - killed) > 0:
            said += f"; {rest:,} look like a cancelled call, an abandoned stream or a lost callback"
        return Finding(
            severity="warning" if swept.unknown else "note",
            check="swept",
            count=swept.count,
            what=said,
            do="drain every spool: an end that is found counts after all; read streams to their"
            " end or close them, and let the host run its callbacks before the loop closes;"
            " compare the rest with the invoice (report --unpriced lists them)",
        )


def _earlier(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


def _starts(ledger: Ledger, ids: list[str]) -> list[Observation]:
    """The starts of these events, one each."""
    of_event: dict[str, Observation] = {}
    wanted = set(ids)
    for seen in component_of(ledger.reading(), ids):
        if seen.phase == "start":
            names = (seen.attempt_id,) if seen.attempt_id is not None else seen.operation_ids
            of_event.update((name, seen) for name in names if name in wanted)
    return list(of_event.values())


def _last_words(starts: list[Observation], last: dict[str, int]) -> int:
    """How many starts have nothing of their writer behind them but starts like them."""
    numbers: dict[str, set[int]] = {}
    for start in starts:
        if start.writer is not None and start.seq is not None:
            numbers.setdefault(start.writer, set()).add(start.seq)
    found = 0
    for writer, seqs in numbers.items():
        at = last.get(writer, -1)
        while at in seqs:
            found, at = found + 1, at - 1
    return found
