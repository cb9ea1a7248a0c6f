"""What the tests of allocation share: a month's pools shared out by somebody, and what stands."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from shelf import at

from costspan.core.allocate import Allocated, AllocationRule, allocate_period, load_rule
from costspan.core.money import PICO
from costspan.core.settle.ledger import Ledger

NOW = at("2026-12-01")
MONTH = "2026-11"


def allocated(ledger: Ledger, rule: AllocationRule | str = "", **options: Any) -> Allocated:
    chosen = load_rule(rule) if isinstance(rule, str) else rule
    hand = {"by": "ann", "reason": "month's end", "now_ns": NOW}
    return allocate_period(ledger, MONTH, chosen, **{**hand, **options})


def rows(ledger: Ledger) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(owner, bucket, pool) -> what stands there."""
    lines = ledger.sums(("owner", "bucket", "pool"), period=MONTH)
    return {key: (cost, charge) for key, (cost, charge, _) in lines if cost or charge}  # type: ignore[misc]


def usd(amount: str) -> int:
    return int(Fraction(amount) * PICO)
