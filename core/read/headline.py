"""Who pays how much, and why: one sentence about an event, one about several."""

from __future__ import annotations

from collections.abc import Iterable

from costspan.core.decide import Decision
from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED
from costspan.core.join import Event
from costspan.core.read import words
from costspan.core.settle.entries import Settled

_OWNERS_MAX = 6

_KINDS = {
    None: "model call",
    "model": "model call",
    "embedding": "embedding call",
    "tool": "tool run",
    "retrieval": "retrieval",
    "guardrail": "guardrail call",
    "router": "router call",
    "cache": "cache look-up",
    "image": "image call",
    "audio": "audio call",
    "rerank": "reranking call",
    "request": "request",
}


_OUTCOMES = {
    "failed": "failed",
    "blocked": "blocked",
    "cancelled_by_user": "cancelled",
    "cancelled_by_platform": "cancelled",
}


def headline_of(each: Settled, because: list[str], unknown: str | None) -> str:
    """The sentence about one event; `because` are the reasons of the rules that matter most."""
    what = _what(each.event)
    decision = each.decision
    if decision is None:
        return f"Nobody pays yet for {what}: it has started and not ended."
    if decision.cost is None or decision.charge is None:
        owner = _name(decision.owner)
        return f"Nobody knows yet what {what} cost {owner}: {unknown or 'it has no price'}."
    if not decision.is_money:
        return f"Nobody pays for {what}: it is work without a price of its own."
    charged = {
        (share.owner, share.bucket): share.charge for share in decision.shares if share.charge
    }
    if not charged:
        return f"{_nobody(decision, what)} {_why(because)}"
    payers = [
        f"{owner} pays {words.dollars(charge)} ({bucket})"
        for (owner, bucket), charge in sorted(charged.items())
    ]
    said = f"{words.listed(_few(payers))} for {what}"
    return f"{said}{_beside(decision)}. {_why(because)}"


def _nobody(decision: Decision, what: str) -> str:
    cost = words.dollars(decision.cost or 0)
    if not decision.cost:
        return f"Nobody pays for {what}: it cost {cost}, on the account of {_owners(decision)}."
    if decision.owner == UNATTRIBUTED:
        return f"Nobody pays for {what}: it cost {cost} and is unattributed."
    if decision.owner == PLATFORM:
        return f"The platform bears {cost} for {what}; no tenant is charged."
    return (
        f"{_owners(decision)} is charged nothing for {what}; it cost {cost},"
        " which the platform absorbs."
    )


def _beside(decision: Decision) -> str:
    """The cost, where it is not the charge."""
    cost, charge = decision.cost or 0, decision.charge or 0
    if cost == charge:
        return ""
    borne = {
        share.owner: share.cost
        for share in decision.shares
        if share.owner in (PLATFORM, UNATTRIBUTED) and share.cost
    }
    parts = [f"it cost {words.dollars(cost)}"]
    if charge > cost:
        parts.append(f"{words.dollars(charge - cost)} is charged above cost")
    elif borne:
        parts += [f"{words.dollars(amount)} is {_name(owner)}'s" for owner, amount in borne.items()]
        rest = cost - charge - sum(borne.values())
        if rest:
            parts.append(f"the platform absorbs {words.dollars(rest)}")
    else:
        parts.append(f"the platform absorbs {words.dollars(cost - charge)}")
    return f"; {words.listed(parts)}"


def _why(because: list[str]) -> str:
    return f"Why: {'; '.join(because)}." if because else ""


def _owners(decision: Decision) -> str:
    owners = sorted({share.owner for share in decision.shares} or {decision.owner})
    return words.listed(_few([_name(owner) for owner in owners]))


def _name(owner: str) -> str:
    return {PLATFORM: "the platform", UNATTRIBUTED: "nobody known"}.get(owner, owner)


def _what(event: Event) -> str:
    facts = event.facts
    kind = _KINDS.get(facts.kind, facts.kind or "call")
    if event.outcome in _OUTCOMES:
        kind = f"{_OUTCOMES[event.outcome]} {kind}"
    article = "an" if kind[0] in "aeiou" else "a"
    named = f' "{facts.name}"' if facts.name else ""
    asked, answered = facts.requested_model, facts.executed_model
    if asked and answered and asked != answered:
        model = f" to {answered} (asked for: {asked})"
    elif answered or asked:
        model = f" to {answered or asked}"
    else:
        model = ""
    at = f" of {words.when(event.at_ns)}" if event.at_ns is not None else ""
    return f"{article} {kind}{named}{model}{at}"


def _few(parts: list[str]) -> list[str]:
    if len(parts) <= _OWNERS_MAX:
        return parts
    return [*parts[: _OWNERS_MAX - 1], f"{len(parts) - _OWNERS_MAX + 1:,} others"]


def headline_of_all(events: Iterable[Settled]) -> str:
    """The sentence about several events: who pays how much for all of them."""
    charges: dict[str, dict[str, int]] = {}
    cost = charge = count = unknown = waiting = 0
    borne = {PLATFORM: 0, UNATTRIBUTED: 0}
    for each in events:
        count += 1
        decision = each.decision
        if decision is None:
            waiting += 1
            continue
        if decision.cost is None:
            unknown += 1
            continue
        cost += decision.cost
        charge += decision.charge or 0
        for share in decision.shares:
            if share.owner in borne:
                borne[share.owner] += share.cost
            else:
                buckets = charges.setdefault(share.owner, {})
                buckets[share.bucket] = buckets.get(share.bucket, 0) + share.charge
    payers = [
        f"{owner} pays {words.dollars(sum(buckets.values()))} ({_buckets(buckets)})"
        for owner, buckets in sorted(charges.items(), key=lambda one: (-sum(one[1].values()), one))
    ]
    said = words.listed(_few(payers)) or "No tenant pays anything"
    said = f"{said} for {words.counted(count, 'event')} that cost {words.dollars(cost)}"
    rest = [
        f"the platform's own share is {words.dollars(borne[PLATFORM])}" if borne[PLATFORM] else "",
        f"{words.dollars(borne[UNATTRIBUTED])} is unattributed" if borne[UNATTRIBUTED] else "",
        _absorbed(cost - charge - sum(borne.values())),
    ]
    if any(rest):
        said += f"; {words.listed([part for part in rest if part])}"
    if unknown:
        said += f"; what {words.counted(unknown, 'more event')} cost is unknown"
    if waiting:
        said += f"; {words.counted(waiting, 'event')} {'has' if waiting == 1 else 'have'} not ended"
    return f"{said}."


def _absorbed(rest: int) -> str:
    if rest > 0:
        return f"the platform absorbs {words.dollars(rest)} of tenants' work"
    return f"tenants pay {words.dollars(-rest)} more than it cost" if rest else ""


def _buckets(buckets: dict[str, int]) -> str:
    paid = [(bucket, amount) for bucket, amount in sorted(buckets.items()) if amount]
    if len(paid) == 1:
        return paid[0][0]
    return ", ".join(f"{bucket} {words.dollars(amount)}" for bucket, amount in paid) or "nothing"
