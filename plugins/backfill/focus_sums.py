"""Rows of FOCUS that share their dimensions, added up: in no order, and on disk when many.

Whatever the order of the rows, and of the files they stand in, the sums are the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing

import msgspec

from costspan.core.backfill.claim import Claim, Said
from costspan.core.money import format_usd
from costspan.core.schema import Observation

_Pair = tuple[Observation, Said]


def added_up(claims: Iterable[Claim]) -> Iterator[Claim]:
    """One claim for each name, in the order of names.

    Usage and amounts are sums; where one of them is unknown, so is the sum.
    """
    with closing(sqlite3.connect("", isolation_level=None)) as rows:  # a file that is nobody else's
        rows.execute("CREATE TABLE claims (oid TEXT PRIMARY KEY, claim BLOB) WITHOUT ROWID")
        rows.execute("BEGIN")
        for claim in claims:
            oid = claim.seen.oid
            there = rows.execute("SELECT claim FROM claims WHERE oid = ?", (oid,)).fetchone()
            whole = claim if there is None else _sum(_claim(there[0]), claim)
            packed = msgspec.json.encode((whole.seen, whole.said))
            rows.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (oid, packed))
        for (packed,) in rows.execute("SELECT claim FROM claims ORDER BY oid"):
            yield _claim(packed)


def _claim(packed: bytes) -> Claim:
    return Claim(*msgspec.json.decode(packed, type=_Pair))


def _sum(one: Claim, other: Claim) -> Claim:
    usage: dict[str, int] | None = None
    if one.seen.usage is not None and other.seen.usage is not None:
        usage = dict(one.seen.usage)
        for component, count in other.seen.usage.items():
            usage[component] = usage.get(component, 0) + count
    spend: int | None = None
    if one.said.spend is not None and other.said.spend is not None:
        spend = one.said.spend + other.said.spend
    flags = tuple(sorted({*one.seen.flags, *other.seen.flags}))
    seen = msgspec.structs.replace(
        one.seen,
        usage=usage,
        usage_source=one.seen.usage_source if usage else "missing",
        host_cost=format_usd(spend) if spend else None,
        flags=flags,
    )
    place = min(one.said.place, other.said.place, key=lambda each: each or "")
    return Claim(seen, msgspec.structs.replace(one.said, spend=spend, place=place))
