"""What one row of another system's records claims, ready to be settled and compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from costspan.core.schema import Observation


class Rejected(ValueError):
    """A row that cannot be an observation, and why; `raw` is what stood there, if it is no row."""

    def __init__(self, reason: str, raw: str = "") -> None:
        super().__init__(reason)
        self.raw = raw


class LeftOut(ValueError):
    """A row that is sound and no call of a model, and what it is."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a row says that is no fact of the call, and is only compared.

    Attributes:
        spend: what the host says it cost, pico-USD; None if it does not say.
        without: what it would say without a thing of its own, pico-USD, by the cause that names
            the thing: a margin, tools that it charged for.
        place: where the tenant stood; None if it stood nowhere.
        no_tenant: why the row names no tenant; None if it names one.
        is_streamed: whether the reply was a stream, as far as the row shows.
        has_own_price: whether the host priced the call by its operator's own configuration.
        has_no_price: whether the host knew no price of the model, or had it for nothing.
    """

    spend: int | None = None
    without: Mapping[str, int] = {}
    place: str | None = None
    no_tenant: str | None = None
    is_streamed: bool = False
    has_own_price: bool = False
    has_no_price: bool = False


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A row as it waits, small, to be compared when all of them are in.

    Attributes:
        oid: the row's own name.
        event_id: the event that it makes where nobody else saw the call.
        usage: its disjoint components; None if unknown.
        said: what else it says.
    """

    oid: str
    event_id: str
    usage: Mapping[str, int] | None
    said: Said


class Claim(NamedTuple):
    """A row as an observation, and what else it says."""

    seen: Observation
    said: Said

    @property
    def told(self) -> Told:
        """What of the row is compared."""
        oid = self.seen.oid or ""
        return Told(oid, min(self.seen.operation_ids, default=oid), self.seen.usage, self.said)
