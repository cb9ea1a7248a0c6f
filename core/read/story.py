"""An explanation told for people: a headline, a tree of one line an event, and a card for each.

A story is plain text in parts, so that a terminal, a file and an HTML page tell the same. Whatever
is shown of it is escaped by who shows it; nothing here is markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from costspan.core.read import words
from costspan.core.read.explain import Explained, Explanation
from costspan.core.read.story_event import Fact, Tone, lines_of
from costspan.core.read.story_other import entry_lines, invoice_lines
from costspan.core.read.tree import EVENTS_MAX

Marker = Literal["<- asked for", ""]


class Branch(NamedTuple):
    """An event in the tree: its number, its line in columns, and what is below it.

    `under` says of a piece of a deep tree what it hangs below.
    """

    number: int
    columns: tuple[str, ...]
    tone: Tone
    marker: Marker
    under: str | None
    below: list[Branch]


class Card(NamedTuple):
    """Everything about one thing, as named facts."""

    title: str
    facts: list[Fact]


class Story(NamedTuple):
    """What a page tells. `asides` are remarks about the page itself."""

    name: str
    ledger: str
    headline: str
    asides: list[str]
    tree: list[Branch]
    cards: list[Card]


def story_of(
    found: Explanation, *, brief: bool = False, every_event: bool = False, every_rule: bool = False
) -> Story:
    """Tell an explanation.

    Args:
        found: what was explained.
        brief: the headline and the tree alone.
        every_event: a card for each event of the tree, not only of those that were asked for.
        every_rule: the tables of rules that had nothing special to say, too.
    """
    if found.entry is not None:
        card = Card(found.entry.id, list(entry_lines(found.entry)))
        return Story(found.name, found.ledger, found.headline, [], [], [] if brief else [card])
    if found.invoice is not None:
        title = f"invoice {found.invoice.invoice.id}"
        card = Card(title, list(invoice_lines(found.invoice)))
        return Story(found.name, found.ledger, found.headline, [], [], [] if brief else [card])
    nodes = list(_every(found.roots))
    numbers = {node.id: at for at, node in enumerate(nodes, 1)}
    matched = frozenset(found.matched)
    marked = frozenset[str]() if numbers.keys() <= matched else matched
    cards = [] if brief else [
        Card(
            f"[{numbers[node.id]}] {_title(node)}",
            list(lines_of(node, numbers, alone=len(matched) == 1, every_rule=every_rule)),
        )
        for node in nodes
        if every_event or node.id in matched
    ]  # fmt: skip
    asides = list(_asides(found, len(nodes), len(matched), len(cards), brief))
    tree = [_branch(root, numbers, marked) for root in found.roots]
    return Story(found.name, found.ledger, found.headline, asides, tree, cards)


def _asides(
    found: Explanation, events: int, matched: int, cards: int, brief: bool
) -> Iterator[str]:
    if events > matched:
        yield (
            f"the tree around it has {words.counted(events, 'event')} that cost"
            f" {words.trimmed(found.cost)} USD; tenants are charged"
            f" {words.trimmed(found.charge)} USD for all of it"
        )
    if found.is_cut:
        yield f"there is more: these are the first {EVENTS_MAX:,} events"
    if cards < events and not brief:
        yield "told in full: what was asked for (--all: every event of the tree)"


def _every(roots: tuple[Explained, ...]) -> Iterator[Explained]:
    waiting = list(reversed(roots))
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.below)


def _branch(node: Explained, numbers: dict[str, int], marked: frozenset[str]) -> Branch:
    return Branch(
        numbers[node.id],
        tuple(part for part in _columns(node) if part),
        _tone(node),
        "<- asked for" if node.id in marked else "",
        node.under,
        [_branch(child, numbers, marked) for child in node.below],
    )


def _columns(node: Explained) -> Iterator[str]:
    yield _title(node)
    yield "open" if node.event.is_open else node.event.outcome
    decision = node.decision
    if decision is None:
        yield "not ended"
    elif not decision.is_money:
        yield "no money"
    elif decision.cost is None:
        yield f"cost unknown, {decision.owner}'s"
    else:
        yield f"cost {words.dollars(decision.cost)}"
        for share in decision.shares:
            pool = f" pool {share.pool}" if share.pool else f" {share.bucket}"
            pool = "" if share.owner == f"@{share.bucket}" and not share.pool else pool
            charge = f" pays {words.dollars(share.charge)}" if share.charge else ""
            yield f"{share.owner}{pool}{charge}"


def _tone(node: Explained) -> Tone:
    if node.decision is None or node.decision.cost is None:
        return "warn"
    return "bad" if node.event.outcome == "failed" else ""


def _title(node: Explained) -> str:
    facts = node.event.facts
    asked, answered = facts.requested_model, facts.executed_model
    model = answered or asked or ""
    if asked and answered and asked != answered:
        model = f"{asked} -> {answered}"
    named = f'"{facts.name}"' if facts.name else ""
    again = f"attempt {facts.attempt}" if (facts.attempt or 1) > 1 else ""
    return "  ".join(part for part in (facts.kind or "model", named, model, again) if part)
