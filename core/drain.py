"""From the spool to the books: claim segments, settle their records, then let the files go.

Exactly once: a segment is removed only after its records are committed, and a record that is
drained again is a duplicate by its oid. Any process may drain any folder; one settles at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from costspan.core import counters, policy
from costspan.core.config import Config
from costspan.core.journal import records, spool
from costspan.core.schema import Observation
from costspan.core.settle import Report, settle
from costspan.core.settle.ledger import Ledger, LedgerBusy, LedgerError, open_url
from costspan.core.settle.sweep import Ttl, sweep

RECORDS_PER_SETTLEMENT = 5000
UNSETTLED_MAX = 20
"""So many records of one batch that cannot be settled: something else is wrong."""


class Drained(msgspec.Struct, kw_only=True):
    """What a drain did.

    `waiting` counts segments that live writers still hold; `quarantined` the torn tails that were
    put aside (never deleted); `unreadable` the records whose bytes were whole but which this
    version cannot read or settle: their segments stay in the spool; `swept` the events that were
    open for too long and are unknown from now on, unless their end still comes.
    """

    ledger: str
    segments: int = 0
    waiting: int = 0
    quarantined: int = 0
    unreadable: int = 0
    swept: int = 0
    settled: Report = msgspec.field(default_factory=Report)


def drain(
    settings: Config,
    folders: Sequence[Path] = (),
    *,
    timeout_seconds: float = 30.0,
    progress: Callable[[Drained], None] | None = None,
    sweep_older_seconds: int | None = None,
    now_ns: int | None = None,
) -> Drained:
    """Settle everything that no live writer holds; then sweep what is open for too long.

    Args:
        settings: Where the ledger is, and what decides.
        folders: Spool folders; the settings' own if none are given.
        timeout_seconds: How long to wait for another settler.
        progress: Called after every settlement with what is done so far.
        sweep_older_seconds: Sweep everything that is open for longer, batches too; None: what is
            open for longer than the setting `open_ttl`, and batches after their day.
        now_ns: The time it is (ns UTC), for the sweep; the clock's if not given.

    Raises:
        LedgerError: if the ledger cannot be opened or written; the records stay in the spool.
        ConfigError: if the rules or prices cannot be used.
    """
    ledger = open_url(settings.ledger_url, create=True)
    try:
        done = Drained(ledger=ledger.url)
        bring_policy(ledger, settings, timeout_seconds)
        for folder in folders or (settings.spool,):
            _drain_folder(ledger, folder, settings, timeout_seconds, done, progress)
        # Last: an end may lie in any of the segments.
        if sweep_older_seconds is None:
            ttl = Ttl.of_settings(settings.open_ttl_seconds)
        else:
            ttl = Ttl.of_everything(sweep_older_seconds)
        _sweep(ledger, time.time_ns() if now_ns is None else now_ns, ttl, timeout_seconds, done)
        return done
    finally:
        ledger.close()


def bring_policy(ledger: Ledger, settings: Config, timeout_seconds: float) -> None:
    """Add the policy record that the settings ask for, if they ask for another than is held."""
    with ledger.settling(timeout_seconds) as settlement:
        proposed = policy.propose(settlement, settings)
        if proposed is not None:
            settle(settlement, [], [proposed])


def _drain_folder(
    ledger: Ledger,
    folder: Path,
    settings: Config,
    timeout_seconds: float,
    done: Drained,
    progress: Callable[[Drained], None] | None,
) -> None:
    for path in spool.segments(folder):
        with ExitStack() as claimed:
            content = claimed.enter_context(spool.claim(path))
            if content is None:
                done.waiting += 1
                continue
            observations, controls, unreadable = _decoded(content)
            if content.quarantined:
                done.quarantined += len(content.quarantined)
                counters.count("quarantined", len(content.quarantined))
            for at in range(0, max(1, len(observations)), RECORDS_PER_SETTLEMENT):
                batch = observations[at : at + RECORDS_PER_SETTLEMENT]
                unreadable += _settle(ledger, batch, controls, settings, timeout_seconds, done)
                if progress is not None:
                    progress(done)
            done.segments += 1
            done.unreadable += unreadable
            if not unreadable:
                spool.finish(content)


def _settle(
    ledger: Ledger,
    batch: Sequence[Observation],
    controls: Sequence[records.Control],
    settings: Config,
    timeout_seconds: float,
    done: Drained,
) -> int:
    """Settle a batch; returns how many records cannot be settled, found by halving it.

    One such record must not hold up everything behind it. Many are no matter of records: raise.
    """
    try:
        with ledger.settling(timeout_seconds) as settlement:
            done.settled.add(settle(settlement, batch, controls))
    except LedgerError:
        raise
    except Exception as error:
        half = len(batch) // 2
        if half == 0:
            counters.count(f"unsettled:{type(error).__name__}")
            return len(batch)
        bad = 0
        for part in (batch[:half], batch[half:]):
            bad += _settle(ledger, part, controls, settings, timeout_seconds, done)
            if bad >= UNSETTLED_MAX:
                raise
        return bad
    return 0


def _sweep(ledger: Ledger, now_ns: int, ttl: Ttl, timeout_seconds: float, done: Drained) -> None:
    """Sweep what is due. What was drained is settled: no trouble here may say otherwise."""
    try:
        swept = RECORDS_PER_SETTLEMENT
        while swept >= RECORDS_PER_SETTLEMENT:
            with ledger.settling(timeout_seconds) as settlement:
                report = sweep(settlement, now_ns, ttl, RECORDS_PER_SETTLEMENT)
            swept = report.observations
            done.swept += swept
            done.settled.add(report)
    except LedgerBusy:
        counters.count("sweep_postponed")  # whoever settles now sweeps too
    except LedgerError:
        raise
    except Exception as error:
        counters.count(f"sweep_failed:{type(error).__name__}")


def _decoded(
    content: spool.Content,
) -> tuple[list[Observation], list[records.Control], int]:
    """(observations, control records, how many records nobody can read)."""
    observations: list[Observation] = []
    controls: list[records.Control] = []
    unreadable = 0
    writer = spool.writer_of(content.path)  # its first record, which says so, may be damaged
    for payload in content.payloads:
        try:
            record = records.decode(payload, writer)
        except (ValueError, TypeError):
            unreadable += 1
            continue
        if isinstance(record, records.Opened):
            writer = record.writer
        if isinstance(record, Observation):
            observations.append(record)
        else:
            controls.append(record)
    return observations, controls, unreadable


def add_observations(
    settings: Config, observations: Sequence[Observation], *, timeout_seconds: float = 30.0
) -> Report:
    """Settle observations that came another way than the spool (an import).

    Raises:
        LedgerError: if the ledger cannot be opened or written; nothing was changed.
    """
    ledger = open_url(settings.ledger_url, create=True)
    try:
        bring_policy(ledger, settings, timeout_seconds)
        report = Report()
        for at in range(0, len(observations), RECORDS_PER_SETTLEMENT):
            batch = observations[at : at + RECORDS_PER_SETTLEMENT]
            with ledger.settling(timeout_seconds) as settlement:
                report.add(settle(settlement, batch))
        return report
    finally:
        ledger.close()
