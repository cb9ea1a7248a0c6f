"""What changed between two price books: rows added, removed, and rates that moved."""

from __future__ import annotations

from typing import Literal

import msgspec

from costspan.core.prices.book import PriceBook, PriceRow
from costspan.core.prices.names import canonical_provider

_Terms = tuple[str, ...]


class PriceChange(msgspec.Struct, frozen=True):
    """One row that differs between two books.

    Attributes:
        kind: whether the row was added, removed or changed.
        before: the old book's row, None if added.
        after: the new book's row, None if removed.
        components: the components whose base rate differs (sorted); of a changed row with none,
            it is the context tiers or the end of the span that differ.
    """

    kind: Literal["added", "removed", "changed"]
    before: PriceRow | None
    after: PriceRow | None
    components: tuple[str, ...]


def diff(before: PriceBook, after: PriceBook) -> list[PriceChange]:
    """The changes that lead from one book to the other, sorted by provider, model and terms.

    Rows are paired by provider, model, endpoint, region, tier and start date; the book's id plays
    no part, so two sources can be compared too.
    """
    old = {_terms(row): row for row in before.rows}
    new = {_terms(row): row for row in after.rows}
    changes: list[PriceChange] = []
    for terms in sorted(old.keys() | new.keys()):
        was, now = old.get(terms), new.get(terms)
        if was is None or now is None:
            kind: Literal["added", "removed"] = "added" if was is None else "removed"
            row = now if was is None else was
            components = tuple(sorted(row.rates)) if row is not None else ()
            changes.append(PriceChange(kind, was, now, components))
        elif _content(was) != _content(now):
            changes.append(PriceChange("changed", was, now, _moved(was, now)))
    return changes


def _terms(row: PriceRow) -> _Terms:
    start = row.effective_from
    return (
        canonical_provider(row.provider) or "",
        row.model,
        row.tier or "",
        row.region or "",
        row.endpoint or "",
        "" if start is None else f"{start + 2**63:020d}",
    )


def _content(row: PriceRow) -> tuple[object, ...]:
    return (row.rates, row.above, row.effective_to, row.currency)


def _moved(was: PriceRow, now: PriceRow) -> tuple[str, ...]:
    components = was.rates.keys() | now.rates.keys()
    return tuple(sorted(name for name in components if was.rates.get(name) != now.rates.get(name)))
