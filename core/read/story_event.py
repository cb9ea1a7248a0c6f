"""What a page tells of one event, as named facts: first what matters to who has to pay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from costspan.core.decide import Decision
from costspan.core.money import decimal_of
from costspan.core.periods import NO_PERIOD
from costspan.core.read import words
from costspan.core.read.billed import Billed
from costspan.core.read.corrections import Correction, Entry
from costspan.core.read.explain import Explained
from costspan.core.read.parts import CHARGED_BY
from costspan.core.read.story_price import charged_by, counted, price_facts
from costspan.core.read.witnesses import who

Tone = Literal["", "strong", "quiet", "warn", "bad"]


class Fact(NamedTuple):
    """One named fact."""

    label: str
    text: str
    tone: Tone = ""


_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{32,}")
_REACH = {
    "own": "the call's own instrument",
    "full": "evidence on this call",
    "shared": "evidence on owner, cause and delivery",
}
_FLAGS = {
    "charged_above_cost": "charged above cost",
    "estimated": "the usage was estimated, not reported by the provider",
    "requested_unpriced": "the model asked for has no price for this usage: charged at cost",
    "delivered_unpriced": "what was delivered has no price: charged for all of it",
    "swept": "it started, and nobody saw it end",
    "charge_book_not_applied": "the charge book has no price for it: charged by the rules",
    "charge_book_capped": "the charge book would charge above cost: charged the cost",
    "unpriced": "there is no price for it",
    "unmeasured": "nobody knows what it used",
    "tenant_invalid": "a tenant id was refused",
}


def lines_of(
    node: Explained, numbers: Mapping[str, int], *, alone: bool, every_rule: bool
) -> Iterator[Fact]:
    """Everything about an event. `numbers` are of the tree; `alone`: its headline was said."""
    if not alone:
        yield Fact("in short", node.headline, "strong")
    yield Fact("event", node.id)
    yield from _time(node)
    yield from _route(node, numbers)
    if node.decision is None:
        yield Fact("decided", "nothing yet: it has started and not ended", "warn")
    else:
        yield from _money(node, node.decision)
        yield from _rules(node, node.decision, every_rule)
    yield from map(posted, node.postings)
    yield from map(_corrected, node.corrections)
    yield from map(_billed, node.billed)
    yield from _evidence(node)
    yield from _names(node)


def _time(node: Explained) -> Iterator[Fact]:
    facts = node.event.facts
    if facts.started_at is None:
        return
    took = ""
    if facts.ended_at is not None:
        took = f", took {words.lasted(facts.ended_at - facts.started_at)}"
    yield Fact("started", f"{words.when(facts.started_at)}{took}")


def _route(node: Explained, numbers: Mapping[str, int]) -> Iterator[Fact]:
    facts, decision = node.event.facts, node.decision
    if decision is not None:
        yield Fact("work", f"{decision.cause}, started by the {decision.initiator}")
    asked, answered = facts.requested_model, facts.executed_model
    if asked and answered and asked != answered:
        substituted = decision is not None and decision.features["substituted"] == "yes"
        what = "another model answered" if substituted else "the same model by another name"
        yield Fact("model", f"asked for {asked}, answered by {answered} ({what})")
    where = [facts.provider or ""]
    for what in ("deployment", "region", "tier", "route", "route_reason"):
        if value := getattr(facts, what):
            where.append(f"{what.replace('_', ' ')} {_short(value)}")
    if facts.provider_account:
        where.append(f"account {_short(facts.provider_account)}")
    if any(where):
        yield Fact("provider", ", ".join(part for part in where if part))
    yield from _attempts(node, numbers)
    if facts.error_type is not None or facts.fault is not None:
        said = [
            facts.error_type or "an error",
            f"fault of the {facts.fault}" if facts.fault else "",
            {True: "billed", False: "not billed", None: "billed or not: unknown"}[
                facts.provider_billed
            ],
        ]
        yield Fact("error", ", ".join(part for part in said if part), "bad")
    if facts.cache not in (None, "miss"):
        of = f", filled by {facts.fill_event}" if facts.fill_event else ""
        saved = f", saved {facts.avoided_cost} USD" if facts.avoided_cost else ""
        yield Fact("cache", f"{facts.cache} hit{of}{saved}")


def _attempts(node: Explained, numbers: Mapping[str, int]) -> Iterator[Fact]:
    facts = node.event.facts
    if facts.attempt is not None or facts.retry_of is not None:
        said = f"attempt {facts.attempt}" if facts.attempt is not None else "a retry"
        if facts.retry_of is not None:
            number = numbers.get(facts.retry_of)
            of = (
                f"[{number}] {facts.retry_of}" if number else f"{facts.retry_of} (not in this tree)"
            )
            said += f", a retry of {of}"
        if facts.retry_reason is not None:
            said += f", because of the {facts.retry_reason}"
        yield Fact("retry", said)
    if facts.attempts_hidden:
        many = words.counted(facts.attempts_hidden, "attempt")
        yield Fact("hidden", f"{many} of the client's own were seen by nobody", "warn")


def _money(node: Explained, decision: Decision) -> Iterator[Fact]:
    facts = node.event.facts
    yield from (Fact("tokens", text, "" if kept else "quiet") for text, kept in counted(node))
    if node.price is not None and facts.usage:
        yield from (Fact(label, text) for label, text in price_facts("price", node.price))
    if node.requested_price is not None and facts.usage:
        yield from (
            Fact(label, text) for label, text in price_facts("price asked", node.requested_price)
        )
    if facts.flat_cost is not None:
        yield Fact("flat cost", f"{facts.flat_cost} USD, set where it was called")
    if facts.host_cost is not None:
        yield Fact("second view", f"the host itself says it cost {facts.host_cost} USD", "quiet")
    if node.unknown is not None:
        yield Fact("unknown", node.unknown, "warn")
    elif decision.is_money and decision.cost is not None and decision.charge is not None:
        absorbed = decision.absorbed or 0
        text = f"cost {words.dollars(decision.cost)} = charge {words.dollars(decision.charge)}"
        text += f" + absorbed {words.dollars(absorbed)}"
        tone: Tone = "warn" if absorbed < 0 else "strong"
        yield Fact("result", text + (" (charged above cost)" if absorbed < 0 else ""), tone)


def _rules(node: Explained, decision: Decision, every_rule: bool) -> Iterator[Fact]:
    """The rule of each table that decided, and those before it with the condition they missed."""
    via = f"; found through {decision.via}" if decision.via else ""
    shares = [f"{share.owner} ({share.bucket})" for share in decision.shares]
    bears = ", ".join(shares or [f"{decision.owner} ({decision.bucket})"]) + via
    if decision.driver not in (None, decision.owner):
        bears += f"; the work is {decision.driver}'s"
    yield Fact("owner", bears, "strong")
    missed: list[Fact] = []
    for tried in node.tried:
        if tried.missed is not None:
            missed.append(Fact(f"  not {tried.rule}", f"{tried.missed} ({tried.because})", "quiet"))
            continue
        if every_rule or _matters(tried.table, tried.rule, decision):
            because = tried.because
            if tried.table == "price" and decision.features["basis"] == "flat":
                because = "charged its flat cost: no model's price decides"
            yield Fact(f"why {tried.table}", f"{tried.rule}: {because}")
            yield from missed
        missed = []
    yield from (Fact("why charge", f"CB: {charged_by(entry)}") for entry in node.charge_entries)
    known = {f"{CHARGED_BY}{entry.id}" for entry in node.charge_entries}
    if flags := [_FLAGS.get(name, name) for name in decision.flags if name not in known]:
        yield Fact("flags", "; ".join(flags), "warn")


def _matters(table: str, rule: str, decision: Decision) -> bool:
    if table in ("cost", "owner", "bucket"):
        return True
    if not decision.is_money or (table == "price" and decision.features["basis"] == "none"):
        return False
    return rule in decision.rules


def posted(entry: Entry) -> Fact:
    """A posting: whose, how much, in which month and whether that is sealed."""
    where = f"{entry.owner} {entry.bucket}{f' pool {entry.pool}' if entry.pool else ''}"
    state = "closed" if entry.is_closed else "open"
    late = f"; it belongs to {entry.effective_period}" if entry.is_late else ""
    amounts = f"cost {words.trimmed(entry.cost)}, charge {words.trimmed(entry.charge)} USD"
    month = f"in {entry.posted_period} ({state} month{late})"
    if entry.posted_period == NO_PERIOD:
        month = "in no month: nobody gave it a time"
    return Fact("posted", f"{where}: {amounts}, {month}")


def _corrected(one: Correction) -> Fact:
    stands = "" if one.in_force else "; a later one counts"
    text = f'{words.when(one.recorded_at)} {one.what}, by {one.by}: "{one.reason}"{stands}'
    return Fact("corrected", text, "" if one.in_force else "quiet")


def _billed(one: Billed) -> Fact:
    lines = ",".join(str(number) for number in one.numbers[:4])
    more = ",…" if len(one.numbers) > 4 else ""
    about = " ".join(part for part in (one.model, one.component, one.tier or "") if part)
    said = [f"{one.invoice[:12]}:{lines}{more} (version {one.version}) {one.day} {about}".strip()]
    if one.quantity is not None:
        said.append(f"{one.quantity:,} billed")
    if one.requests is not None:
        said.append(words.counted(one.requests, "request"))
    said.append(f"{words.trimmed(one.amount)} {one.currency}")
    if one.implied is not None:
        ours = "" if one.rate is None else f" (our price: {one.rate})"
        said.append(f"which is {one.implied} per 1M{ours}")
    if one.part is not None:
        said.append(f"this event is {one.part} of it")
    if one.is_provisional:
        said.append("provisional")
    odd = one.implied is not None and one.rate is not None and not _same(one.implied, one.rate)
    return Fact("invoice", ", ".join(said), "warn" if odd else "")


def _same(one: str, other: str) -> bool:
    return decimal_of(one) == decimal_of(other)


def _evidence(node: Explained) -> Iterator[Fact]:
    for seen in node.witnesses:
        won = ", ".join(seen.won) or "nothing that others did not say better"
        reach = _REACH.get(seen.reach, seen.reach)
        yield Fact("seen by", f"{who(seen)} ({seen.oid}), {reach}; believed about: {won}")
    layers = {seen.oid: who(seen) for seen in node.witnesses}
    for name, said in sorted(node.disagreements.items()):
        yield Fact("disagree", f"{name}: {_claims(node, name, said, layers)}", "warn")
    if node.archived:
        many = words.counted(node.archived, "observation")
        yield Fact("archived", f"{many} of it are in an archive: costspan prune --restore", "warn")
    for problem in node.problems:
        yield Fact("problem", problem, "warn")


def _claims(node: Explained, name: str, said: Mapping[str, Any], layers: Mapping[str, str]) -> str:
    claims = [f"{layers.get(oid, oid)} says {_value(value)}" for oid, value in sorted(said.items())]
    return f"{'; '.join(claims)}; kept {_value(getattr(node.event.facts, name, None))}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def _names(node: Explained) -> Iterator[Fact]:
    facts = node.event.facts
    for name in ("tenant", "session", "request_id", "trace_id", "response_id", "user"):
        if (value := getattr(facts, name)) is not None:
            source = f" ({facts.tenant_source})" if name == "tenant" and facts.tenant_source else ""
            yield Fact(name.removesuffix("_id"), f"{_short(value)}{source}", "quiet")
    for name in ("feature", "agent", "workload"):
        if (value := getattr(facts, name)) is not None:
            yield Fact(name, value, "quiet")
    for label, value in sorted((facts.labels or {}).items()):
        yield Fact("label", f"{label} = {value}", "quiet")
    if facts.client_claims:
        yield Fact("claimed", f"{_value(facts.client_claims)} (decides nothing)", "quiet")


def _short(name: str) -> str:
    """A digest by its first digits; any other name whole."""
    return f"{name[:12]}..." if _DIGEST.fullmatch(name) else name
