"""`Books`: what a ledger says, to a program. Amounts are decimal strings of USD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from costspan.core.money import format_usd
from costspan.core.read.explain import Explanation, explain
from costspan.core.read.grouping import Grouping, Selection, check_period
from costspan.core.read.sheet import Sheet, is_balanced, sheet_of
from costspan.core.read.statement import Statement, statement_of
from costspan.core.read.tree import EVENTS_MAX
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

_HOSTS = ("litellm", "langchain", "batch", "span")
"""What our adapters write in front of an operation's id."""


class NotFound(LookupError):
    """No event has this name; the text says what names are looked for."""


class Books:
    """A ledger opened for reading. Use it as a context manager, or `close` it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
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
    ) -> Sheet:
        """`totals`, with what the rows leave out and how it was come by.

        Raises:
            ValueError: as `totals`.
        """
        grouping = Grouping(tuple(by.split(",")) if isinstance(by, str) else tuple(by))
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
        """Everything that decided what `name` (an event, request, trace, session, response) cost.

        Raises:
            NotFound: if nothing has this name.
        """
        with self.ledger.snapshot():
            ids = self._named(name)
            if not ids:
                raise NotFound(
                    f"{name!r} names no event in {self.url}: it is looked for among attempt,"
                    " operation, request, caller's request, trace, span, session and response ids."
                    " If it is recent, it may still be in the spool: run costspan drain"
                )
            return explain(self.ledger, name, ids)

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
