"""A price book as data: rows of rates, aliases, a content hash, and the bytes a ledger keeps.

Rates are decimal strings in USD (see `units`): "2.50" for `input` is USD 2.50 per 1M tokens.
Everything that identifies content (row ids, a book's sha256) is derived from canonical JSON, so
it depends neither on the order of rows nor on how an amount was written.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from costspan.core.prices.content import (
    Dated,
    PriceError,
    Rates,
    canonical,
    pack,
    plain_rates,
    unpack,
)
from costspan.core.prices.names import canonical_tier

__all__ = ["SCHEMA", "ContextTier", "PriceBook", "PriceError", "PriceRow", "Rates"]

SCHEMA = "costspan-prices/1"


class ContextTier(msgspec.Struct, frozen=True):
    """Rates for the whole request once its prompt is longer than `above_input_tokens`.

    They replace the base rates of the components they name; the others keep the base rate.
    """

    above_input_tokens: int
    rates: Rates


class PriceRow(Dated, frozen=True, kw_only=True, omit_defaults=True):
    """The rates of one model, under one set of terms, for one span of time.

    Attributes:
        book: id of the book it belongs to.
        model: the provider's name for the model.
        provider: who bills, None if the rates hold whoever does.
        endpoint: endpoint the rates are limited to, None for any.
        region: region the rates are limited to, None for any.
        tier: service tier; None is the base row ("", "default", "standard" and "auto" become it).
        currency: always "USD" for now.
        rates: component to decimal string, USD per 1M tokens or per one unit.
        above: context tiers, by rising threshold.

    Raises:
        PriceError: if a rate is not a non-negative decimal, there are none, or the span is empty.
    """

    book: str
    model: str
    provider: str | None = None
    endpoint: str | None = None
    region: str | None = None
    tier: str | None = None
    currency: str = "USD"
    rates: Rates
    above: tuple[ContextTier, ...] = ()

    def __post_init__(self) -> None:
        name = f"{self.book}: {self.model}" + (f" ({self.tier})" if self.tier else "")
        if not self.model:
            raise PriceError(f"{self.book}: a price row without a model")
        if self.currency != "USD":
            raise PriceError(f"{name}: currency {self.currency!r}; only USD can be priced")
        if not self.rates:
            raise PriceError(f"{name}: no rates; leave the row out if its price is not known")
        self.refuse_empty_span(name)
        thresholds = [tier.above_input_tokens for tier in self.above]
        if len(set(thresholds)) != len(thresholds) or any(above < 0 for above in thresholds):
            raise PriceError(f"{name}: context tiers need distinct thresholds of 0 or more")
        above = tuple(
            ContextTier(tier.above_input_tokens, plain_rates(tier.rates, name))
            for tier in sorted(self.above, key=lambda tier: tier.above_input_tokens)
        )
        fix = msgspec.structs.force_setattr
        fix(self, "tier", canonical_tier(self.tier))
        fix(self, "rates", plain_rates(self.rates, name))
        fix(self, "above", above)
        self.derive_id()


class PriceBook(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Rows from one source.

    Attributes:
        id: the name reports and precedence use.
        source: where the rates come from.
        source_version: the version of that source, None if it has none.
        rows: any number, in any order.
        aliases: another name to the model it prices as. `name` holds for every provider that has
            the model, `provider:name` for that provider alone.
        defaults: name to the provider meant when nobody says which; a name without one is read
            as that of the only provider that has it.
        providers: a provider's name elsewhere to its name in this book, where the source lumps
            several together (Google's two clouds).
    """

    id: str
    source: str = ""
    source_version: str | None = None
    rows: tuple[PriceRow, ...] = ()
    aliases: dict[str, str] = {}
    defaults: dict[str, str] = {}
    providers: dict[str, str] = {}

    @classmethod
    def from_table(
        cls,
        id: str,
        table: Mapping[str, Mapping[str, str]],
        aliases: Mapping[str, str] | None = None,
    ) -> PriceBook:
        """A book from `model` or `model#tier` -> component -> decimal string, for any provider.

        Raises:
            PriceError: if a row cannot be used.
        """
        rows: list[PriceRow] = []
        for name, rates in table.items():
            model, _, tier = name.partition("#")
            rows.append(PriceRow(book=id, model=model, tier=tier or None, rates=dict(rates)))
        return cls(id=id, source="table", rows=tuple(rows), aliases=dict(aliases or {}))

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, the same for any order of rows and any spelling of amounts."""
        return hashlib.sha256(canonical(self._content())).hexdigest()

    def to_bytes(self) -> bytes:
        """The book as compressed canonical JSON, with its hash; `from_bytes` reads it."""
        return self._snapshot

    @cached_property
    def _snapshot(self) -> bytes:
        return pack(self._content(), self.sha256)  # once: a process may open many ledgers

    @classmethod
    def from_bytes(cls, data: bytes) -> PriceBook:
        """The book that `to_bytes` wrote.

        Raises:
            PriceError: if the bytes are damaged, of another schema, or do not match their hash.
        """
        return unpack(
            cls, data, lambda book: book.sha256, schema=SCHEMA, kind="price book", rows="rows"
        )

    @classmethod
    def row_of_bytes(cls, data: bytes, row_id: str) -> tuple[PriceRow, PriceBook] | None:
        """A row of what `to_bytes` wrote, and its book without rows, without reading all of them.

        The row's id vouches for it; nothing does for the name and version of the book.

        Raises:
            PriceError: if the bytes are damaged.
        """
        try:
            written = _decode_snapshot(zlib.decompress(data))
            quoted = f'"id":{json.dumps(row_id)}'.encode()
            for raw in written.rows:
                if quoted in bytes(raw):
                    row = _decode_row(raw)
                    if row.id == row_id:
                        return row, cls(id=written.id, source_version=written.source_version)
        except (zlib.error, ValueError) as error:
            raise PriceError(f"not a price book snapshot: {error}") from error
        return None

    def __hash__(self) -> int:
        return hash((self.id, self.source_version, len(self.rows)))

    def __repr__(self) -> str:
        version = f" {self.source_version}" if self.source_version else ""
        return f"<PriceBook {self.id}{version}: {len(self.rows)} rows>"

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = msgspec.to_builtins(self)
        content["schema"] = SCHEMA
        content["rows"] = sorted(content["rows"], key=lambda row: str(row["id"]))
        return content


class _Snapshot(msgspec.Struct):
    """What `PriceBook.to_bytes` wrote, its rows not read yet."""

    id: str
    source_version: str | None
    rows: list[msgspec.Raw]


_decode_snapshot = msgspec.json.Decoder(_Snapshot).decode
_decode_row = msgspec.json.Decoder(PriceRow).decode
