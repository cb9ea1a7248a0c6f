"""Every writer of a ledger: where it runs, when it was last heard of, what it missed or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from costspan.core.journal.process import UNKNOWN, Process, process_of
from costspan.core.journal.records import Control, Counts, Opened, Refusals
from costspan.core.read.waiting import SpoolSegment, Waiting
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger

_REFUSED = "refused:"
_LOOKED_AT = 8
"""So many of a writer's last records: the very last may say no time."""
_OIDS_AT_ONCE = 4000


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """A process that records, or did; one that forks is several.

    `host` is what its machine calls itself, and `pid` its number there; None if neither the ledger
    nor a spool says so, as of versions that did not tell, or if they are not of one mind.
    `records` are in the ledger, numbered up to `greatest`; `missing` numbers are not. `last_at`
    (ns UTC) is the time in the latest of the last ones, None if they say none. `refused` counts by
    reason what it could not write. `waiting` and `live` are its segments in the spools that were
    looked at: complete ones, and those it holds.
    """

    writer: str
    host: str | None = None
    pid: int | None = None
    records: int = 0
    greatest: int = 0
    missing: int = 0
    last_at: int | None = None
    refused: dict[str, int] = {}
    waiting: int = 0
    live: int = 0

    def lag_seconds(self, now_ns: int) -> int | None:
        """How long ago its last record was; None if nobody knows."""
        return None if self.last_at is None else max(0, now_ns - self.last_at) // 10**9


def writers_of(ledger: Ledger | None, spools: Iterable[Waiting]) -> list[Writer]:
    """Every writer that the ledger or a spool knows, the one last heard of first.

    Without a ledger, because nobody can reach it, those of the spools alone.
    """
    known: dict[str, tuple[int, int]] = {}
    controls: list[Control] = []
    last_at: dict[str, int] = {}
    if ledger is not None:
        known = {name: (greatest, kept) for name, greatest, kept in ledger.writers()}
        controls, last_at = ledger.controls(), _last_at(ledger, known)
    segments = [each for found in spools for each in found.segments]
    refused = _refused(controls)
    processes = processes_of(controls, segments)
    complete = Counter(each.writer for each in segments if not each.is_live)
    live = Counter(each.writer for each in segments if each.is_live)
    writers = [
        Writer(
            writer=name,
            host=processes.get(name, UNKNOWN).host,
            pid=processes.get(name, UNKNOWN).pid,
            records=known.get(name, (0, 0))[1],
            greatest=known.get(name, (0, 0))[0],
            missing=known[name][0] - known[name][1] if name in known else 0,
            last_at=last_at.get(name),
            refused=dict(sorted(refused.get(name, {}).items())),
            waiting=complete[name],
            live=live[name],
        )
        for name in {*known, *refused, *complete, *live}
    ]
    return sorted(writers, key=lambda each: (-(each.last_at or 0), each.writer))


def processes_of(
    controls: Iterable[Control], segments: Iterable[SpoolSegment] = ()
) -> dict[str, Process]:
    """Writer -> the process that it says to be, where that is one."""
    said: dict[str, set[Process]] = {}
    for record in controls:
        if isinstance(record, Opened | Counts):
            said.setdefault(record.writer, set()).add(process_of(record))
    for each in segments:
        said.setdefault(each.writer, set()).add(each.process)
    found: dict[str, Process] = {}
    for writer, every in said.items():
        hosts, pids = {each.host for each in every} - {None}, {each.pid for each in every} - {None}
        if len(hosts) <= 1 and len(pids) <= 1:
            found[writer] = Process(next(iter(hosts), None), next(iter(pids), None))
    return found


def _refused(controls: Iterable[Control]) -> dict[str, dict[str, int]]:
    """Writer -> reason -> times. A refusal may be told twice, by its writer and by its process."""
    found: dict[str, dict[str, int]] = {}
    for record in controls:
        if isinstance(record, Refusals):
            counts = record.counts
        elif isinstance(record, Counts):
            counts = {
                name.removeprefix(_REFUSED): times
                for name, times in record.counts.items()
                if name.startswith(_REFUSED)
            }
        else:
            continue
        for reason, times in counts.items():
            of = found.setdefault(record.writer, {})
            of[reason] = max(of.get(reason, 0), times)
    return found


def _last_at(ledger: Ledger, known: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Writer -> the latest time in its last records, where they say one."""
    oids = [
        f"{name}:{seq}"
        for name, (greatest, _) in known.items()
        for seq in range(max(0, greatest - _LOOKED_AT + 1), greatest + 1)
    ]
    reading = ledger.reading()
    latest: dict[str, int] = {}
    for at in range(0, len(oids), _OIDS_AT_ONCE):
        for seen in reading.observations(oids[at : at + _OIDS_AT_ONCE]):
            if seen.writer is not None and (moment := _moment(seen)) is not None:
                latest[seen.writer] = max(latest.get(seen.writer, 0), moment)
    return latest


def _moment(seen: Observation) -> int | None:
    """When it was recorded, or the best that is known of it."""
    return seen.recorded_at or seen.ended_at or seen.started_at
