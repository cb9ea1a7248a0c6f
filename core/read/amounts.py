"""Cost, charge and events of some lines, added up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from costspan.core.money import format_usd

CURRENCY = "USD"
"""Of every amount in the books."""


class Amounts(msgspec.Struct, frozen=True):
    """Sums of lines: pico-USD, signed, and how many events stand on them.

    Events may be fewer than none among adjustments: an event that a closed month counted is taken
    back in a later one.
    """

    cost: int = 0
    charge: int = 0
    events: int = 0

    @property
    def absorbed(self) -> int:
        """What the platform bears itself (pico-USD)."""
        return self.cost - self.charge

    def plain(self) -> dict[str, Any]:
        """As plain values; amounts are decimal strings of USD."""
        return {
            "cost": format_usd(self.cost),
            "charge": format_usd(self.charge),
            "absorbed": format_usd(self.absorbed),
            "events": self.events,
        }


NOTHING = Amounts()


def sum_of(amounts: Iterable[Amounts]) -> Amounts:
    """All of them together."""
    cost = charge = events = 0
    for each in amounts:
        cost += each.cost
        charge += each.charge
        events += each.events
    return Amounts(cost, charge, events)
