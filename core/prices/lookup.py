"""Several books in order of precedence: which row prices a request, and why that one.

What a query finds depends on time only through the rows' windows. So each query is resolved once
into a list of moments and the match from each on, kept in a bounded cache; the hot path is one
cache hit and, where prices have changed, one bisection. The same holds of the two names an event
has, the model that answered and the model asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import msgspec

from costspan.core.prices.book import PriceBook, PriceError, PriceRow
from costspan.core.prices.index import BookIndex, Found, Query, in_force
from costspan.core.prices.match import Match

_CACHED_QUERIES = 4096
_BEGINNING = -(2**63)
_Windows = tuple[list[int], list[Match | None]]


class Verdict(msgspec.Struct, frozen=True):
    """What one book says of a query at one time; its text is a line of `prices --why`.

    Attributes:
        book: the book's id.
        source_version: version of the book's source.
        outcome: "chosen", "shadowed" (an earlier book answered) or "missed".
        why: how the name was read, or what is missing.
        row: the row in force, None if the book misses.
        others: rows of the same name, tier, region and endpoint that are not in force then.
    """

    book: str
    source_version: str | None
    outcome: str
    why: str
    row: PriceRow | None = None
    others: tuple[PriceRow, ...] = ()

    def __str__(self) -> str:
        rates = ""
        if self.row is not None:
            terms = " ".join(f"{name}={rate}" for name, rate in self.row.rates.items())
            rates = f"  [{_span(self.row)}] {terms} (row {self.row.id})"
        version = f" {self.source_version}" if self.source_version else ""
        return f"{self.book}{version}: {self.outcome}: {self.why}{rates}"


class Rows(NamedTuple):
    """What the names of an event lead to.

    Attributes:
        executed: the row of the model that answered.
        requested: the row of the model asked for, at the executed tier; the executed row unless
            `substituted`.
        substituted: whether both names (without tier) are models, and not the same one.
    """

    executed: Match | None
    requested: Match | None
    substituted: bool


_NO_ROWS = Rows(None, None, False)


class Prices:
    """Price books in order of precedence; the first that can answer a query does.

    Safe to share between threads. Books are indexed when they are first asked.

    Raises:
        PriceError: if two books have the same id.
    """

    def __init__(self, books: Sequence[PriceBook]) -> None:
        ids = [book.id for book in books]
        for id in ids:
            if ids.count(id) > 1:
                raise PriceError(f"two price books are called {id!r}: give each its own id")
        self.books = tuple(books)
        self._indexes: dict[str, BookIndex] = {}
        self._windows = lru_cache(_CACHED_QUERIES)(self._resolve)
        self._rows_windows = lru_cache(_CACHED_QUERIES)(self._resolve_rows)

    def find(
        self,
        model: str,
        provider: str | None = None,
        tier: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        at_ns: int = 0,
        book_id: str | None = None,
    ) -> Match | None:
        """The row that prices a request, or None: then it is unpriced.

        Args:
            model: the model's name, as the provider or the caller writes it.
            provider: who bills, if known.
            tier: service tier; None, "", "default", "standard" and "auto" are the base row. Any
                other tier needs a row of its own: the base row never stands in for it.
            region: region of the request; a row for the region goes before one for any.
            endpoint: endpoint of the request, likewise.
            at_ns: when the request started (ns UTC).
            book_id: ask this book alone.
        """
        starts, matches = self._windows(model, provider, tier, region, endpoint, book_id)
        if len(starts) == 1:
            return matches[0]
        return matches[bisect_right(starts, at_ns) - 1]

    def rows(
        self,
        executed: str | None,
        requested: str | None,
        provider: str | None,
        tier: str | None,
        region: str | None,
        at_ns: int,
        book_id: str | None,
    ) -> Rows:
        """The rows of the model that answered (else the one asked for) and of the one asked for.

        Arguments as for `find`. A fallback may lead to another provider: the model asked for need
        not be one of `provider`'s own.
        """
        name = executed or requested
        if name is None:
            return _NO_ROWS
        starts, rows = self._rows_windows(name, requested, provider, tier, region, book_id)
        if len(starts) == 1:
            return rows[0]
        return rows[bisect_right(starts, at_ns) - 1]

    def explain(
        self,
        model: str,
        provider: str | None = None,
        tier: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        at_ns: int = 0,
        book_id: str | None = None,
    ) -> list[Verdict]:
        """What every book says of a query, in order of precedence; arguments as for `find`."""
        verdicts: list[Verdict] = []
        answered = False
        for book, found in self._consult(Query(model, provider, tier, region, endpoint), book_id):
            row = in_force(found.rows, at_ns)
            if row is None:
                why = found.why if not found.rows else _not_in_force(found, at_ns)
                outcome = "missed"
            else:
                why = found.why
                outcome = "shadowed" if answered else "chosen"
                answered = True
            others = tuple(other for other in found.rows if other is not row)
            verdicts.append(Verdict(book.id, book.source_version, outcome, why, row, others))
        return verdicts

    def book(self, id: str) -> PriceBook | None:
        """The book of that id, if there is one."""
        return next((book for book in self.books if book.id == id), None)

    def _consult(self, query: Query, book_id: str | None) -> list[tuple[PriceBook, Found]]:
        asked = [book for book in self.books if book_id in (None, book.id)]
        return [(book, self._index(book).find(query)) for book in asked]

    def _index(self, book: PriceBook) -> BookIndex:
        index = self._indexes.get(book.id)
        if index is None:
            index = self._indexes[book.id] = BookIndex(book)
        return index

    def _resolve(
        self,
        model: str,
        provider: str | None,
        tier: str | None,
        region: str | None,
        endpoint: str | None,
        book_id: str | None,
    ) -> _Windows:
        consulted = self._consult(Query(model, provider, tier, region, endpoint), book_id)
        moments = {_BEGINNING}
        for _, found in consulted:
            for row in found.rows:
                bounds = (row.effective_from, row.effective_to)
                moments.update(at_ns for at_ns in bounds if at_ns is not None)
        starts = sorted(moments)
        return starts, [_first(consulted, at_ns) for at_ns in starts]

    def _resolve_rows(
        self,
        name: str,
        asked: str | None,
        provider: str | None,
        tier: str | None,
        region: str | None,
        book_id: str | None,
    ) -> tuple[list[int], list[Rows]]:
        moments: set[int] = set()

        def found(model: str, provider: str | None, tier: str | None, at_ns: int) -> Match | None:
            starts, _ = self._windows(model, provider, tier, region, None, book_id)
            moments.update(starts)
            return self.find(model, provider, tier, region, None, at_ns, book_id)

        def found_asked(asked: str, tier: str | None, at_ns: int) -> Match | None:
            own = found(asked, provider, tier, at_ns)
            of_any = found(asked, None, tier, at_ns)
            return own or of_any

        def rows_at(at_ns: int) -> Rows:
            executed = found(name, provider, tier, at_ns)
            if asked is None or asked == name:
                return Rows(executed, executed, False)
            requested = found_asked(asked, tier, at_ns)
            # Whether they are two models is a question without tier: a tier without a row is no
            # model.
            plain = found(name, provider, None, at_ns)
            asked_plain = found_asked(asked, None, at_ns)
            if plain is None or asked_plain is None or plain.row.id == asked_plain.row.id:
                return Rows(executed, executed, False)
            return Rows(executed, requested, True)

        rows_at(_BEGINNING)  # asks everything there is to ask, whatever the time
        starts = sorted(moments)
        return starts, [rows_at(at_ns) for at_ns in starts]


def _first(consulted: Sequence[tuple[PriceBook, Found]], at_ns: int) -> Match | None:
    why: list[str] = []
    for book, found in consulted:
        row = in_force(found.rows, at_ns)
        if row is not None:
            return Match(row, book, (*why, f"{book.id}: {found.why}"))
        why.append(f"{book.id}: {_not_in_force(found, at_ns) if found.rows else found.why}")
    return None


def _not_in_force(found: Found, at_ns: int) -> str:
    spans = "; ".join(sorted(_span(row) for row in found.rows))
    return f"{found.why}, but no row in force at {_day(at_ns)} (has {spans})"


def _span(row: PriceRow) -> str:
    start = "" if row.effective_from is None else _day(row.effective_from)
    end = "" if row.effective_to is None else _day(row.effective_to)
    return f"{start}..{end}" if start or end else "any date"


def _day(at_ns: int) -> str:
    try:
        return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%MZ")
    except (OverflowError, OSError, ValueError):
        return f"{at_ns} ns"
