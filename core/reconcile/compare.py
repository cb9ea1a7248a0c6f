"""The books of a period beside its invoices: variances, and their causes.

Requests are compared first, then tokens, then money; what an invoice says beside usage is compared
apart. Telemetry is not changed by an invoice, nor an invoice by telemetry: both are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from costspan.core.invoices.invoice import Invoice
from costspan.core.journal.records import FreePostings
from costspan.core.reconcile import billed, causes
from costspan.core.reconcile.authority import Authority, What
from costspan.core.reconcile.billed import Apart, Billed, Document, LeftOut
from costspan.core.reconcile.case import Case
from costspan.core.reconcile.grain import Shape
from costspan.core.reconcile.naming import Models, Rows, prices_of
from costspan.core.reconcile.recorded import Telemetry
from costspan.core.reconcile.totals import Total, totals
from costspan.core.reconcile.variance import (
    HOME,
    KINDS,
    Amounts,
    Cause,
    Evidence,
    Grain,
    Variance,
    variance_id,
)
from costspan.core.settle.ledger import Ledger

TOGETHER = "small differences together"
"""The item of a variance that is the sum of others: never add it to them."""
_COMPARED: tuple[What, ...] = ("requests", "tokens", "money")


class Reconciliation(msgspec.Struct, kw_only=True):
    """What a period's comparison found; `shape` says of an event where it was compared."""

    period: str
    authority: Authority
    documents: list[Document]
    whole: list[Document]
    left_out: list[LeftOut]
    totals: list[Total]
    variances: list[Variance]
    cases: list[Case]
    foreign: set[str]
    """Providers that bill in another currency: their money is not compared."""
    unbilled: set[str]
    """Providers of which only usage is kept: no document says what they bill."""
    adjustments: list[FreePostings]
    shape: Shape
    telemetry: Telemetry
    unplaced: int
    """Events whose provider no document speaks of."""


