"""The idle share of self-hosted models: what was paid and not used, in a pool of the platform's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from costspan.core.decide.decision import PLATFORM
from costspan.core.journal.records import FreeLine
from costspan.core.settle.free import ADJUSTMENT, AMOUNT_PICO_MAX, free_postings
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settle import settle
from costspan.core.settle.settlement import Settlement

IDLE = "idle"


class Idle(NamedTuple):
    """The idle share of a self-hosted model, in pico-USD."""

    model: str
    cost: int


def idle_so_far(ledger: Ledger, period: str) -> dict[str, Idle]:
    """Name of a self-hosted model -> what was posted as idle of a period, where any is."""
    found: dict[str, Idle] = {}
    for each in ledger.free_postings(period):
        if each.kind == "capacity":
            name, model = each.about["name"], each.lines[0].model
            before = found.get(name, Idle(model, 0)).cost
            found[name] = Idle(model, before + sum(line.cost for line in each.lines))
    return {name: idle for name, idle in found.items() if idle.cost}


def post_idle(
    settlement: Settlement,
    period: str,
    model: str,
    cost: int,
    about: Mapping[str, str],
    by: str,
    reason: str,
    at_ns: int,
) -> None:
    """Post an amount (pico-USD, signed, not 0) of a period to the pool; `about` has the name."""
    sign = -1 if cost < 0 else 1
    parts, rest = divmod(abs(cost), AMOUNT_PICO_MAX)  # more than one entry holds, in several
    amounts = [*[AMOUNT_PICO_MAX] * parts, *([rest] if rest else [])]
    records = [
        free_postings(
            kind="capacity",
            period=period,
            lines=[FreeLine(PLATFORM, ADJUSTMENT, IDLE, "", model, sign * amount, 0)],
            about={**about, "part": f"{number} of {len(amounts)}"},
            by=by,
            reason=reason,
            recorded_at=at_ns,
        )
        for number, amount in enumerate(amounts, 1)
    ]
    settle(settlement, [], records)


def withdraw_idle(
    ledger: Ledger, settlement: Settlement, period: str, by: str, reason: str, at_ns: int
) -> tuple[int, int]:
    """Take back every idle share of a period: (pico-USD, entries posted)."""
    total = posted = 0
    for name, (model, cost) in sorted(idle_so_far(ledger, period).items()):
        about = {"name": name, "basis": "withdrawn"}
        post_idle(settlement, period, model, -cost, about, by, reason, at_ns)
        total -= cost
        posted += 1
    return total, posted
