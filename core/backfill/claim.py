"""What one row of another system's records claims, ready to be settled and compared."""

from __future__ import annotations

from typing import NamedTuple

from costspan.core.schema import Observation


class Rejected(ValueError):
    """A row that cannot be an observation, and why; `raw` is what stood there, if it is no row."""

    def __init__(self, reason: str, raw: str = "") -> None:
        super().__init__(reason)
        self.raw = raw


class LeftOut(ValueError):
    """A row that is sound and no call of a model, and what it is."""


class Claim(NamedTuple):
    """A row as an observation, and what is only needed to compare.

    Attributes:
        seen: the observation.
        spend: what the host says it cost, pico-USD; None if it does not say.
        before_margin: what it says before its own margins and discounts; None without any.
        no_tenant: why the row names no tenant; None if it names one.
        is_streamed: whether the reply was a stream, as far as the row shows.
    """

    seen: Observation
    spend: int | None = None
    before_margin: int | None = None
    no_tenant: str | None = None
    is_streamed: bool = False

    @property
    def name(self) -> str:
        """The id of the event that the row makes where nobody else saw the call."""
        return min(self.seen.operation_ids, default=self.seen.oid or "")
