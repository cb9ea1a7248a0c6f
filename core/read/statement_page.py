"""A statement as finance reads it: whose it is, what decided it, and what there is to know of it.

The directory is joined here, at the last day of the month: postings know nothing of it. One page
holds one tenant, or a tenant and those below it in the directory, each by its own lines alone.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Any

import msgspec

from costspan.core.money import format_usd
from costspan.core.read import words
from costspan.core.read.amounts import CURRENCY, Amounts, sum_of
from costspan.core.read.corrected import LATE
from costspan.core.read.directory import Directory, Entry, last_day
from costspan.core.read.statement import Statement, statement_of
from costspan.core.settle.ledger import Ledger

_NS_PER_SECOND = 10**9


class Decided(msgspec.Struct, frozen=True):
    """A policy that decided events of the month: its profile, hashes, and since when (ns UTC)."""

    profile: str
    rules_sha256: str
    since: int
    charge_book: str | None

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "profile": self.profile,
            "rules_sha256": self.rules_sha256,
            "since": words.day(self.since) if self.since else None,
            "charge_book_sha256": self.charge_book,
        }


class Restated(msgspec.Struct, frozen=True):
    """The month was decided anew as a whole, when (ns UTC) and by which profile, if by another.

    Who did it and why may speak of others: `costspan explain` has it.
    """

    at: int
    profile: str | None

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"at": words.when(self.at), "profile": self.profile}


class StatementPage(msgspec.Struct, frozen=True, kw_only=True):
    """A statement and everything that is said beside it.

    `entry` is what the directory says of the tenant on the month's last day, `was` what it said
    earlier in the month. `children` are the pages of those below it, if they were asked for.
    """

    statement: Statement
    entry: Entry | None
    was: tuple[Entry, ...]
    decided: tuple[Decided, ...]
    restated: Restated | None
    is_closed: bool
    children: tuple[StatementPage, ...] = ()

    @property
    def name(self) -> str:
        """What to call the tenant."""
        said = None if self.entry is None else self.entry.name
        return said or self.statement.tenant

    @property
    def title(self) -> str:
        """The name, and the tenant's id where that is another."""
        tenant = self.statement.tenant
        return tenant if self.name == tenant else f"{self.name} ({tenant})"

    @property
    def everybody(self) -> tuple[StatementPage, ...]:
        """This page and those of the children."""
        return (self, *self.children)

    @property
    def month(self) -> str:
        """The month in words."""
        year, month = self.statement.period.split("-")
        return f"{calendar.month_name[int(month)]} {year}"

    @property
    def with_children(self) -> Amounts:
        """What the tenant and everybody below it is charged."""
        return sum_of(each.statement.total for each in self.everybody)

    @property
    def notes(self) -> list[tuple[str, str]]:
        """(how grave, text): what somebody who pays should know; the gravest first."""
        return [*_grave(self.statement), *self._quiet()]

    def _quiet(self) -> list[tuple[str, str]]:
        said: list[tuple[str, str]] = []
        if not self.is_closed:
            text = f"{self.statement.period} is not closed: what comes later may still change this"
            said.append(("warn", f"PRELIMINARY: {text}"))
        if self.restated is not None:
            by = f" by profile {self.restated.profile}" if self.restated.profile else ""
            text = (
                f"RESTATED: the whole month was decided anew{by} on {words.day(self.restated.at)}"
            )
            said.append(("warn", text))
        if len(self.decided) > 1:
            text = f"{len(self.decided)} policies were in force during the month, one after another"
            said.append(("", text))
        currency = None if self.entry is None else self.entry.currency
        if currency not in (None, CURRENCY):
            text = f"all amounts are in {CURRENCY}; {currency} is the tenant's own currency, and"
            said.append(("warn", f"{text} nothing here is converted"))
        for each in self.was:
            parts = [f"{k} {v}" for k, v in _place(each).items() if v]
            text = ", ".join(parts) or "nothing more than its name"
            said.append(("", f"until {each.until} the directory said: {text}"))
        return said

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD."""
        found: dict[str, Any] = {
            **self.statement.plain(),
            "name": self.name,
            "directory": None if self.entry is None else self.entry.plain(),
            "decided_by": [each.plain() for each in self.decided],
            "restated": None if self.restated is None else self.restated.plain(),
            "closed": self.is_closed,
            "notes": [text for _, text in self.notes],
        }
        if self.children:
            found["children"] = [each.plain() for each in self.children]
            found["total_with_children"] = self.with_children.plain()
        return found


def page_of(
    ledger: Ledger,
    tenant: str,
    period: str,
    directory: Directory | None = None,
    *,
    with_children: bool = False,
) -> StatementPage:
    """The page of a tenant and month; its children are those of the month's last day.

    Raises:
        ValueError: for a period that is none, or an owner that is no tenant.
    """
    statement = statement_of(ledger, tenant, period)
    directory = directory or Directory()
    day = last_day(period)
    entry = directory.at(tenant, day)
    below = directory.children(tenant, day) if with_children else ()
    closed_until = ledger.reading().closed_until()
    return StatementPage(
        statement=statement,
        entry=entry,
        was=tuple(each for each in directory.in_period(tenant, period) if each != entry),
        decided=_decided(ledger, period),
        restated=_restated(ledger, period),
        is_closed=closed_until is not None and period <= closed_until,
        children=tuple(page_of(ledger, child, period, directory) for child in below),
    )


def _place(entry: Entry) -> dict[str, str | None]:
    return {"parent": entry.parent, "cost centre": entry.cost_centre, "name": entry.name}


def _grave(statement: Statement) -> list[tuple[str, str]]:
    said: list[tuple[str, str]] = []
    if statement.above:
        calls = words.counted(sum_of(statement.above.values()).events, "call")
        models = words.listed([model or "(no model)" for model in statement.above])
        text = (
            f"CHARGED ABOVE COST: at least {words.dollars(statement.charged_above)} more than the"
            f" provider's cost, among {calls} of {models}"
        )
        said.append(("bad", text))
    if many := len(statement.above_by_hand):
        text = (
            f"ADJUSTED ABOVE COST: {words.dollars(statement.adjusted_above)} more than the"
            f" provider's cost, in {words.counted(many, 'adjustment')} by hand"
        )
        said.append(("bad", text))
    if statement.unknown:
        verb = "is" if statement.unknown == 1 else "are"
        calls = words.counted(statement.unknown, "call")
        text = f"{calls} of this month {verb} of UNKNOWN COST: in no amount here, and not free"
        said.append(("bad", text))
    if any(each.kind == "unknown" for each in statement.corrections):
        said.append(("bad", "some adjustments are of no record that the ledger still has"))
    return said


def _decided(ledger: Ledger, period: str) -> tuple[Decided, ...]:
    """The policies in force at some time of the month, the first one for anything before it."""
    reading = ledger.reading()
    policies = reading.policies()
    first_ns = _ns_of(f"{period}-01T00:00:00")
    last_ns = _ns_of(f"{last_day(period)}T23:59:59") + _NS_PER_SECOND - 1
    found: list[Decided] = []
    for at, policy in enumerate(policies):
        until = policies[at + 1].effective_from if at + 1 < len(policies) else None
        begins = policy.effective_from <= last_ns or at == 0
        if begins and (until is None or until > first_ns):
            profile = reading.rule_set(policy.rules).profile
            since, charges = policy.effective_from, policy.charges
            found.append(Decided(profile, policy.rules, since, charges))
    return tuple(found)


def _restated(ledger: Ledger, period: str) -> Restated | None:
    reading = ledger.reading()
    record = reading.restatements([period]).get(period)
    if record is None or (record.rules is None and record.books is None):
        return None
    profile = None if record.rules is None else reading.rule_set(record.rules).profile
    return Restated(record.recorded_at, profile)


def _ns_of(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * _NS_PER_SECOND


KIND_WORDS = {
    "late": "late or corrected calls",
    "adjustment": "adjustment",
    "credit": "credit",
    "allocation": "allocation",
    "invoice_adjust": "invoice adjustment",
    "capacity": "unused capacity",
    "unknown": "of no known record",
}
"""What people call each kind of correction."""


def lines_of(page: StatementPage) -> list[dict[str, Any]]:
    """The statement line by line, as a spreadsheet wants it: amounts of `line`s but `total` add up.

    Allocated amounts stand by pool, adjustments one by one. `charged_above_cost` is what the notes
    say loudly: at least so much.
    """
    statement, entry = page.statement, page.entry
    above = {name: -amounts.absorbed for name, amounts in statement.above_in.items()}
    head = {
        "tenant": statement.tenant,
        "name": page.name,
        "cost_centre": entry and entry.cost_centre,
        "parent": entry and entry.parent,
        "period": statement.period,
    }

    def line(
        kind: str, amounts: Amounts, charged_above: int = 0, **more: str | None
    ) -> dict[str, Any]:
        said = {"line": kind, "detail": None, "of_period": statement.period, **more}
        cost, charge = format_usd(amounts.cost), format_usd(amounts.charge)
        rest = {"currency": CURRENCY, "cost": cost, "charge": charge, "events": amounts.events}
        rest["charged_above_cost"] = format_usd(charged_above)
        return {**head, "by": None, "reason": None, **said, **rest}

    found = [
        line("direct", statement.direct, above.get("direct", 0)),
        line("agent", statement.agent, above.get("agent", 0)),
    ]
    found += [line("allocated", each, detail=pool) for pool, each in statement.pools.items()]
    for each in statement.corrections:
        more = {"of_period": each.period, "by": each.by, "reason": each.reason}
        detail = KIND_WORDS.get(each.kind, each.kind)
        charged_above = above.get(each.period, 0) if each.kind == LATE else each.above_by_hand
        found.append(line("adjustment", each.amounts, charged_above, detail=detail, **more))
    charged_above = statement.charged_above + statement.adjusted_above
    return [*found, line("total", statement.total, charged_above)]
