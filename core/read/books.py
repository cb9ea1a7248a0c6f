"""`Books`: what a ledger says, to a program. Amounts are decimal strings of USD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from costspan.core.money import format_usd
from costspan.core.read.explain import Explanation, explain
from costspan.core.read.grouping import Grouping, Selection, check_period
from costspan.core.settle.ledger import Ledger, Settled


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
            since: Events started at or after this (ns UTC).
            until: Events started before this (ns UTC).

        Returns:
            `{"rows": [{…keys…, "cost", "charge", "events"}], "totals": {…}, "balanced": bool}`.
            Events of unknown cost are in no amount; a row of nothing else has them in `events`
            and None for the amounts. In totals, `open` events started and have not ended yet;
            `swept` ones started and nobody saw them end.

        Raises:
            ValueError: for a field that does not exist, or a period that is none.
        """
        return self.sheet(by, period, since, until)[0]

    def sheet(
        self,
        by: str | tuple[str, ...] = ("owner", "bucket"),
        period: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> tuple[dict[str, Any], list[int]]:
        """`totals`, and of each of its rows how many events of unknown cost belong to it.

        Raises:
            ValueError: as `totals`.
        """
        fields = tuple(by.split(",")) if isinstance(by, str) else tuple(by)
        grouped, sums = Grouping(fields).of(self.ledger, _selection(period, since, until))
        problems = self.ledger.counts()
        totals = {
            "cost": format_usd(sums.cost),
            "charge": format_usd(sums.charge),
            "absorbed": format_usd(sums.cost - sums.charge),
            "platform": format_usd(sums.platform),
            "unattributed": format_usd(sums.unattributed),
            "unpriced_events": sums.unpriced,
            "open": sums.open,
            "swept": sums.swept,
            "unmatched": problems["unmatched"] + problems["unmatched_downstream"],
        }
        rows = [row for row, _ in grouped]
        found = {"rows": rows, "totals": totals, "balanced": sums.balanced}
        return found, [unpriced for _, unpriced in grouped]

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
        ids = self.ledger.find_events(name)
        if not ids:
            raise NotFound(
                f"{name!r} names no event in {self.url}: it is looked for among attempt, operation,"
                " request, caller's request, trace, span, session and response ids. If it is"
                " recent, it may still be in the spool: run costspan drain"
            )
        return explain(self.ledger, name, ids)


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
