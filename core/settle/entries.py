"""What books are made of: lines, amounts, entries, and events as they stand."""

from __future__ import annotations

from typing import NamedTuple, Self

import msgspec

from costspan.core.decide import Decision
from costspan.core.join import Event
from costspan.core.money import format_usd
from costspan.core.schema import Observation


class Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where an amount of an event stands in the books. `effective_period` is YYYY-MM, UTC."""

    owner: str
    bucket: str
    pool: str | None
    effective_period: str
    day: str
    model: str


class Amount(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Cost and charge in pico-USD."""

    cost: int
    charge: int


Posted = tuple[tuple[Line, Amount], ...]
"""What is posted for an event: the sum of its entries on each line, in the order of lines."""


class Settled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event as it stands: its facts, its decision (None while open), what is posted for it."""

    event: Event
    decision: Decision | None = None
    posted: Posted = ()


class Node(NamedTuple):
    """What an event tells its descendants."""

    tenant: str | None
    session: str | None
    parent: str | None
    kind: str | None


class Posting(NamedTuple):
    """One append-only entry: a difference on one line. Amounts are pico-USD, signed.

    `events` is +1 where the event comes to stand on the line, -1 where it leaves it, else 0.
    """

    event_id: str
    line: Line
    posted_period: str
    amount: Amount
    events: int


class Appended(NamedTuple):
    """What `append` made of a batch: what is new (or won over another payload of its oid).

    `replaced` is what was kept before and lost to a fresh one of the same oid.
    """

    fresh: list[Observation]
    replaced: list[Observation]
    duplicates: int
    conflicts: int


class RollUp(NamedTuple):
    """A line of the books with its net amounts and how many events stand on it."""

    line: Line
    posted_period: str
    cost: int
    charge: int
    events: int


class Sum(NamedTuple):
    """What lines add up to: pico-USD, and how often an event stands on one of them."""

    cost: int
    charge: int
    events: int


_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Entry(msgspec.Struct, frozen=True):
    """A posting and its number, which no other has: what sinks take, and what closes seal.

    Amounts are pico of the currency, signed.

    `events` is +1 where the event comes to stand on the line, -1 where it leaves it, else 0.
    """

    number: int
    event_id: str
    owner: str
    bucket: str
    pool: str | None
    effective_period: str
    posted_period: str
    day: str
    model: str
    currency: str
    cost: int
    charge: int
    events: int

    @classmethod
    def of(cls, number: int, posting: Posting) -> Self:
        """The entry that a numbered posting is."""
        line, amount = posting.line, posting.amount
        return cls(
            number, posting.event_id, line.owner, line.bucket, line.pool, line.effective_period,
            posting.posted_period, line.day, line.model, "USD", amount.cost, amount.charge,
            posting.events,
        )  # fmt: skip

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces; amounts are decimal strings with 12 places."""
        fields: dict[str, object] = msgspec.structs.asdict(self)
        fields |= {"cost": format_usd(self.cost), "charge": format_usd(self.charge)}
        return _encode_sorted(fields)