def reconcile(
    ledger: Ledger,
    period: str,
    authority: Authority | None = None,
    *,
    provider: str | None = None,
    account: str | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> Reconciliation:
    """Compare a period (YYYY-MM); `tell` how many events were looked at so far.

    Args:
        ledger: The books, and the invoices beside them.
        period: The effective period.
        authority: The rule; the default one if none is given.
        provider: Show this provider alone (canonical name).
        account: Show this account alone, as the invoice names it.
        tell: Progress.
    """
    rule = authority or Authority()
    with ledger.snapshot():
        adjustments = [
            each for each in ledger.free_postings(period) if each.kind == "invoice_adjust"
        ]
        models, rows = Models(prices_of(ledger)), Rows(ledger)
        found, whole, left_out = _chosen(ledger, period, rule, adjustments, provider)
        bill = billed.survey(ledger.invoices, found, models)
        telemetry = Telemetry(period, models, rows)
        places = telemetry.read(ledger.events(), tell)
        shape = Shape(places, bill, models, rule.accounts)
        theirs, apart = billed.collect(ledger.invoices, found, shape.of_line)
        ours = shape.put(places, rows)
        billed_in = ((each.provider, each.invoice.currency) for each in found if each.is_money)
        foreign = {name for name, currency in billed_in if currency not in (HOME, "")}
        unbilled = {each.provider for each in found} - {
            each.provider for each in found if each.is_money
        }
        cases = [
            Case.of(
                grain,
                ours.get(grain),
                theirs.get(grain),
                grain.provider in bill.has_requests,
                grain.provider in bill.has_tokens,
            )
            for grain in sorted(ours.keys() | theirs.keys())
            if account in (None, grain.account)
        ]
        for case in cases:
            if case.grain.provider in foreign | unbilled:
                case.left = case.left._replace(money=0)
                case.difference = case.difference._replace(money=0)
        causes.explain(period, cases, bill, models, rows)
    kept = {key: each for key, each in apart.items() if account in (None, "", key[2])}
    usual = [each for case in cases for each in _variances(period, rule, case)]
    variances = [
        *usual,
        *_together(period, rule, cases, usual),
        *_apart(period, rule, kept),
        *_foreign(period, theirs, foreign, found),
    ]
    unplaced = sum(
        each.count("some") for place, each in places.items() if shape.of_place(place) is None
    )
    return Reconciliation(
        period=period,
        authority=rule,
        documents=found,
        whole=whole,
        left_out=left_out,
        totals=totals(rule, cases, kept, bill, found, adjustments),
        variances=variances,
        cases=cases,
        foreign=foreign,
        unbilled=unbilled,
        adjustments=adjustments,
        shape=shape,
        telemetry=telemetry,
        unplaced=unplaced,
    )


def _chosen(
    ledger: Ledger,
    period: str,
    rule: Authority,
    adjustments: Iterable[FreePostings],
    provider: str | None,
) -> tuple[list[Document], list[Document], list[LeftOut]]:
    """The documents to compare, those that an allocation brought into the books whole, the rest."""
    brought: dict[tuple[str | None, str | None], int] = {}
    for each in adjustments:
        if each.about.get("whole") == "yes":
            key = (each.about.get("source"), each.about.get("account"))
            brought[key] = brought.get(key, 0) + sum(line.cost for line in each.lines)

    def is_whole(invoice: Invoice) -> bool:  # one that was taken out again is like any other
        return bool(brought.get((invoice.source.removesuffix(billed.USAGE), invoice.account)))

    choice = billed.choose(ledger.invoices, period, rule.authority.sources, is_whole)
    found = [each for each in choice.documents if provider in (None, each.provider)]
    left_out = [each for each in choice.left_out if provider in (None, each.provider)]
    whole = [each for each in found if is_whole(each.invoice)]
    return [each for each in found if each not in whole], whole, left_out


def _variances(period: str, rule: Authority, case: Case) -> Iterator[Variance]:
    grain = case.grain
    theirs = case.billed.amounts if case.billed else Amounts()
    ours = case.recorded.amounts if case.recorded else Amounts()
    for at, what in enumerate(_COMPARED):
        if not case.difference[at]:
            continue
        found = tuple(
            Cause(each.kind, each.amounts[at], each.text, each.evidence, each.is_shared)
            for each in case.findings
            if each.amounts[at]
        )
        yield Variance(
            id=variance_id(period, grain, what, ours[at], theirs[at]),
            period=period,
            grain=grain,
            what=what,
            ledger=ours[at],
            invoice=theirs[at],
            currency=HOME,
            is_over_threshold=rule.is_over(
                what, grain.provider, grain.account, ours[at], theirs[at]
            ),
            causes=found,
        )


def _together(
    period: str, rule: Authority, cases: Iterable[Case], usual: Iterable[Variance]
) -> Iterator[Variance]:
    """Many small differences of money that add up to one that matters, where none does alone."""
    sides: dict[tuple[str, str], tuple[int, int]] = {}
    for case in cases:
        key = (case.grain.provider, case.grain.account)
        ours, theirs = sides.get(key, (0, 0))
        ours += case.recorded.amounts.money if case.recorded else 0
        sides[key] = (ours, theirs + (case.billed.amounts.money if case.billed else 0))
    small: dict[tuple[str, str], list[Variance]] = {}
    for each in usual:
        if each.what == "money":
            small.setdefault((each.grain.provider, each.grain.account), []).append(each)
    for key, many in small.items():
        ours, theirs = sides[key]
        is_over = rule.is_over("money", *key, ours, theirs)
        if not is_over or any(each.is_over_threshold for each in many):
            continue
        sums: dict[str, int] = {}
        for cause in (cause for each in many for cause in each.causes):
            sums[cause.kind] = sums.get(cause.kind, 0) + cause.amount
        grain = Grain(*key, "", "", TOGETHER)
        yield Variance(
            id=variance_id(period, grain, "money", ours, theirs),
            period=period,
            grain=grain,
            what="money",
            ledger=ours,
            invoice=theirs,
            currency=HOME,
            is_over_threshold=True,
            causes=tuple(
                Cause(kind, amount, KINDS[kind]) for kind, amount in sums.items() if amount
            ),
        )


def _apart(
    period: str, rule: Authority, apart: Mapping[tuple[str, str, str, str, str], Apart]
) -> Iterator[Variance]:
    """What is no usage explains itself."""
    for (category, provider, account, day, currency), each in sorted(apart.items()):
        grain = Grain(provider, account, day, "", category)
        text = "; ".join(each.descriptions) or "the invoice gives no description"
        evidence = Evidence((), 0, tuple(each.lines), each.lines_count)
        if not each.amount:
            continue
        yield Variance(
            id=variance_id(period, grain, category, 0, each.amount),
            period=period,
            grain=grain,
            what=category,
            ledger=0,
            invoice=each.amount,
            currency=currency,
            is_over_threshold=rule.rule(provider, account).flag_apart,
            causes=(Cause(category, each.amount, text, evidence),),
        )


def _foreign(
    period: str, theirs: Mapping[Grain, Billed], foreign: set[str], found: Iterable[Document]
) -> Iterator[Variance]:
    """Amounts in another currency are never compared: only said."""
    for provider in sorted(foreign):
        currencies = {
            each.invoice.currency for each in found if each.provider == provider and each.is_money
        }
        name = ", ".join(sorted(currencies))
        amount = sum(each.amounts.money for at, each in theirs.items() if at.provider == provider)
        grain = Grain(provider, "", "", "", "")
        text = f"billed in {name}: only requests and tokens are compared, never two currencies"
        yield Variance(
            id=variance_id(period, grain, "currency", 0, amount),
            period=period,
            grain=grain,
            what="currency",
            ledger=0,
            invoice=amount,
            currency=name,
            is_over_threshold=True,
            causes=(Cause("currency", amount, text),) if amount else (),
        )
