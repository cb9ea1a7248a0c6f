"""`Books`: what a ledger says, to a program. Amounts are decimal strings of USD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from costspan.core.decide import RuleSet
from costspan.core.invoices.invoice import Invoice
from costspan.core.journal.records import FreePostings
from costspan.core.money import format_usd, parse_usd
from costspan.core.prices import PriceBook
from costspan.core.read.directory import Directory
from costspan.core.read.explain import Explanation, explain
from costspan.core.read.free_entry import find_free, free_entry, headline_of_free
from costspan.core.read.grouping import Grouping, Selection, check_period
from costspan.core.read.invoice_line import find_invoice, headline_of_invoice, invoice_beside
from costspan.core.read.sheet import Sheet, is_balanced, sheet_of
from costspan.core.read.statement import Statement, statement_of
from costspan.core.read.tree import EVENTS_MAX
from costspan.core.read.what_if import WhatIf, what_if
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

_HOSTS = ("litellm", "langchain", "batch", "span")
"""What our adapters write in front of an operation's id."""


class NotFound(LookupError):
    """No event has this name; the text says what names are looked for."""


class Books:
    """A ledger opened for reading. Use it as a context manager, or `close` it."""

    def __init__(self, ledger: Ledger, gateways: tuple[str, ...] = ()) -> None:
        """Read a ledger that is settled with these gateways (the setting of that name)."""
        self.ledger = ledger
        self._gateways = gateways
        self.url = ledger.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the ledger."""
        self.ledger.close()

    def totals(
        self,
        by: str | tuple[str, ...] = ("owner", "bucket"),
        period: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> dict[str, Any]:
        """Sums of cost, charge and events by any fields, with totals that must balance.

        Args:
            by: `owner`, `bucket`, `pool`, `day`, `period`, `model`, any field of the schema, or
                `label:KEY`; several as a tuple or with commas. `flags` is the whole set of an
                event's flags.
            period: An effective period, YYYY-MM (UTC).
            since: Events of this moment or later (ns UTC): a batch is of its completion, every
                other of its start.
            until: Events before this moment (ns UTC).

        Returns:
            `{"rows": [{…keys…, "cost", "charge", "events"}], "totals": {…}, "balanced": bool}`.
            Events of unknown cost are in no amount; a row of nothing else has them in `events`
            and None for the amounts. In totals, `open` events started and have not ended yet;
            `swept` ones started and nobody saw them end.

            By the first six fields, and whole days, it comes from the roll-up, however many events
            there are; else every event is read. `balanced` says that what was read agrees with
            itself; `is_balanced` compares everything.

        Raises:
            ValueError: for a field that does not exist, or a period that is none.
        """
        return self.sheet(by, period, since, until).plain()

    def sheet(
        self,
        by: str | tuple[str, ...] = ("owner", "bucket"),
        period: str | None = None,
        since: int | None = None,
        until: int | None = None,
        *,
        directory: Directory | None = None,
    ) -> Sheet:
        """`totals`, with what the rows leave out and how it was come by.

        With a directory also by `cost_centre` and `parent_tenant`, as it says for each amount's
        period.

        Raises:
            ValueError: as `totals`.
        """
        fields = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
        grouping = Grouping(fields, directory)
        with self.ledger.snapshot():
            return sheet_of(self.ledger, grouping, _selection(period, since, until))

    def statement(self, tenant: str, period: str) -> Statement:
        """What one tenant is charged for one month (YYYY-MM, UTC), from the roll-up alone.

        Raises:
            ValueError: for a period that is none, or an owner that is no tenant.
        """
        with self.ledger.snapshot():
            return statement_of(self.ledger, tenant, period)

    def is_balanced(self) -> bool:
        """Whether lines, postings and decisions agree: every one of them is looked at."""
        with self.ledger.snapshot():
            return is_balanced(self.ledger)

    def events(
        self,
        period: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every event as a plain mapping: facts, decision and amounts, in order of id.

        Raises:
            ValueError: for a period that is none.
        """
        selection = _selection(period, since, until)
        for each in self.ledger.events():
            if selection.has(each):
                yield plain_event(each)

    def explain(self, name: str) -> Explanation:
        """Everything that decided what `name` cost.

        `name` is an event, request, trace, session or response; a free posting (`@KIND:…`) or an
        invoice, by its id or the beginning of it; `:NUMBER` behind an invoice is one line of it.

        Raises:
            NotFound: if nothing has this name.
        """
        with self.ledger.snapshot():
            if (record := find_free(self.ledger, name)) is not None:
                return self._of_free(name, record)
            if ids := self._named(name):
                return explain(self.ledger, name, ids, self._gateways)
            if (found := find_invoice(self.ledger, name)) is not None:
                return self._of_invoice(name, *found)
            raise self._not_found(name)

    def what_if(
        self, name: str, rules: RuleSet | None = None, book: PriceBook | None = None
    ) -> WhatIf:
        """What other rules, or a price book in front of the others, would make of these events.

        Nothing is written. Arguments as for `explain`; a book of the same id is replaced.

        Raises:
            NotFound: if no event has this name.
        """
        with self.ledger.snapshot():
            return what_if(self.ledger, name, self.named(name), rules, book)

    def named(self, name: str) -> list[str]:
        """The ids of the events that a name of `explain` names.

        Raises:
            NotFound: if no event has this name.
        """
        if ids := self._named(name):
            return ids
        raise self._not_found(name)

    def _of_free(self, name: str, record: FreePostings) -> Explanation:
        return Explanation(
            name=name,
            ledger=self.url,
            headline=headline_of_free(record),
            matched=(record.id,),
            roots=(),
            cost=format_usd(sum(line.cost for line in record.lines)),
            charge=format_usd(sum(line.charge for line in record.lines)),
            is_cut=False,
            entry=free_entry(self.ledger, record),
        )

    def _of_invoice(self, name: str, invoice: Invoice, number: int | None) -> Explanation:
        line = None if number is None else self.ledger.invoices.line(invoice.id, number)
        if number is not None and line is None:
            raise NotFound(f"the invoice {invoice.id} has no line {number}")
        beside = invoice_beside(self.ledger, invoice, line)
        return Explanation(
            name=name,
            ledger=self.url,
            headline=headline_of_invoice(beside),
            matched=(invoice.id,),
            roots=(),
            cost=format_usd(sum(parse_usd(cost) for cost, _, _ in beside.owners.values())),
            charge=format_usd(sum(parse_usd(charge) for _, charge, _ in beside.owners.values())),
            is_cut=False,
            invoice=beside,
        )

    def _not_found(self, name: str) -> NotFound:
        return NotFound(
            f"{name!r} names no event in {self.url}: it is looked for among attempt,"
            " operation, request, caller's request, trace, span, session and response ids,"
            " free postings (@KIND:...) and invoices (ID:LINE)."
            " If it is recent, it may still be in the spool: run costspan drain"
        )

    def _named(self, name: str) -> list[str]:
        """By what has an index; by an operation whose host we know; at last by a look at all."""
        ledger = self.ledger
        if ids := ledger.find_events(name, EVENTS_MAX + 1):
            return ids
        operations = (ledger.named(f"{host}:{name}") for host in _HOSTS)
        return sorted({id for ids in operations for id in ids}) or ledger.search_events(name)


