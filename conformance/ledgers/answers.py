"""All that a reader can see of a ledger, in an order of its own: what two ledgers must agree on.

Of the numbers of postings only their order is a matter of the protocol: they are left out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from costspan.conformance.ledgers.journals import (
    ATTEMPTS,
    OIDS,
    OPERATIONS,
    RESPONSES,
    SESSIONS,
    SPANS,
    TENANTS,
)
from costspan.core.journal.records import Close
from costspan.core.periods import NO_PERIOD
from costspan.core.privacy.persons import PSEUDONYM, behind
from costspan.core.read.explain import explain
from costspan.core.read.statement import statement_of
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

NAMES = (*ATTEMPTS, *OPERATIONS, *RESPONSES, *SPANS, *OIDS, *SESSIONS, "missing")
PERIODS = ("2026-01", "2026-02", "2026-03", "0000-00")
OWNERS = (*TENANTS, "@unattributed", "@platform")
GROUPS = (("owner",), ("bucket", "effective_period"), ("day", "pool"), ("model",), ())


def everything(ledger: Ledger) -> dict[str, Any]:
    """What every reader's question is answered with, upon a journal drawn by chance."""
    return {**_books(ledger), **_journal(ledger), **_names(ledger), **_pages(ledger)}


def whole_books(ledger: Ledger) -> dict[str, Any]:
    """The books from end to end, whoever's they are; no question is asked of a part of them."""
    postings = [posting for _, posting in ledger.postings_after(0, -1)]
    tenants = sorted({each.line.owner for each in postings if not each.line.owner.startswith("@")})
    periods = sorted({each.line.effective_period for each in postings} - {NO_PERIOD})
    journal = list(ledger.journal())
    persons = ledger.persons.names(set(PSEUDONYM.findall(repr(journal))))
    return {
        "events": [_naming(each, persons) for each in ledger.events()],
        "postings": postings,
        "roll_ups": list(ledger.roll_ups()),
        "added_up": list(ledger.added_up()),
        "sums": [sorted(ledger.sums(by)) for by in (("owner", "bucket"), ("model", "day"))],
        "free_postings": list(ledger.free_postings()),
        "problems": ledger.problems(),
        "counts": ledger.counts(),
        "journal": sorted((behind(seen, persons) for seen in journal), key=repr),
        "controls": ledger.controls(),
        "writers": ledger.writers(),
        "statements": [
            statement_of(ledger, tenant, period).plain() for tenant in tenants for period in periods
        ],
    }


def _naming(settled: Settled, persons: Mapping[str, str]) -> Settled:
    """An event with the persons themselves: each ledger draws pseudonyms of its own for them."""
    event = settled.event
    named = msgspec.structs.replace(event, facts=behind(event.facts, persons))
    return msgspec.structs.replace(settled, event=named)


def _books(ledger: Ledger) -> dict[str, Any]:
    numbered = ledger.postings_after(0, -1)
    first = numbered[0][0] if numbered else 0
    return {
        "events": list(ledger.events()),
        "roll_ups": list(ledger.roll_ups()),
        "roll_ups of an owner": [list(ledger.roll_ups(owner=owner)) for owner in OWNERS],
        "roll_ups of a period": [list(ledger.roll_ups(period)) for period in PERIODS],
        "roll_ups posted in a period": [
            list(ledger.roll_ups(posted_period=period)) for period in PERIODS
        ],
        "added_up": list(ledger.added_up()),
        "sums": [sorted(ledger.sums(by)) for by in GROUPS],
        "sums of days": sorted(
            ledger.sums(("owner",), period="2026-01", since_day="2026-01-02", until_day="2027")
        ),
        "sums of an owner": [sorted(ledger.sums(("model",), owner=owner)) for owner in OWNERS],
        "sums of nobody": list(ledger.sums((), owner="nobody")),
        "untold": sorted(each.event.id for each in ledger.untold()),
        "unknown": [ledger.unknown(owner, period) for owner in OWNERS for period in PERIODS],
        "postings_after": [posting for _, posting in numbered],
        "postings_after the first, two": [each for _, each in ledger.postings_after(first, 2)],
        "postings": [ledger.postings(each.event.id) for each in ledger.events()],
        "sealed": [each for _, each in ledger.sealed("2026-02")],
        "sealed after": [each for _, each in ledger.sealed("2026-03", "2026-01")],
        "given_away": [each for _, each in ledger.given_away("2026-01", first)],
        "cursors": ledger.cursors(),
        "free_postings": list(ledger.free_postings()),
        "free_postings of a period": [list(ledger.free_postings(each)) for each in PERIODS],
        "free_postings of an owner": [list(ledger.free_postings(owner=each)) for each in OWNERS],
        # A seal is over the numbers too, and names the seal before it.
        "closes": [(c.period, c.postings, c.by, c.reason, c.forced) for c in ledger.closes()],
    }


def _journal(ledger: Ledger) -> dict[str, Any]:
    controls = [each for each in ledger.controls() if not isinstance(each, Close)]
    return {
        "problems": ledger.problems(),
        "counts": ledger.counts(),
        "some counts": ledger.counts("events", "unpriced"),
        "journal": sorted(ledger.journal(), key=repr),
        "controls": controls,
        "writers": ledger.writers(),
        "policy_parts": ledger.policy_parts(),
        "charge_books": ledger.charge_books(),
        "damaged": list(ledger.damaged()),
    }


def _names(ledger: Ledger) -> dict[str, Any]:
    reading = ledger.reading()
    ids = [each.event.id for each in ledger.events()]
    return {
        "events of ids": list(ledger.events(ids[1:])),
        "problems of names": ledger.problems([*OIDS, *ids]),
        "find_events": [ledger.find_events(name) for name in NAMES],
        "search_events": [ledger.search_events(name) for name in ("0", "resp-0")],
        "named": [ledger.named(name) for name in NAMES],
        "children": ledger.children(NAMES),
        "in_period": [set(reading.in_period(period)) for period in PERIODS],
        "in_sessions": set(reading.in_sessions(SESSIONS)),
        "started_since": set(reading.started_since(0)),
        "awaiting": [reading.awaiting(what, 2**62, 9) for what in ("call", "batch")],
        "session_owners": reading.session_owners(SESSIONS),
        "observations": sorted(reading.observations(OIDS), key=repr),
    }


def _pages(ledger: Ledger) -> dict[str, Any]:
    """What people read: statements and explanations."""
    ids = [each.event.id for each in ledger.events()]
    return {
        "statements": [
            statement_of(ledger, tenant, period).plain()
            for tenant in TENANTS
            for period in PERIODS[:3]
        ],
        "explanations": [_without_place(explain(ledger, id, [id]).plain()) for id in ids],
    }


def _without_place(value: Any) -> Any:
    """An explanation without the ledger's URL and the numbers of its postings."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {key: _without_place(each) for key, each in fields.items() if key not in _PLACES}
    if isinstance(value, list):
        return [_without_place(each) for each in cast("Sequence[Any]", value)]
    return value


_PLACES = ("ledger", "number")
