"""`costspan prices why --event` and `unpriced`: the price of an event, and what has none."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import NOT_FOUND, OK, UsageError
from costspan.cli.moments import period, when
from costspan.cli.printing import (
    Block,
    Column,
    Page,
    amount,
    counted,
    joined,
    print_csv,
    print_json,
    shown,
    to_stderr,
)
from costspan.core.money import format_usd
from costspan.core.prices import Verdict
from costspan.core.read.books import Books, NotFound
from costspan.core.read.grouping import Selection
from costspan.core.read.reasons import Reasons
from costspan.core.settle.corrections import restated
from costspan.core.settle.entries import Settled
from costspan.core.settle.policy import Policies

_COLUMNS = ("provider", "model", "tier", "events", "first", "last", "why")


def run_event(
    books: Books, options: argparse.Namespace, block_of: Callable[[Verdict], Block]
) -> int:
    """Print which row prices an event, and why that one."""
    ledger = books.ledger
    with ledger.snapshot():
        found = ledger.find_events(options.event, 20)
        if not found:
            raise NotFound(f"no event has the id {shown(options.event)}")
        if len(found) > 1:
            raise UsageError(f"{shown(options.event)} names several events: {', '.join(found)}")
        each = next(ledger.events(found))
        plain, verdicts = _priced(books, each)
    if options.json:
        to_stderr(f"ledger: {books.url}")
        print_json({**plain, "books": msgspec.to_builtins(verdicts)})
    else:
        _print_event(Page(), books.url, plain, list(map(block_of, verdicts)))
    return OK if plain["price_row"] is not None else NOT_FOUND


def _priced(books: Books, each: Settled) -> tuple[dict[str, Any], list[Verdict]]:
    facts, decision = each.event.facts, each.decision
    reading = books.ledger.reading()
    restatement = restated(reading, {each.event.id: each}).get(each.event.id)
    in_force = Policies(reading).at(each.event, restatement)
    at_ns = each.event.at_ns or 0
    name = facts.executed_model or facts.requested_model
    terms = (facts.provider, facts.tier, facts.region, None, at_ns, facts.price_book)
    usage = facts.usage or {}
    verdicts = [] if name is None else in_force.prices.explain(name, *terms)
    match = None if name is None else in_force.prices.find(name, *terms)
    cost = None if decision is None else decision.cost
    by_price = decision is not None and decision.features["basis"] == "usage"
    return {
        "event": each.event.id,
        "at": each.event.at_ns,
        "requested_model": facts.requested_model,
        "executed_model": facts.executed_model,
        "provider": facts.provider,
        "tier": facts.tier,
        "region": facts.region,
        "usage": usage,
        "cost": None if cost is None else format_usd(cost),
        "cost_rule": None if decision is None else decision.cost_rule,
        "by_price": by_price,
        "price_row": None if decision is None else decision.price_row,
        "requested_row": None if decision is None else decision.requested_row,
        "missing": [] if match is None else list(match.missing(usage)),
        "restated": None
        if restatement is None
        else {"by": restatement.by, "reason": restatement.reason},
    }, verdicts


def _print_event(page: Page, url: str, plain: dict[str, Any], blocks: list[Block]) -> None:
    page.line(f"ledger {url}", "dim")
    name = plain["executed_model"] or plain["requested_model"] or "no model"
    terms = [f"{key} {plain[key]}" for key in ("provider", "tier", "region") if plain[key]]
    head = joined(Text(shown(plain["event"]), "bold"), name, *terms, f"at {when(plain['at'])}")
    page.line(head)
    usage = " ".join(f"{name}={many:,}" for name, many in sorted(plain["usage"].items()))
    cost = joined("cost", amount(plain["cost"]), f"by {plain['cost_rule']}", usage)
    page.line(cost)
    if plain["restated"] is not None:
        page.line(f"restated by {plain['restated']['by']}: {plain['restated']['reason']}", "yellow")
    page.tree(blocks)
    if plain["missing"]:
        page.line(f"no rate for {', '.join(plain['missing'])}: unpriced, never free", "yellow")
    elif plain["price_row"] is None:
        page.line("no book has a price: unpriced, never free", "yellow")
    elif not plain["by_price"]:
        page.line(f"the cost is not a price: {plain['cost_rule']} comes first", "yellow")


def run_unpriced(books: Books, options: argparse.Namespace) -> int:
    """Print what has no price, model by model, and why."""
    chosen = None if options.period is None else period(options.period)
    with books.ledger.snapshot():
        rows = _unpriced(books, Selection(chosen))
    if options.json or options.csv:
        to_stderr(f"ledger: {books.url}")
    if options.json:
        print_json({"unpriced": rows})
    elif options.csv:
        print_csv(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))
    else:
        page = Page()
        page.line(f"ledger {books.url}", "dim")
        if not rows:
            page.line("every usage has a price", "green")
            return OK
        columns = [Column(name, name == "events") for name in _COLUMNS]
        page.table(columns, ([str(row[name] or "") for name in _COLUMNS] for row in rows))
        page.line()
        events = sum(row["events"] for row in rows)
        page.line(
            f"{counted(events, 'event')} of unknown cost: give their prices in a file, then"
            " costspan restate --period YYYY-MM --prices FILE"
        )
    return OK


def _unpriced(books: Books, selection: Selection) -> list[dict[str, Any]]:
    """Events with usage and without a price, by model and reason; the most frequent first."""
    reasons = Reasons(books.ledger)
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in books.ledger.untold():
        decision, facts = each.decision, each.event.facts
        if decision is None or decision.cost is not None or not facts.usage:
            continue
        if not selection.has(each):
            continue
        name = facts.executed_model or facts.requested_model or ""
        key = (facts.provider or "", name, facts.tier or "", reasons.no_price(each))
        row = found.get(key)
        day = when(each.event.at_ns).partition(" ")[0]
        if row is None:
            terms = dict(zip(("provider", "model", "tier", "why"), key, strict=True))
            found[key] = {**terms, "events": 1, "first": day, "last": day}
        else:
            row["events"] += 1
            row["first"], row["last"] = min(row["first"], day), max(row["last"], day)
    return sorted(found.values(), key=lambda row: (-row["events"], row["model"], row["why"]))
