"""Any other CSV file, by a TOML file that says what its columns mean.

[invoice]
provider = "mistral"
currency = "EUR"              # or a column
amounts_in = "cents"          # "units" if left out
delimiter = ";"               # "," if left out
decimal = ","                 # "." if left out; the other one may group thousands
day_format = "%d.%m.%Y"       # ISO 8601 if left out

[columns]                     # ours = "theirs"; amount, and day or period, must be there
amount = "Betrag"
day = "Datum"
model = "Modell"

[categories]                  # their word = ours, of the column category; else usage
"MwSt" = "tax"

[components]                  # their word = ours, of the column component
"Eingabe" = "input"

[skip]                        # rows that are no charges, such as the line of totals
"Modell" = ["Summe"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, cast

import msgspec

from costspan.core.hooks import hookimpl
from costspan.core.invoices.document import (
    Billed,
    Document,
    InvoiceError,
    Notes,
    Order,
    amount_of,
    category_of,
    currency_of,
)
from costspan.core.invoices.invoice import Category, InvoiceLine
from costspan.core.money import PICO
from costspan.core.periods import is_period
from costspan.core.prices.names import canonical_provider, canonical_tier
from costspan.plugins.invoices.meters import counted
from costspan.plugins.invoices.rows import Row, moment, rows

_GROUPED = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?", re.ASCII)
_SWAPPED: Final = str.maketrans(".,", ",.")
_PER: Final = {"units": PICO, "cents": PICO // 100}


class _Invoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    provider: str = ""
    account: str = ""
    currency: str = ""
    amounts_in: str = "units"
    delimiter: str = ","
    decimal: str = "."
    day_format: str = ""


class _Columns(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    amount: str
    day: str = ""
    period: str = ""
    currency: str = ""
    account: str = ""
    project: str = ""
    model: str = ""
    component: str = ""
    tier: str = ""
    category: str = ""
    requests: str = ""
    quantity: str = ""
    unit: str = ""
    description: str = ""


class _Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    columns: _Columns
    invoice: _Invoice = _Invoice()
    categories: dict[str, Category] = {}
    components: dict[str, str] = {}
    skip: dict[str, list[str]] = {}


@hookimpl
def import_invoice(order: Order) -> list[Document] | None:
    """Any CSV file, if the order says what its columns mean."""
    if order.raw is None or order.columns is None:
        return None
    raw, reader = order.raw, _Reader(order, _mapping(order.columns))
    return [
        Document(
            source="csv",
            provider=reader.provider,
            account=reader.account,
            raw=raw,
            lines=lambda notes: reader.lines(raw, notes),
            period=order.period,
        )
    ]


def _mapping(text: str) -> _Mapping:
    try:
        found = msgspec.convert(tomllib.loads(text), _Mapping)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvoiceError(f"the file of --columns: {error}") from error
    head = found.invoice
    if head.amounts_in not in _PER:
        raise InvoiceError(f'--columns: amounts_in is "units" or "cents", not {head.amounts_in!r}')
    if head.decimal not in (".", ",") or len(head.delimiter) != 1:
        raise InvoiceError('--columns: decimal is "." or ",", delimiter one character')
    if not (found.columns.day or found.columns.period):
        raise InvoiceError("--columns: [columns] must name the column of the day or of the period")
    if bool(head.currency) == bool(found.columns.currency):
        raise InvoiceError("--columns: name the currency in [invoice] or its column, one of them")
    return found


class _Reader:
    """Reads rows by a mapping."""

    def __init__(self, order: Order, mapping: _Mapping) -> None:
        self._order = order
        self._mapping = mapping
        named = order.provider or mapping.invoice.provider
        self.provider = canonical_provider(named) or ""
        self.account = order.account or mapping.invoice.account
        if not self.provider:
            raise InvoiceError("say who bills: --provider, or provider in [invoice] of --columns")

    def lines(self, raw: bytes, notes: Notes) -> Iterator[Billed]:
        """The lines of the file."""
        for row in rows(raw, notes, delimiter=self._mapping.invoice.delimiter):
            if any(self._cell(row, name) in words for name, words in self._mapping.skip.items()):
                notes.note("rows left out as [skip] says", row.where)
            else:
                yield self._line(row, notes)

    def _line(self, row: Row, notes: Notes) -> Billed:
        mapping, columns = self._mapping, self._mapping.columns
        where, head = row.where, mapping.invoice
        said = {
            name: self._cell(row, column)
            for name, column in cast(dict[str, str], msgspec.structs.asdict(columns)).items()
            if column
        }
        amount = amount_of(
            self._number(said["amount"], where),
            where,
            notes,
            per=_PER[head.amounts_in],
            rounding=self._order.rounding,
        )
        day, period = self._when(said, where)
        requests, _ = counted(self._number(said.get("requests", ""), where), "", where)
        quantity, unit = counted(
            self._number(said.get("quantity", ""), where), said.get("unit", ""), where
        )
        category = self._category(said, amount, where)
        if category == "usage" and min(requests or 0, quantity or 0) < 0:
            raise InvoiceError(f"{where}: usage of a negative quantity")
        word = said.get("component", "")
        line = InvoiceLine(
            invoice="",
            number=0,
            provider=self.provider,
            account=said.get("account") or self.account,
            project=said.get("project") or None,
            day=day,
            model=said.get("model") or None,
            component=mapping.components.get(word, word),
            tier=canonical_tier(said.get("tier")),
            category=category,
            requests=requests,
            quantity=quantity,
            unit=unit,
            amount=amount,
            currency=currency_of(said.get("currency", head.currency), where),
            description=said.get("description") or said.get("model", ""),
            is_provisional=day != "" and self._order.is_provisional(day),
        )
        return Billed(period, line)

    def _category(self, said: Mapping[str, str], amount: int, where: str) -> Category:
        word = said.get("category", "")
        known = self._mapping.categories
        if word in known:
            return known[word]
        if known and word:
            raise InvoiceError(f"{where}: the category {word[:40]!r} is not in [categories]")
        return category_of(word, amount)

    def _when(self, said: Mapping[str, str], where: str) -> tuple[str, str]:
        """The UTC day ("" if only the period is known), and the period."""
        period, text = said.get("period", ""), said.get("day", "")
        if text:
            format = self._mapping.invoice.day_format
            try:
                found = datetime.strptime(text, format) if format else moment(text, where)
            except ValueError as error:
                raise InvoiceError(f"{where}: {error}") from error
            day = found.strftime("%Y-%m-%d")
            return day, period or day[:7]
        if not is_period(period):
            raise InvoiceError(f"{where}: neither a day nor a period (YYYY-MM): {period[:40]!r}")
        return "", period

    def _number(self, text: str, where: str) -> str:
        """A number as it is written here, with a point and without groups of thousands."""
        if self._mapping.invoice.decimal == ",":
            text = text.translate(_SWAPPED)
        if "," not in text:
            return text
        if not _GROUPED.fullmatch(text):
            raise InvoiceError(
                f"{where}: {text[:40]!r} (with decimal = {self._mapping.invoice.decimal!r} in"
                " [invoice]) is no number: which of its marks is the decimal one?"
            )
        return text.replace(",", "")

    def _cell(self, row: Row, column: str) -> str:
        try:
            return row.cells[column]
        except KeyError:
            raise InvoiceError(
                f"no column {column!r}: the headings are {', '.join(row.cells)}"[:500]
            ) from None
