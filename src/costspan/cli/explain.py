"""`costspan explain ID`: why something cost what it cost."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import OK
from costspan.cli.moments import lasted, span, when
from costspan.cli.printing import (
    Block,
    Page,
    amount,
    counted,
    joined,
    print_json,
    shown,
    to_stderr,
)
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.decide import Decision
from costspan.core.prices import UNIT_COMPONENTS
from costspan.core.read.explain import Entry, Explained, Explanation, Priced, Witness
from costspan.core.read.tree import EVENTS_MAX

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{32,}")
_OUTCOME_STYLE = {"ok": "green", "failed": "red", "blocked": "red", "unknown": "yellow"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="an attempt, operation, request (ours or the caller's), trace, session or response id",
    )
    parser.add_argument(
        "--rules",
        dest="every_rule",
        action="store_true",
        help="every rule that was tried, and the first condition that it missed",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print the tree of what the id names."""
    with open_books(reader_settings_of(options)) as books:
        found = books.explain(options.id)
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json(found.plain())
            return OK
    page = Page()
    page.line(f"ledger {found.ledger}", "dim")
    print_explanation(page, found, every_rule=options.every_rule)
    return OK


def print_explanation(page: Page, found: Explanation, *, every_rule: bool = False) -> None:
    """Print the trees of an explanation; with `every_rule`, the rules that missed too."""
    page.line(_title(found))
    matched = frozenset(found.matched)
    everything = {node.id for root in found.roots for node in _every(root)}
    teller = _Teller(frozenset() if everything <= matched else matched, every_rule)
    page.tree(map(teller.block, found.roots))
    if found.is_cut:
        page.line(f"there is more: these are the first {EVENTS_MAX:,} events", "yellow")


def _title(found: Explanation) -> Text:
    nodes = [node for root in found.roots for node in _every(root)]
    events = len(nodes)
    unknown = sum(node.unknown is not None for node in nodes)
    all_unknown = unknown and not any(node.cost is not None for node in nodes)
    return joined(
        Text(shown(found.name), "bold"),
        f"{counted(events, 'event')} in its tree",
        joined("cost", amount(None if all_unknown else found.cost), by=" "),
        joined("charge", amount(None if all_unknown else found.charge), by=" "),
        Text(f"and {counted(unknown, 'event')} of unknown cost" if unknown else "", "yellow"),
    )


def _every(node: Explained) -> Iterator[Explained]:
    yield node
    for below in node.below:
        yield from _every(below)


class _Teller:
    """Tells each event as a block of named lines."""

    def __init__(self, matched: frozenset[str], every_rule: bool) -> None:
        self._matched = matched
        self._every_rule = every_rule

    def block(self, node: Explained) -> Block:
        """An event and what is below it."""
        lines = list(self._lines(node))
        if node.under is not None:
            lines.insert(0, ("below", joined(shown(node.under), "(a deep tree, told in pieces)")))
        return Block(self._head(node), lines, [*map(self.block, node.below)])

    def _head(self, node: Explained) -> Text:
        facts, decision = node.event.facts, node.decision
        asked, answered = facts.requested_model, facts.executed_model
        model = shown(answered or asked or "")
        if asked and answered and asked != answered:
            model = f"{shown(asked)} -> {shown(answered)}"
        outcome = "open" if node.event.is_open else node.event.outcome
        if decision is None or decision.is_money:
            cost = joined(amount(node.cost), "USD", by=" ")
        else:
            cost = Text("no money", "dim")
        return joined(
            Text(facts.kind or "model", "bold"),
            Text(f'"{shown(facts.name)}"' if facts.name else "", "italic"),
            Text(model, "cyan"),
            Text(outcome, _OUTCOME_STYLE.get(outcome, "yellow")),
            cost,
            Text("<- asked for", "magenta") if node.id in self._matched else "",
        )

    def _lines(self, node: Explained) -> Iterator[tuple[str, Text]]:
        facts = node.event.facts
        yield "event", Text(shown(node.id))
        took = ""
        if facts.started_at is not None and facts.ended_at is not None:
            took = f"took {lasted(facts.ended_at - facts.started_at)}"
        yield "started", joined(when(facts.started_at), took)
        yield from _attempt(node)
        if facts.usage:
            counts = ", ".join(f"{shown(name)} {n:,}" for name, n in sorted(facts.usage.items()))
            yield "tokens", Text(f"{counts} ({facts.usage_source or 'provider'})")
        for name in ("session", "request_id", "trace_id", "response_id", "feature", "agent"):
            if (value := getattr(facts, name)) is not None:
                yield name.removesuffix("_id"), Text(shown(value))
        for label, value in sorted((facts.labels or {}).items()):
            yield "label", Text(f"{shown(label)} = {shown(value)}")
        yield from map(_witness, node.witnesses)
        yield from _disagreements(node)
        for problem in node.problems:
            yield "problem", Text(shown(problem), "yellow")
        if node.decision is not None:
            yield from self._decided(node, node.decision)
        else:
            yield "decided", Text("nothing yet: it has started and not ended", "yellow")
        yield from map(_posted, node.postings)

    def _decided(self, node: Explained, decision: Decision) -> Iterator[tuple[str, Text]]:
        used = node.event.facts.usage or {}
        if node.price is not None and used:
            yield "price", _price(node.price, used)
        if node.requested_price is not None:
            yield "price asked", _price(node.requested_price, used)
        owner = joined(Text(shown(decision.owner), "bold"), f"({decision.bucket})", by=" ")
        if decision.driver not in (None, decision.owner):
            owner.append(f", for {shown(decision.driver or '')}")
        if decision.via is not None:
            owner.append(f", found through {shown(decision.via)}")
        yield "owner", owner
        yield "work", Text(f"{decision.cause}, started by the {decision.initiator}")
        yield from self._rules(node, decision)
        if node.unknown is not None:
            yield "unknown", Text(shown(node.unknown), "yellow")
        elif decision.is_money:
            yield "result", _result(node)
        if decision.flags:
            yield "flags", Text(shown(", ".join(decision.flags)), "yellow")

    def _rules(self, node: Explained, decision: Decision) -> Iterator[tuple[str, Text]]:
        """The rules that decided; those that only say that nothing special applies stand back."""
        for tried in node.tried:
            if tried.missed is not None:
                if self._every_rule:
                    text = Text(f"{tried.rule} no: {shown(tried.missed)}", "dim")
                    yield f"why {tried.table}", text.append(f" ({shown(tried.because)})")
            elif self._every_rule or _matters(tried.table, tried.rule, decision):
                because = _because(tried.table, tried.because, decision)
                yield f"why {tried.table}", joined(Text(tried.rule, "bold"), because, by=": ")


