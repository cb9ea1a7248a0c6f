"""Charge books: what a tenant is charged where it is not what the price books say.

An entry holds for one tenant (or for every tenant without an entry of its own) over a span of
time, perhaps for one model, and says one of three things: a factor on the charge that the rules
came to, a fixed amount per request, or prices of its own for the same quantities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from costspan.core.money import PICO
from costspan.core.prices.book import PriceBook, PriceRow
from costspan.core.prices.content import (
    Dated,
    PriceError,
    Rates,
    canonical,
    pack,
    plain_amount,
    plain_rates,
    unpack,
)
from costspan.core.prices.match import Match

SCHEMA = "costspan-charges/1"


class ChargeEntry(Dated, frozen=True, kw_only=True, omit_defaults=True):
    """What one tenant is charged, over one span of time: a factor, a fixed amount, or rates.

    Attributes:
        book: id of the charge book it belongs to.
        tenant: whose charge; None for every tenant that has no entry of its own then.
        model: the model it is limited to, None for any.
        factor: times the charge by the rules, a decimal string.
        fixed: USD per request, a decimal string.
        rates: component to decimal string, USD per 1M tokens or per one unit.

    Raises:
        PriceError: if it says not exactly one of the three, or an amount is not a non-negative
            decimal, or the span is empty.
    """

    book: str
    tenant: str | None = None
    model: str | None = None
    factor: str | None = None
    fixed: str | None = None
    rates: Rates = {}  # noqa: RUF012  # a Struct copies it

    def __post_init__(self) -> None:
        name = f"{self.book}: {self.tenant or 'every tenant'}"
        said = [self.factor is not None, self.fixed is not None, bool(self.rates)]
        if sum(said) != 1:
            raise PriceError(
                f"{name}: an entry says one thing: a factor, a fixed amount per request, or prices"
                " by component"
            )
        self.refuse_empty_span(name)
        fix = msgspec.structs.force_setattr
        for field in ("factor", "fixed"):
            if (amount := getattr(self, field)) is not None:
                fix(self, field, plain_amount(amount, f"{name}: {field}"))
        fix(self, "rates", plain_rates(self.rates, name))
        self.derive_id()


class Terms(NamedTuple):
    """An entry ready to charge with: exactly one of the three is there.

    Attributes:
        entry: the entry.
        factor: times the base.
        fixed: pico-USD per request, exact.
        match: prices for quantities.
    """

    entry: ChargeEntry
    factor: Fraction | None
    fixed: Fraction | None
    match: Match | None


class ChargeBook(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The charge entries of one source.

    Attributes:
        id: the name reports use.
        source: where they come from.
        entries: any number, in any order.
    """

    id: str
    source: str = ""
    entries: tuple[ChargeEntry, ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, the same for any order of entries and spelling of amounts."""
        return hashlib.sha256(canonical(self._content())).hexdigest()

    def to_bytes(self) -> bytes:
        """The book as compressed canonical JSON, with its hash; `from_bytes` reads it."""
        return pack(self._content(), self.sha256)

    @classmethod
    def from_bytes(cls, data: bytes) -> ChargeBook:
        """The book that `to_bytes` wrote.

        Raises:
            PriceError: if the bytes are damaged, of another schema, or do not match their hash.
        """
        return unpack(
            cls, data, lambda book: book.sha256, schema=SCHEMA, kind="charge book", rows="entries"
        )

    def find(self, tenant: str, models: Collection[str], at_ns: int) -> Terms | None:
        """What this tenant is charged for a request, or None: as the rules alone say.

        An entry of the tenant's own goes before one for every tenant, then one of the model before
        one of any, then the one that began last.

        Args:
            tenant: who is charged.
            models: the names of the model that the charge is for; none if it is for no model.
            at_ns: when the request started (ns UTC).
        """
        for mine in (self._terms.get(tenant), self._terms.get(None)):
            fitting = [
                terms
                for terms in mine or ()
                if terms.entry.in_force(at_ns)
                and (terms.entry.model is None or terms.entry.model in models)
            ]
            if fitting:
                return max(fitting, key=_precedence)
        return None

    @cached_property
    def _terms(self) -> dict[str | None, list[Terms]]:
        found: dict[str | None, list[Terms]] = {}
        for entry in self.entries:
            found.setdefault(entry.tenant, []).append(_terms_of(entry))
        return found

    def __hash__(self) -> int:
        return hash((self.id, len(self.entries)))

    def __repr__(self) -> str:
        return f"<ChargeBook {self.id}: {len(self.entries)} entries>"

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.to_builtins(self)
        content["schema"] = SCHEMA
        content["entries"] = sorted(content["entries"], key=lambda entry: str(entry["id"]))
        return content


def _terms_of(entry: ChargeEntry) -> Terms:
    factor = None if entry.factor is None else Fraction(entry.factor)
    fixed = None if entry.fixed is None else Fraction(entry.fixed) * PICO
    match = None
    if entry.rates:
        row = PriceRow(book=entry.book, model=entry.model or "any model", rates=entry.rates)
        match = Match(row, PriceBook(id=entry.book), ())
    return Terms(entry, factor, fixed, match)


def _precedence(terms: Terms) -> tuple[bool, bool, int, str]:
    entry = terms.entry
    start = entry.effective_from
    return (entry.model is not None, start is not None, start or 0, entry.id)
