"""A synthetic month: a real ledger of real observations, and invoices written line by line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from costspan.core.decide import load_profile
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.journal.records import FreePostings, Policy
from costspan.core.prices import PriceBook, PriceRow
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

PERIOD = "2026-03"
USD = 10**12


def at(text: str) -> int:
    """A moment, UTC, in ns."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


CHANGE = at("2026-03-20")
BOOK = PriceBook(
    id="list",
    rows=(
        PriceRow(
            book="list",
            model="gpt-4o",
            provider="openai",
            effective_to=CHANGE,
            rates={"input": "2.50", "output": "10", "cache_read": "1.25"},
        ),
        PriceRow(
            book="list",
            model="gpt-4o",
            provider="openai",
            effective_from=CHANGE,
            rates={"input": "2", "output": "8", "cache_read": "1"},
        ),
        PriceRow(
            book="list",
            model="gpt-4o",
            provider="openai",
            tier="batch",
            rates={"input": "1.25", "output": "5"},
        ),
        PriceRow(book="list", model="mini", provider="openai", rates={"input": "1", "output": "2"}),
    ),
    aliases={"gpt-4o-2024-08-06": "gpt-4o"},
)


def month(path: Path, book: PriceBook = BOOK) -> Ledger:
    """A ledger that holds a policy and nothing else."""
    ledger = open_url(f"sqlite:///{path}", create=True)
    with ledger.settling(1) as settlement:
        rules = load_profile("billing")
        settlement.keep_rule_set(rules)
        settlement.keep_price_book(book)
        settle(settlement, [], [Policy(rules.sha256, (book.sha256,), 0, "test")])
    return ledger


def keep(ledger: Ledger, *records: Observation | FreePostings) -> None:
    """Settle these."""
    seen = [each for each in records if isinstance(each, Observation)]
    said = [each for each in records if not isinstance(each, Observation)]
    with ledger.settling(1) as settlement:
        settle(settlement, seen, said)


def call(
    number: int, day: str = "2026-03-05", tokens: tuple[int, int] = (1000, 100), **facts: Any
) -> Observation:
    """A call of acme's to gpt-4o: 1000 in, 100 out, 0.0035 USD, unless it is said otherwise."""
    said: dict[str, Any] = {
        "attempt_id": f"a{number:06}",
        "tenant": "acme",
        "tenant_source": "principal",
        "provider": "openai",
        "provider_result": "ok",
        "usage": {"input": tokens[0], "output": tokens[1]},
        "usage_source": "provider",
        "started_at": at(f"{day}T12:00:00"),
        "ended_at": at(f"{day}T12:00:05"),
        "executed_model": "gpt-4o-2024-08-06",
        "attempts_hidden": 0,
    }
    return Observation(oid=f"w:{number}", writer="w", seq=number, **{**said, **facts})


Said = dict[str, Any]


def line(
    day: str = "2026-03-05",
    component: str = "input",
    quantity: int | None = 1000,
    amount: int = 2500 * 10**6,
    **said: Any,
) -> Said:
    """A line of cost: 1000 input tokens of gpt-4o for 0.0025 USD."""
    return {
        "day": day,
        "model": "gpt-4o-2024-08-06",
        "component": component,
        "quantity": quantity,
        "amount": amount,
        **said,
    }


def call_lines(day: str = "2026-03-05", calls: int = 1) -> list[Said]:
    """What the provider bills for so many calls of `call`."""
    return [
        line(day, "input", 1000 * calls, 2500 * 10**6 * calls),
        line(day, "output", 100 * calls, 1000 * 10**6 * calls),
    ]


def bill(
    ledger: Ledger,
    lines: Iterable[Said],
    source: str = "csv",
    account: str = "",
    currency: str = "USD",
    provider: str = "openai",
) -> Invoice:
    """Import these lines as the next version of a document."""
    said = list(lines)
    raw = repr((source, account, currency, said)).encode()
    id = hashlib.sha256(raw).hexdigest()
    invoice = Invoice(
        id=id, source=source, provider=provider, account=account, period=PERIOD, version=1,
        imported_at=1, by="test", currency=currency, is_provisional=False,
    )  # fmt: skip
    blank: Said = {
        "provider": provider, "account": account, "project": None, "day": "", "model": None,
        "component": "", "tier": None, "category": "usage", "requests": None, "quantity": None,
        "unit": "tokens", "amount": 0, "currency": currency, "description": "",
        "is_provisional": False,
    }  # fmt: skip
    kept = [
        InvoiceLine(**{**blank, "invoice": id, "number": at, **each})
        for at, each in enumerate(said)
    ]
    return ledger.invoices.keep(invoice, kept, raw)


def requests(counts: dict[str, int], model: str = "gpt-4o-2024-08-06") -> list[Said]:
    """Lines of a usage document: requests by day."""
    return [{"day": day, "model": model, "requests": many} for day, many in counts.items()]
