"""What holds of every event in the books, whatever was played: also of those that cost nothing.

The sums of a scenario say nothing of an event without a known amount, and can hide two errors
behind one right total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from costspan.conformance.provider.truth import Row
from costspan.conformance.suite.script import Scenario, steps_in
from costspan.core.money import format_usd, parse_usd

_NEVER_CHARGED = frozenset({"failed", "blocked", "unknown", "cancelled_by_platform"})


def unsound(
    scenario: Scenario, events: Iterable[Mapping[str, Any]], truth: Sequence[Row]
) -> Iterator[str]:
    """What is wrong with single events, a line each.

    Args:
        scenario: What was played.
        events: All events in the books.
        truth: The provider's rows of this play.
    """
    owners = {*scenario.tenants, *(row.tenant for row in truth if row.tenant)}
    owners |= {name for name in scenario.expected.ledger if name != "$tenant"}
    owners |= {str(getattr(step, "tenant", None)) for step in steps_in(scenario.script)}
    fates: Counter[tuple[str, str]] = Counter()
    for event in events:
        driver = event.get("driver") or ""
        fates[driver, _fate(event)] += 1
        for who in {driver, event.get("owner") or ""} - owners:
            if who and not who.startswith("@"):
                yield f"an event of {who}, whom nobody played"
        if driver and event.get("owner") == "@unattributed":
            yield f"an event that {driver} caused is nobody's (O4, O5 before O7)"
        yield from _amounts(event)
    yield from _uneven(scenario, fates)


def _amounts(event: Mapping[str, Any]) -> Iterator[str]:
    """The shares add up, and nobody is charged for what failed (C1) or is no tenant's (C2)."""
    if event.get("cost") is None:
        return
    shares = event["shares"]
    for name in ("cost", "charge"):
        total = sum(parse_usd(share[name]) for share in shares)
        if total != parse_usd(event[name]):
            yield f"an event's {name} is {event[name]}, its shares add up to {format_usd(total)}"
    if event["outcome"] in _NEVER_CHARGED and parse_usd(event["charge"]):
        yield f"{event['charge']} is charged for an event that is {event['outcome']}"
    for share in shares:
        if share["owner"].startswith("@") and parse_usd(share["charge"]):
            yield f"{share['charge']} is charged to {share['owner']}"
    if _is_overcharged(event):
        yield f"an estimate of {event['cost']} is charged {event['charge']}, and no flag says so"


def _is_overcharged(event: Mapping[str, Any]) -> bool:
    is_more = parse_usd(event["charge"]) > parse_usd(event["cost"])
    return is_more and "charged_above_cost" not in event.get("flags", ())


def _fate(event: Mapping[str, Any]) -> str:
    # How much of a stream had come when it broke is a matter of moments: estimated, or not even so.
    is_told = event["outcome"] != "open" and event.get("usage_source") != "estimated"
    if not is_told or event.get("cost") is None:
        return "whose usage never came"
    return "that cost something" if parse_usd(event["cost"]) else "that cost nothing"


def _uneven(scenario: Scenario, fates: Counter[tuple[str, str]]) -> Iterator[str]:
    """The same script is played for each tenant: each has as many events of each kind."""
    for fate in sorted({fate for _, fate in fates}):
        numbers = {tenant: fates[tenant, fate] for tenant in scenario.tenants}
        if len(set(numbers.values())) > 1:
            said = ", ".join(f"{tenant} {number}" for tenant, number in numbers.items())
            yield f"the tenants played the same, but of events {fate} there are: {said}"