def _matters(table: str, rule: str, decision: Decision) -> bool:
    if table in ("cost", "owner", "bucket"):
        return True
    if not decision.is_money or (table == "price" and decision.features["basis"] == "none"):
        return False
    return rule in decision.rules


def _because(table: str, because: str, decision: Decision) -> str:
    """Why a rule decided; one about the price of models is not that of a flat cost."""
    if table == "price" and decision.features["basis"] == "flat":
        return "charged its flat cost: no model's price decides"
    return shown(because)


def _attempt(node: Explained) -> Iterator[tuple[str, Text]]:
    facts = node.event.facts
    where = [facts.provider or ""]
    for what in ("deployment", "region", "route", "tier"):
        if value := getattr(facts, what):
            where.append(f"{what} {_short(value)}")
    if facts.provider_account:
        where.append(f"account {_short(facts.provider_account)}")
    if any(where):
        yield "provider", joined(*map(shown, where))
    if facts.attempt is not None or facts.retry_of is not None:
        said = [f"attempt {facts.attempt}" if facts.attempt is not None else "a retry"]
        if facts.retry_of is not None:
            said.append(f"of {facts.retry_of}")
        if facts.retry_reason is not None:
            said.append(f"after a fault of the {facts.retry_reason}")
        yield "retry", joined(*said, by=" ")
    if facts.error_type is not None:
        fault = f"fault of the {facts.fault}" if facts.fault else ""
        billed = {True: "billed", False: "not billed", None: "billed or not: unknown"}
        yield "error", joined(facts.error_type, fault, billed[facts.provider_billed])
    if facts.cache not in (None, "miss"):
        yield (
            "cache",
            joined(f"{facts.cache} hit", f"of {facts.fill_event}" if facts.fill_event else ""),
        )


def _short(name: str) -> str:
    """A digest by its first digits; any other name whole."""
    return f"{name[:12]}..." if _DIGEST.fullmatch(name) else name


def _witness(seen: Witness) -> tuple[str, Text]:
    who = f"{seen.layer}{f' {seen.source}' if seen.source else ''}"
    reach = {
        "own": "",
        "full": "speaks for all of it",
        "shared": "speaks of owner, cause and delivery only",
    }
    said = joined(shown(who), seen.phase.upper(), reach.get(seen.reach, seen.reach))
    return "seen by", said.append_text(Text(f"  {shown(seen.oid)}", "dim"))


def _disagreements(node: Explained) -> Iterator[tuple[str, Text]]:
    layers = {seen.oid: f"{seen.layer} {seen.phase}" for seen in node.witnesses}
    for name, said in sorted(node.disagreements.items()):
        claims = [f"{layers.get(oid, oid)} {_value(value)}" for oid, value in sorted(said.items())]
        kept = getattr(node.event.facts, name, None)
        text = f"{name}: {'; '.join(claims)}; kept {_value(kept)}"
        yield "disagree", Text(shown(text), "yellow")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def _price(price: Priced, used: Iterable[str]) -> Text:
    wanted = [name for name in price.rates if name in set(used)]
    rates = ", ".join(
        f"{name} {price.rates[name]}{' each' if name in UNIT_COMPONENTS else ''}" for name in wanted
    )
    name = f"{price.model}{f' tier {price.tier}' if price.tier else ''}"
    book = f"{price.book}{f' {price.version}' if price.version else ''}"
    dates = span(price.effective_from, price.effective_to)
    per = " USD per 1M tokens" if any(name not in UNIT_COMPONENTS for name in wanted) else ""
    text = f"{shown(name)}: {rates}{per}; {shown(book)}, {dates}, "
    return Text(text).append(f"row {price.row}", "dim")


def _result(node: Explained) -> Text:
    text = joined("cost", amount(node.cost), "= charge", amount(node.charge), by=" ")
    text.append(" + absorbed ").append_text(amount(node.absorbed))
    if (node.absorbed or "").startswith("-"):
        text.append("  charged above cost", "yellow")
    return text


def _posted(entry: Entry) -> tuple[str, Text]:
    line = f"{entry.owner} {entry.bucket}{f' pool {entry.pool}' if entry.pool else ''}"
    late = "" if entry.posted_period == entry.effective_period else f" in {entry.posted_period}"
    text = joined(
        shown(line),
        f"{entry.effective_period}{late}",
        joined("cost", amount(entry.cost), by=" "),
        joined("charge", amount(entry.charge), by=" "),
    )
    return "posted", text
