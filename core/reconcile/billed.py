"""The invoices' side: which documents count, and what their lines add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.invoices.store import InvoiceStore
from costspan.core.prices.names import canonical_provider, canonical_tier
from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.reconcile.naming import Models
from costspan.core.reconcile.recorded import Part
from costspan.core.reconcile.variance import EVIDENCE_MAX, Amounts, Grain

USAGE = "-usage"
"""What an importer calls its document of tokens and requests, after the name of that of money."""


class Document(NamedTuple):
    """An invoice that counts, whose bill it is, and whether it says requests and tokens.

    `provider` is canonical. Of a document of tokens alone (`is_money` false) no amount is taken;
    where there is one, the quantities on lines of money only say what was paid for. `is_empty`
    ones have no line: what they bill is known, and nothing.
    """

    invoice: Invoice
    provider: str
    is_money: bool
    has_quantities: bool
    is_empty: bool


class Copies(msgspec.Struct):
    """Lines that stand there more than once: what the copies come to."""

    amounts: Amounts = Amounts()
    parts: dict[tuple[str, str], Part] = {}
    lines: list[str] = []
    count: int = 0


class Billed(msgspec.Struct):
    """What the lines of one grain add up to.

    `parts` is by (tier, component), as the lines of money say it. `lines` names some of
    `lines_count`.
    """

    amounts: Amounts = Amounts()
    parts: dict[tuple[str, str], Part] = {}
    copies: Copies = msgspec.field(default_factory=Copies)
    lines: list[str] = []
    lines_count: int = 0
    is_provisional: bool = False

    def add(self, line: InvoiceLine, document: Document, is_copy: bool) -> None:
        """Add a line; `is_copy` if the same one was there before."""
        tier, quantity = canonical_tier(line.tier) or "", line.quantity or 0
        is_tokens = line.component not in UNIT_COMPONENTS and line.unit in (None, "", "tokens")
        counts = document.has_quantities
        amounts = Amounts(
            (line.requests or 0) if counts else 0,
            quantity if counts and is_tokens else 0,
            line.amount if document.is_money else 0,
        )
        self.amounts = self.amounts.plus(amounts)
        name = name_of(line)
        for parts in (self.parts, *((self.copies.parts,) if is_copy else ())):
            if document.is_money:
                part = parts.setdefault((tier, line.component), Part())
                part.quantity += quantity
                part.money += line.amount
        if is_copy:
            self.copies.amounts = self.copies.amounts.plus(amounts)
            self.copies.count += 1
            _keep(self.copies.lines, name)
        self.lines_count += 1
        _keep(self.lines, name)
        self.is_provisional = self.is_provisional or line.is_provisional


class Apart(msgspec.Struct):
    """What is on an invoice beside usage, of one category and day; pico of the currency."""

    amount: int = 0
    lines: list[str] = []
    lines_count: int = 0
    descriptions: list[str] = []

    def add(self, line: InvoiceLine) -> None:
        """Add a line."""
        self.amount += line.amount
        self.lines_count += 1
        _keep(self.lines, name_of(line))
        if line.description and line.description not in self.descriptions:
            _keep(self.descriptions, line.description)


def name_of(line: InvoiceLine) -> str:
    """A line as evidence names it."""
    return f"{line.invoice}:{line.number}"


class LeftOut(NamedTuple):
    """A document that does not count, and the one that does instead; `provider` is canonical."""

    invoice: Invoice
    provider: str
    instead: Invoice


class Choice(NamedTuple):
    """The documents that count, and those with lines that do not."""

    documents: list[Document]
    left_out: list[LeftOut]


def choose(
    store: InvoiceStore,
    period: str,
    sources: tuple[str, ...],
    is_whole: Callable[[Invoice], bool] = lambda _: False,
) -> Choice:
    """The documents that count, of money and of quantities apart.

    Where several sources bill one provider, the first in order of precedence does: one that is not
    named comes after those that are, and a document without lines last. Another source counts
    beside it only where every document names its account and they have no account or project in
    common: one without a name may bill them all, and nothing may be billed twice. An invoice that
    an allocation brought in whole (`is_whole`) is of other calls: it stands in the way of its own
    account alone.
    """
    current = store.current(period)
    empty = {each.id for each in current if store.line(each.id, 0) is None}
    names: dict[str, set[str]] = {}

    def place(invoice: Invoice) -> tuple[bool, int, str]:
        source = _source(invoice)
        at = sources.index(source) if source in sources else len(sources)
        return (invoice.id in empty, at, source)

    def is_money(invoice: Invoice) -> bool:
        """A document of costs that bills nothing is one of money: of nothing."""
        of_costs = invoice.id in empty and not invoice.source.endswith(USAGE)
        return bool(invoice.currency) or of_costs

    def names_of(invoice: Invoice) -> set[str]:
        if invoice.id not in names:
            names[invoice.id] = {account_of(line) for line in store.lines(invoice.id)}
        return names[invoice.id] | {invoice.account}

    def is_same(one: Invoice, other: Invoice) -> bool:
        if one.account == other.account:
            return True
        if _source(one) == _source(other) or is_whole(one) or is_whole(other):
            return False
        is_named = one.account and other.account
        return not is_named or not names_of(one).isdisjoint(names_of(other))

    found: dict[tuple[bool, str], list[Invoice]] = {}
    left_out: list[LeftOut] = []
    for invoice in sorted(current, key=place):
        provider = canonical_provider(invoice.provider) or ""
        counting = found.setdefault((is_money(invoice), provider), [])
        instead = next((each for each in counting if is_same(each, invoice)), None)
        if instead is None:
            counting.append(invoice)
        elif invoice.id not in empty:
            left_out.append(LeftOut(invoice, provider, instead))
    told = {
        provider
        for (of_money, provider), counting in found.items()
        if not of_money and not empty.issuperset(each.id for each in counting)
    }
    documents = [
        Document(each, provider, of_money, not of_money or provider not in told, each.id in empty)
        for (of_money, provider), counting in found.items()
        for each in counting
    ]
    return Choice(documents, left_out)


def _source(invoice: Invoice) -> str:
    return invoice.source.removesuffix(USAGE)


class Bill(msgspec.Struct):
    """What is known of all documents before their lines are put into grains; all by provider.

    `accounts`, `models` and `days` are what the lines of usage name; `unnamed` has the components
    of lines that say no model. `undated` providers have lines without a day, `totals_only` ones no
    line with a model or a component; `has_requests` and `has_tokens` say what can be compared.
    """

    accounts: dict[str, set[str]] = {}
    models: dict[str, set[str]] = {}
    days: dict[str, set[str]] = {}
    unnamed: dict[str, set[str]] = {}
    undated: set[str] = set()
    totals_only: set[str] = set()
    has_requests: set[str] = set()
    has_tokens: set[str] = set()


def account_of(line: InvoiceLine) -> str:
    """Whose spend a line is: the project, else the account that is billed."""
    return line.project or line.account


def survey(store: InvoiceStore, found: Iterable[Document], models: Models) -> Bill:
    """One look at every line of usage."""
    bill = Bill()
    named: set[str] = set()
    for document in found:
        provider = document.provider
        bill.accounts.setdefault(provider, set())
        for line in usage_lines(store, document):
            bill.accounts.setdefault(provider, set()).add(account_of(line))
            bill.days.setdefault(provider, set()).add(line.day)
            if not line.day:
                bill.undated.add(provider)
            if line.model:
                model = models.named(line.model, provider)
                bill.models.setdefault(provider, set()).add(model)
            elif document.is_money:
                bill.unnamed.setdefault(provider, set()).add(line.component)
            if line.model or line.component:
                named.add(provider)
            if document.has_quantities:
                if line.requests is not None:
                    bill.has_requests.add(provider)
                if line.quantity is not None:
                    bill.has_tokens.add(provider)
    bill.totals_only = bill.accounts.keys() - named
    return bill


def usage_lines(store: InvoiceStore, document: Document) -> Iterator[InvoiceLine]:
    """The lines of usage of a document."""
    lines = store.lines(document.invoice.id)
    return (line for line in lines if line.category == "usage")


def _said(line: InvoiceLine) -> tuple[object, ...]:
    """Everything a line says but its number: two lines of one key are copies."""
    return msgspec.structs.astuple(msgspec.structs.replace(line, number=0))


def collect(
    store: InvoiceStore, found: Iterable[Document], grain_of: Callable[[InvoiceLine, str], Grain]
) -> tuple[dict[Grain, Billed], dict[tuple[str, str, str, str, str], Apart]]:
    """(grain -> usage, (category, provider, account, day, currency) -> what is beside it)."""
    billed: dict[Grain, Billed] = {}
    apart: dict[tuple[str, str, str, str, str], Apart] = {}
    for document in found:
        seen: set[tuple[object, ...]] = set()
        for line in store.lines(document.invoice.id):
            if line.category == "usage":
                key = _said(line)
                billed.setdefault(grain_of(line, document.provider), Billed()).add(
                    line, document, key in seen
                )
                seen.add(key)
            elif document.is_money:
                where = (line.category, document.provider, account_of(line), line.day)
                apart.setdefault((*where, line.currency), Apart()).add(line)
    return billed, apart


def _keep(named: list[str], name: str) -> None:
    if len(named) < EVIDENCE_MAX:
        named.append(name)
