"""What every process counted of itself, and left in the books: refusals, faults it survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from costspan.cli.finding import Finding, Severity, most
from costspan.core.journal.process import UNKNOWN
from costspan.core.journal.records import Control, Counts, Refusals
from costspan.core.read.writers import processes_of
from costspan.core.settle.ledger import Ledger

REFUSED = "refused:"


class _Kind(NamedTuple):
    """Counters whose names begin with `prefix` (the rest says which), and what they mean."""

    prefix: str
    check: str
    severity: Severity
    what: str
    do: str


_KINDS = (
    _Kind(
        "ladder:beside",
        "ladder_beside",
        "warning",
        "records went into the folder beside the spool, which could not take them",
        "see to the disk of the spool; a drain takes both folders",
    ),
    _Kind(
        "ladder:held",
        "ladder_held",
        "warning",
        "records were held in memory because no folder took them: they were written as soon as one"
        " did, and are lost if their process died first (then a gap in the invoice, not here)",
        "see to the disks of the spool; name a folder on another one as spool_beside",
    ),
    _Kind(
        "breaker:",
        "breaker",
        "warning",
        "a folder was left to rest, because it took no records or took them slowly",
        "see to its disk (disk:28 is a full one); put the spool on one that keeps up",
    ),
    _Kind(
        "sync_failed:",
        "sync_failed",
        "error",
        "the disk did not confirm what was written; the writer began a new segment",
        "see to the disk (its errors are in the kernel's log); after a power loss expect gaps",
    ),
    _Kind(
        "unsettled:",
        "unsettled",
        "error",
        "records could not be settled; their segments stay in the spool",
        "report it: costspan drain counts them as unreadable until a version settles them",
    ),
    _Kind(
        "claim_failed:",
        "claim_failed",
        "warning",
        "segments or folders could not be read by whoever drained; they stay",
        "let every process that drains own the spool's files (13 is a permission that is missing),"
        " and see to the disk",
    ),
    _Kind(
        "quarantine_failed:",
        "quarantine_failed",
        "warning",
        "torn tails could not be put aside; their segments stay",
        "see to the disk of the spool",
    ),
    _Kind(
        "segment_gone",
        "segment_gone",
        "error",
        "segments were removed by somebody else while they were written: their records are lost",
        "let nobody but costspan tidy the spool",
    ),
    _Kind(
        "drain_failed:",
        "drain_failed",
        "warning",
        "drains in the background did not succeed; they were tried again",
        "run costspan drain: it says why",
    ),
    _Kind(
        "plugin_failed:",
        "plugin_failed",
        "warning",
        "calls of plugins failed; they were tried again, and everything else went on",
        "repair or uninstall them: costspan plugins",
    ),
    _Kind(
        "plugin_hung:",
        "plugin_hung",
        "warning",
        "calls of plugins did not come back in time; they were left alone until they did",
        "give their network calls a timeout",
    ),
)
_HARMLESS = ("quarantined", "sweep_postponed", "ladder:late")
"""What is shown elsewhere, or went well after all."""


def counters_of(controls: Iterable[Control]) -> Counter[str]:
    """Name -> how often, over all processes. Their counts are cumulative: the greatest holds."""
    greatest: Counter[tuple[str, str]] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    for record in controls:
        if isinstance(record, Counts):
            for name, times in record.counts.items():
                greatest[record.writer, name] = max(greatest[record.writer, name], times)
        elif isinstance(record, Refusals):
            for reason, times in record.counts.items():
                name = REFUSED + reason
                refused[record.writer, name] = max(refused[record.writer, name], times)
    # A refusal is in both: by its writer, and by the process that may have had several writers.
    return _by_name(greatest) | _by_name(refused)


def _by_name(counts: Counter[tuple[str, str]]) -> Counter[str]:
    summed: Counter[str] = Counter()
    for (_, name), times in counts.items():
        summed[name] += times
    return summed


def of_counters(ledger: Ledger) -> Iterator[Finding]:
    """What the processes counted: lost records, rungs of the ladder, faults they survived."""
    counted = counters_of(ledger.controls())
    refused = _taken(counted, REFUSED)
    if refused:
        yield Finding(
            severity="error",
            check="refused",
            count=sum(refused.values()),
            what=f"records could not be written and are lost: {most(refused)}",
            do="see to the disk of the spool (disk:28 is a full one); bill these from the invoice",
        )
    for kind in _KINDS:
        found = _taken(counted, kind.prefix)
        if found:
            which = f": {most(found)}" if any(found) else ""
            yield Finding(
                severity=kind.severity,
                check=kind.check,
                count=sum(found.values()),
                what=kind.what + which,
                do=kind.do,
            )
    for name in _HARMLESS:
        counted.pop(name, None)
    if counted:
        yield Finding(
            severity="note",
            check="counted",
            count=sum(counted.values()),
            what=f"processes survived: {most(counted)}",
            do="nothing, unless it grows: costspan doctor --json has every counter",
        )


def _taken(counted: Counter[str], prefix: str) -> Counter[str]:
    """Take the counters of this prefix out; what is left of their names -> how often."""
    names = [name for name in counted if name.startswith(prefix)]
    return Counter({name[len(prefix) :]: counted.pop(name) for name in names})


def of_gaps(ledger: Ledger, undrained: bool) -> Iterator[Finding]:
    """Numbers of a writer that are missing: it never wrote a frame without one."""
    gaps = [(writer, last - kept) for writer, last, kept in ledger.writers() if last != kept]
    if gaps:
        writer, missing = max(gaps, key=lambda gap: gap[1])
        host, pid = processes_of(ledger.controls()).get(writer, UNKNOWN)
        where = f"host {host or 'unknown'}, pid {pid or 'unknown'}"
        yield Finding(
            severity="warning" if undrained else "error",
            check="gaps",
            count=sum(abs(missing) for _, missing in gaps),
            what=f"records are missing in the numbering of {len(gaps)} writers,"
            f" most of {writer} ({where}): {missing}",
            do="drain every spool (drain --spool DIR...); if they stay, segments were deleted",
        )
