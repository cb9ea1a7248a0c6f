"""What a comparison of the synthetic month found, in short."""

from __future__ import annotations

from typing import Any

from month import PERIOD

from costspan.core.reconcile import Variance, reconcile
from costspan.core.reconcile.authority import parse
from costspan.core.settle.ledger import Ledger

STRICT = parse('[threshold.money]\nabsolute = "0"\nrelative = "0"\n')
CALL = 3500 * 10**6
"""What a call costs, in pico-USD."""
Found = dict[tuple[str, str, str], int]


def found(ledger: Ledger, **options: Any) -> list[Variance]:
    variances = reconcile(ledger, PERIOD, STRICT, **options).variances
    for each in variances:
        assert each.explained + each.unexplained == each.difference
    return variances


def causes(ledger: Ledger, what: str = "money") -> Found:
    """(day, kind of cause) -> amount; what nothing explains under "unexplained"."""
    said: Found = {}
    for variance in found(ledger):
        if variance.what != what:
            continue
        for cause in variance.causes:
            key = (variance.grain.day, variance.grain.model, cause.kind)
            said[key] = said.get(key, 0) + cause.amount
        if variance.unexplained:
            said[variance.grain.day, variance.grain.model, "unexplained"] = variance.unexplained
    return said