def _selection(period: str | None, since: int | None, until: int | None) -> Selection:
    return Selection(None if period is None else check_period(period), since, until)


def plain_event(each: Settled) -> dict[str, Any]:
    """An event as a plain mapping of its facts, decision and amounts."""
    facts = each.event.facts
    plain: dict[str, Any] = {"event": each.event.id}
    for name in facts.__struct_fields__:
        value = getattr(facts, name)
        if value not in (None, ()) and name not in ("schema_version", "layer", "phase"):
            plain[name] = value
    plain["outcome"] = "open" if each.event.is_open else each.event.outcome
    decision = each.decision
    if decision is not None:
        plain |= {
            "cause": decision.cause,
            "initiator": decision.initiator,
            "driver": decision.driver,
            "owner": decision.owner,
            "bucket": decision.bucket,
            "cost": None if decision.cost is None else format_usd(decision.cost),
            "charge": None if decision.charge is None else format_usd(decision.charge),
            "absorbed": None if decision.absorbed is None else format_usd(decision.absorbed),
            "rules": list(decision.rules),
            "flags": list(decision.flags),
            "price_row": decision.price_row,
            "shares": [
                {
                    "owner": share.owner,
                    "bucket": share.bucket,
                    "pool": share.pool,
                    "cost": format_usd(share.cost),
                    "charge": format_usd(share.charge),
                }
                for share in decision.shares
            ],
        }
    return plain
