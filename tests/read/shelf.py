"""Books to read from: a ledger with the billing profile, calls of known cost, months to close."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from costspan.core.decide import load_profile
from costspan.core.journal.records import Assignment, FreeKind, FreeLine, Policy
from costspan.core.money import PICO
from costspan.core.prices import PriceBook
from costspan.core.read.books import Books
from costspan.core.read.statement import Amounts, Statement
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import close_period
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger, open_url

PRICES = PriceBook.from_table("list", {"gpt-4o": {"input": "2.50", "output": "10.00"}})


def at(text: str) -> int:
    """A moment, UTC, in ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def shelf(path: Path | str = ":memory:") -> Ledger:
    """A ledger that holds a policy and nothing else."""
    ledger = open_url(f"sqlite:///{path}", create=True)
    with ledger.settling(1) as settlement:
        rules = load_profile("billing")
        settlement.keep_rule_set(rules)
        settlement.keep_price_book(PRICES)
        settle(settlement, [], [Policy(rules.sha256, (PRICES.sha256,), 0, "test")])
    return ledger


def keep(ledger: Ledger, *records: Observation | Assignment) -> None:
    """Settle these."""
    seen = [each for each in records if isinstance(each, Observation)]
    said = [each for each in records if isinstance(each, Assignment)]
    with ledger.settling(1) as settlement:
        settle(settlement, seen, said)


def keep_all(ledger: Ledger, records: Iterable[Observation]) -> None:
    """Settle these in batches."""
    batch: list[Observation] = []
    for each in records:
        batch.append(each)
        if len(batch) == 2000:
            keep(ledger, *batch)
            batch.clear()
    keep(ledger, *batch)


def call(number: int, day: str = "2026-11-05", **facts: Any) -> Observation:
    """A call of acme's that cost a dollar, unless it is said otherwise."""
    said: dict[str, Any] = {
        "attempt_id": f"a{number:06}",
        "tenant": "acme",
        "tenant_source": "principal",
        "cause": "primary",
        "initiator": "user",
        "provider_result": "ok",
        "flat_cost": "1",
        "started_at": at(day),
        "executed_model": "gpt-4o",
    }
    return Observation(oid=f"w:{number}", writer="w", seq=number, **{**said, **facts})


def close_month(ledger: Ledger, period: str) -> None:
    """Seal a month."""
    close_period(ledger, period, "ann", "month's end", at("2027-01-01"))


def free(ledger: Ledger, kind: FreeKind, *lines: tuple[str, int, int], **said: Any) -> str:
    """Post dollars of cost and charge to owners; returns the record's id."""
    given = {"period": "2026-11", "reason": "so it was agreed", "about": {}, **said}
    bucket = "allocated" if kind == "allocation" else "adjustment"
    record = free_postings(
        kind=kind, by="ann", recorded_at=at("2026-12-03"), **given,
        lines=[FreeLine(o, bucket, kind, "", "", c * PICO, h * PICO) for o, c, h in lines],
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        settle(settlement, [], [record])
    return record.id


def statement(ledger: Ledger, tenant: str = "acme", period: str = "2026-11") -> Statement:
    """What a tenant's statement of a month says."""
    return Books(ledger).statement(tenant, period)


def usd(dollars: int, events: int) -> Amounts:
    """Events that cost, and are charged, so many dollars."""
    return Amounts(dollars * PICO, dollars * PICO, events)
