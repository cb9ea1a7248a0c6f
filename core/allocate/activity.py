"""What tenants did in a period: what pools are shared out by, and back-tests are scored on.

An event counts where it stands in a tenant's direct or agent rows: what nobody knows the cost of,
and the platform's own work, is nobody's activity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.reconcile.naming import Rows
from costspan.core.reconcile.recorded import Biller, biller_of
from costspan.core.schema import Observation
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import effective_of

OWN_BUCKETS = frozenset({"direct", "agent"})
_CACHED = ("cache_read", "cache_write_5m", "cache_write_1h")
_TELL_EVERY = 1000


class Own(NamedTuple):
    """What stands in a tenant's direct and agent rows: pico-USD, and how many events."""

    cost: int
    requests: int


class Measured(msgspec.Struct):
    """What only the events themselves tell, by tenant; one entry a tenant that did any of it.

    `tokens` are of every kind; `prefix` is the longest cached prompt prefix of one call (tokens);
    `sessions` are different ones. `accounts` counts the events that each provider (its canonical
    name) bills to each account, open ones too; "" is one that nobody named.
    """

    tokens: dict[str, int] = {}
    prefix: dict[str, int] = {}
    sessions: dict[str, int] = {}
    accounts: dict[Biller, int] = {}


def own_costs(ledger: Ledger, period: str) -> dict[str, Own]:
    """Every tenant with rows of its own in a period (YYYY-MM), from the roll-up's lines."""
    found: dict[str, Own] = {}
    for (owner, bucket), (cost, _, events) in ledger.sums(("owner", "bucket"), period=period):
        if bucket in OWN_BUCKETS and not owner.startswith("@"):
            known = found.get(owner)
            found[owner] = (
                Own(cost, events)
                if known is None
                else Own(known.cost + cost, known.requests + events)
            )
    return found


def measured(ledger: Ledger, period: str, tell: Callable[[int], None] | None = None) -> Measured:
    """One look at every event, one at a time; `tell` hears how many so far."""
    found = Measured({}, {}, {}, {})
    seen: set[int] = set()
    rows = Rows(ledger)
    for number, each in enumerate(ledger.events(), 1):
        if tell is not None and number % _TELL_EVERY == 0:
            tell(number)
        if effective_of(each.event, each.decision)[0] != period:
            continue
        if (biller := biller_of(each, rows)) is not None:
            found.accounts[biller] = found.accounts.get(biller, 0) + 1
        if each.decision is None:
            continue
        facts = each.event.facts
        for owner in _owners(each):
            _add(found.tokens, owner, _tokens_of(facts, owner))
            prefix = sum((facts.usage or {}).get(component, 0) for component in _CACHED)
            if prefix > found.prefix.get(owner, 0):
                found.prefix[owner] = prefix
            if facts.session is not None and (key := _digest(owner, facts.session)) not in seen:
                seen.add(key)
                _add(found.sessions, owner, 1)
    return found


def _owners(each: Settled) -> set[str]:
    return {
        line.owner
        for line, _ in each.posted
        if line.bucket in OWN_BUCKETS and not line.owner.startswith("@")
    }


def _tokens_of(facts: Observation, owner: str) -> int:
    """The tokens of one owner: a batch says those of each of its members."""
    if facts.members and owner in facts.members:
        return facts.members[owner]
    usage = facts.usage or {}
    return sum(count for component, count in usage.items() if component not in UNIT_COMPONENTS)


def _add(sums: dict[str, int], owner: str, count: int) -> None:
    if count:
        sums[owner] = sums.get(owner, 0) + count


def _digest(owner: str, session: str) -> int:
    """64 bits of a tenant's session: so few that a month of sessions fits the memory."""
    text = f"{owner}\0{session}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
