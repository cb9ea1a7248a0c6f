"""A ledger with something in every table: two closed months, corrections, conflicts, invoices."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from costspan.core.decide import load_profile
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.journal.records import (
    Assignment,
    Counts,
    FreeLine,
    Policy,
    Restatement,
    SessionOwner,
)
from costspan.core.prices import PriceBook
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import close_period
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger, open_url

NOW = 1_800_000_000 * 10**9  # in January 2027
FIRST = PriceBook.from_table("v1", {"gpt-4o": {"input": "2.50", "output": "10.00"}})
SECOND = PriceBook.from_table("v2", {"gpt-4o": {"input": "2.00", "output": "8.00"}})


def at(text: str) -> int:
    """A moment, UTC, in ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def fresh(path: Path | str = ":memory:") -> Ledger:
    """A ledger with a policy and nothing else."""
    ledger = open_url(str(path) if "://" in str(path) else f"sqlite:///{path}", create=True)
    with ledger.settling(1) as settlement:
        rules = load_profile("billing")
        settlement.keep_rule_set(rules)
        for book in (FIRST, SECOND):
            settlement.keep_price_book(book)
        settle(settlement, [], [Policy(rules.sha256, (FIRST.sha256,), 0, "test")])
    return ledger


def keep(ledger: Ledger, *records: Any) -> None:
    """Settle these."""
    seen = [each for each in records if isinstance(each, Observation)]
    said = [each for each in records if not isinstance(each, Observation)]
    with ledger.settling(1) as settlement:
        settle(settlement, seen, said)


def call(number: int, day: str = "2026-02-10", **facts: Any) -> Observation:
    """A call of acme's, priced by its usage."""
    said: dict[str, Any] = {
        "attempt_id": f"a{number}",
        "operation_ids": (f"litellm:{number}",),
        "response_id": f"openai/resp-{number}",
        "tenant": "acme",
        "tenant_source": "principal",
        "session": f"s{number % 2}",
        "cause": "primary",
        "initiator": "user",
        "provider_result": "ok",
        "usage": {"input": 1000, "output": 100},
        "usage_source": "provider",
        "started_at": at(day),
        "executed_model": "gpt-4o",
        "requested_model": "gpt-4o",
        "request_id": f"req-{number}",
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "user": f"person-{number % 3}",
    }
    return Observation(oid=f"w:{number}", writer="w", seq=number, **{**said, **facts})


def full(path: Path) -> Ledger:
    """Books with a row in every table that settled books have rows in."""
    ledger = fresh(path)
    keep(ledger, *(call(number) for number in range(1, 9)))
    keep(ledger, call(20, parent="a1", parent_origin="ours", tenant=None, tenant_source=None))
    keep(ledger, call(21, executed_model="nobody-knows", requested_model="nobody-knows"))
    keep(ledger, call(22, phase="start", provider_result=None, usage=None, usage_source=None))
    keep(ledger, call(23, members={"globex": 1, "initech": 2}, tenant=None, tenant_source=None))
    keep(ledger, SessionOwner("s9", "initech", "ann", 5))
    keep(ledger, call(24, tenant=None, tenant_source=None, session="s9", session_origin="ours"))
    keep(ledger, Assignment("a2", "globex", "ann", "the caller was mistaken", 7))
    # One oid, two payloads; a response id that two events carry; evidence of nobody's.
    keep(ledger, call(3, usage={"input": 7, "output": 7}))
    keep(ledger, call(25, response_id="openai/resp-1"))
    keep(ledger, Observation(oid="late:1", response_id="openai/resp-1", feature="search"))
    close_period(ledger, "2026-02", "ann", "month's end", NOW)
    keep(ledger, call(30, "2026-02-20"), call(31, "2026-03-02"))
    keep(ledger, Restatement("a1", None, None, (SECOND.sha256,), "ann", "wrong list", 9))
    line = FreeLine("acme", "adjustment", "credit", "", "", 0, -5)
    credit: dict[str, Any] = {
        "kind": "credit",
        "period": "2026-02",
        "lines": [line],
        "about": {"why": "outage"},
    }
    keep(ledger, free_postings(**credit, by="ann", reason="goodwill", recorded_at=11))
    close_period(ledger, "2026-03", "ann", "month's end", NOW)
    keep(ledger, call(32, "2026-04-02"))
    with ledger.settling(1) as settlement:
        settlement.move_cursor("somebody", 3)
        settle(settlement, [], [Counts("w", {"refused:full": 2}, 1)])
    keep_invoice(ledger)
    return ledger


def keep_invoice(ledger: Ledger) -> None:
    """What the provider bills for February."""
    raw = b'{"object": "page", "data": []}'
    invoice = Invoice(
        id=__import__("hashlib").sha256(raw).hexdigest(), source="openai", provider="openai",
        account="", period="2026-02", version=1, imported_at=NOW, by="ann", currency="USD",
        is_provisional=False,
    )  # fmt: skip
    line = InvoiceLine(
        invoice=invoice.id, number=0, provider="openai", account="", project=None,
        day="2026-02-10", model="gpt-4o", component="input", tier=None, category="usage",
        requests=8, quantity=8000, unit="token", amount=10**10, currency="USD",
        description="gpt-4o input", is_provisional=False,
    )  # fmt: skip
    ledger.invoices.keep(invoice, [line], raw)
