"""One book, indexed by provider and model name, and the rules by which a name finds rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from costspan.core.prices.book import PriceBook, PriceRow
from costspan.core.prices.names import Reading, canonical_provider, canonical_tier, readings

_Key = tuple[str | None, str]


class Query(NamedTuple):
    """What a price is asked for, as the caller wrote it; the time is asked apart."""

    model: str
    provider: str | None
    tier: str | None
    region: str | None
    endpoint: str | None


class Found(NamedTuple):
    """Rows that answer a query at some time (none if the book misses), and how, or why not."""

    rows: tuple[PriceRow, ...]
    why: str


class BookIndex:
    """A book ready for lookup. Not changed after it is built, so threads may share it."""

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._rows: dict[_Key, list[PriceRow]] = {}
        self._targets: dict[_Key, str] = {}
        self._owners: dict[str, set[str]] = {}
        self._elsewhere = {
            canonical_provider(name): canonical_provider(here)
            for name, here in book.providers.items()
        }
        for row in book.rows:
            provider = canonical_provider(row.provider)
            self._rows.setdefault((provider, row.model), []).append(row)
            self._own(row.model, provider)
        # The providers this book has prices of. A name that begins with one of them is theirs.
        self._scopes = {provider for provider, _ in self._rows if provider is not None}
        self._add_aliases()

    def find(self, query: Query) -> Found:
        """The rows whose name, tier, region and endpoint answer `query`, in force or not."""
        provider = canonical_provider(query.provider)
        problem = f"no row for {query.model}"
        for reading in readings(query.model, provider):
            rows, step = self._named(reading)
            if rows:
                how = ", ".join((*reading.how, *step)) or "exact"
                return self._fitting(rows, query, how)
            if step:
                problem = ", ".join((*reading.how, *step))
        return Found((), problem)

    def _own(self, name: str, provider: str | None) -> None:
        if provider is not None:
            self._owners.setdefault(name, set()).add(provider)

    def _add_aliases(self) -> None:
        for alias, model in self.book.aliases.items():
            self._targets[None, alias] = model
            for provider in self._owners.get(model, ()):
                self._own(alias, provider)
            head, _, name = alias.partition(":")
            scope = canonical_provider(head)
            if not name or scope is None:
                continue
            if scope in self._scopes or (None, model) in self._rows:
                self._targets[scope, name] = model
            if scope in self._scopes:
                self._own(name, scope)

    def _named(self, reading: Reading) -> tuple[list[PriceRow], tuple[str, ...]]:
        """Rows under this very name or its alias, with the steps taken (or what stood against)."""
        if not reading.owned:
            return self._of(None, reading.model)
        provider = self._elsewhere.get(reading.provider, reading.provider)
        if provider is not None:
            return self._of(provider, reading.model)
        unowned = self._of(None, reading.model)
        if unowned[0]:
            return unowned
        owners = self._owners.get(reading.model, set())
        owner = canonical_provider(self.book.defaults.get(reading.model))
        prefix = reading.model.partition("/")[0] if "/" in reading.model else None
        if owner is None and canonical_provider(prefix) not in self._scopes:
            if len(owners) > 1:
                return [], (f"{_some(owners)} all have {reading.model}: the provider decides",)
            owner = next(iter(owners), None)
        if owner is None:
            return [], ()
        rows, step = self._of(owner, reading.model)
        return rows, (*step, f"provider {owner} assumed") if rows else ()

    def _of(self, provider: str | None, name: str) -> tuple[list[PriceRow], tuple[str, ...]]:
        if rows := self._held(provider, name):
            return rows, ()
        target = self._targets.get((provider, name)) or self._targets.get((None, name))
        if target and (rows := self._held(provider, target)):
            return rows, (f"alias {name} -> {target}",)
        return [], ()

    def _held(self, provider: str | None, model: str) -> list[PriceRow]:
        rows = self._rows.get((None, model), [])
        return rows if provider is None else self._rows.get((provider, model), []) + rows

    def _fitting(self, rows: list[PriceRow], query: Query, how: str) -> Found:
        tier = canonical_tier(query.tier)
        name = rows[0].model
        of_tier = [row for row in rows if row.tier == tier]
        if not of_tier:
            return Found((), f"has {name}, but no row for tier {tier or 'standard'}")
        fitting = tuple(
            row
            for row in of_tier
            if row.region in (None, query.region) and row.endpoint in (None, query.endpoint)
        )
        if not fitting:
            return Found((), f"has {name}, but no row for this region and endpoint")
        return Found(fitting, how)


def in_force(rows: Iterable[PriceRow], at_ns: int) -> PriceRow | None:
    """The row that holds at `at_ns`: the most specific one, then the one that began last."""
    return max((row for row in rows if row.in_force(at_ns)), key=_precedence, default=None)


def _precedence(row: PriceRow) -> tuple[bool, bool, bool, bool, int, str]:
    start = row.effective_from
    return (
        row.provider is not None,
        row.region is not None,
        row.endpoint is not None,
        start is not None,
        start or 0,
        row.id,
    )


def _some(owners: set[str]) -> str:
    names = sorted(owners)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
