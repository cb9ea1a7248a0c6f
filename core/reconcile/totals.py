"""What each account comes to in a period: in the books, on its invoices, and explained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from costspan.core.journal.records import FreePostings
from costspan.core.reconcile.authority import Authority
from costspan.core.reconcile.billed import Apart, Bill, Document
from costspan.core.reconcile.case import Case
from costspan.core.reconcile.variance import HOME, Amounts


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's account in one period.

    `ledger` is what the events say, `invoice` what the lines of usage do, in requests, tokens and
    pico-USD; `adjusted` is what invoice adjustments already brought to the books. Requests and
    tokens are None where no document says them; `has_money`: whether one says what is billed.
    `apart` is category -> pico of `currency`.
    """

    provider: str
    account: str
    currency: str
    has_money: bool
    ledger: Amounts
    invoice: Amounts
    has_requests: bool
    has_tokens: bool
    adjusted: int
    explained: int
    apart: dict[str, int]
    counts: str
    """Whose total counts, by the rule: provider or ledger."""

    @property
    def difference(self) -> int:
        """Invoice - ledger, in pico; nothing where no document bills anything."""
        return self.invoice.money - self.ledger.money if self.has_money else 0


def totals(
    rule: Authority,
    cases: Iterable[Case],
    apart: Mapping[tuple[str, str, str, str, str], Apart],
    bill: Bill,
    found: Iterable[Document],
    adjustments: Iterable[FreePostings],
) -> list[Total]:
    """One of each account that the books or an invoice name, sorted.

    Args:
        rule: Says whose total counts.
        cases: Every grain, explained.
        apart: What the invoices say beside usage: by category, provider, account, day, currency.
        bill: What the documents say in general.
        found: The documents compared.
        adjustments: The invoice adjustments of the period.
    """
    sums: dict[tuple[str, str], list[Amounts]] = {}
    for case in cases:
        each = sums.setdefault((case.grain.provider, case.grain.account), [Amounts()] * 3)
        each[0] = each[0].plus(case.recorded.amounts if case.recorded else Amounts())
        each[1] = each[1].plus(case.billed.amounts if case.billed else Amounts())
        for finding in case.findings:
            each[2] = each[2].plus(finding.amounts)
    beside: dict[tuple[str, str], dict[str, int]] = {}
    for (category, provider, account, _, _), amount in apart.items():
        key = (provider, account) if (provider, account) in sums else (provider, "")
        sums.setdefault(key, [Amounts()] * 3)
        categories = beside.setdefault(key, {})
        categories[category] = categories.get(category, 0) + amount.amount
    currency = {each.provider: each.invoice.currency for each in found if each.invoice.currency}
    return [
        Total(
            provider=provider,
            account=account,
            currency=currency.get(provider, HOME),
            has_money=any(each.provider == provider and each.is_money for each in found),
            ledger=ours,
            invoice=theirs,
            has_requests=provider in bill.has_requests,
            has_tokens=provider in bill.has_tokens,
            adjusted=_adjusted(adjustments, provider, account),
            explained=explained.money,
            apart=beside.get((provider, account), {}),
            counts=rule.rule(provider, account).totals,
        )
        for (provider, account), (ours, theirs, explained) in sorted(sums.items())
    ]


def _adjusted(adjustments: Iterable[FreePostings], provider: str, account: str) -> int:
    """What invoice adjustments brought to the books of an account so far (pico-USD)."""
    return sum(
        line.cost
        for each in adjustments
        if (each.about.get("provider"), each.about.get("grain_account")) == (provider, account)
        for line in each.lines
    )
