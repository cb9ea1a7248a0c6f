"""All that a reader can see of a ledger, in an order of its own: what two ledgers must agree on."""

from __future__ import annotations

from typing import Any

from journals import (
    ATTEMPTS,
    GATEWAY,
    OIDS,
    OPERATIONS,
    POLICIES,
    RESPONSES,
    SESSIONS,
    SPANS,
    TENANTS,
    Journal,
    policy_record,
)

from costspan.core.schema import Observation
from costspan.core.settle import Report, settle
from costspan.core.settle.ledger import Ledger

NAMES = (*ATTEMPTS, *OPERATIONS, *RESPONSES, *SPANS, *OIDS, *SESSIONS, "missing")
PERIODS = ("2026-01", "2026-02", "2026-03", "0000-00")
FIELDS = (("owner",), ("bucket", "effective_period"), ("day", "pool"), ())


def begin(ledger: Ledger) -> Ledger:
    """Let a new ledger hold the first policy, and know what the second one names."""
    with ledger.settling(5) as settlement:
        for rule in POLICIES:
            settlement.keep_rule_set(rule.rules)
            for book in rule.books:
                settlement.keep_price_book(book)
        settle(settlement, [], [policy_record(POLICIES[0])])
    return ledger


def fill(ledger: Ledger, journal: Journal, reports: list[Report] | None = None) -> Ledger:
    """Settle every batch of a journal; `reports` hears what each settlement did."""
    for batch in journal.batches:
        seen = [each for each in batch if isinstance(each, Observation)]
        controls = [each for each in batch if not isinstance(each, Observation)]
        with ledger.settling(5) as settlement:
            report = settle(settlement, seen, controls, (GATEWAY,))
        if reports is not None:
            reports.append(report)
    return ledger


def everything(ledger: Ledger) -> dict[str, Any]:
    """What every reader's question is answered with."""
    events = list(ledger.events())
    reading = ledger.reading()
    return {
        "events": events,
        "these": list(ledger.events([each.event.id for each in events[1:]])),
        "roll_ups": list(ledger.roll_ups()),
        "of a tenant": [list(ledger.roll_ups(owner=owner)) for owner in TENANTS],
        "of a period": [list(ledger.roll_ups(period, None, "2026-01")) for period in PERIODS],
        "added_up": list(ledger.added_up()),
        "sums": [sorted(ledger.sums(by)) for by in FIELDS],
        "sums of days": sorted(
            ledger.sums(("owner",), period="2026-01", since_day="2026-01-02", until_day="2027")
        ),
        "sums of nobody": list(ledger.sums((), owner="nobody")),
        "untold": sorted(each.event.id for each in ledger.untold()),
        "unknown": [ledger.unknown(owner, at) for owner in TENANTS for at in PERIODS],
        "postings": ledger.postings_after(0, -1),
        "some postings": ledger.postings_after(1, 2),
        "of an event": [ledger.postings(each.event.id) for each in events],
        "sealed": list(ledger.sealed("2026-02")),
        "sealed after": list(ledger.sealed("2026-03", "2026-01")),
        "given_away": list(ledger.given_away("2026-01", 3)),
        "cursors": ledger.cursors(),
        "free": list(ledger.free_postings()),
        "closes": ledger.closes(),
        "problems": ledger.problems(),
        "of names": ledger.problems([*OIDS, *(each.event.id for each in events)]),
        "counts": ledger.counts(),
        "journal": sorted(map(repr, ledger.journal())),
        "controls": ledger.controls(),
        "writers": ledger.writers(),
        "found": [ledger.find_events(name) for name in NAMES],
        "searched": [ledger.search_events(name) for name in ("0", "resp-0")],
        "named": [ledger.named(name) for name in NAMES],
        "children": ledger.children(NAMES),
        "policies": ledger.policy_parts(),
        "charge books": ledger.charge_books(),
        "in_period": [reading.in_period(period) for period in PERIODS],
        "in_sessions": reading.in_sessions(SESSIONS),
        "started_since": reading.started_since(0),
        "awaiting": [reading.awaiting(what, 2**62, 9) for what in ("call", "batch")],
        "owners": reading.session_owners(SESSIONS),
        "observations": sorted(map(repr, reading.observations(OIDS))),
        "waiting": [reading.waiting([f"{kind}{name}"]) for kind in "arox" for name in NAMES],
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Which answers differ, and how."""
    return [f"{key}: {one[key]!r} / {other[key]!r}" for key in one if one[key] != other[key]]
