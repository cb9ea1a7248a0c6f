"""How good an allocation is, where the truth is known: the back-test."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple


class Score(NamedTuple):
    """What an allocation got wrong, as exact shares of the true total.

    `wape` is the weighted absolute percentage error: twice the share of the money that went to the
    wrong tenant, where everything was handed out. `bias` is what was allocated too much in all
    (signed): not zero says that something was lost or made. `to_small` is what the tenants below
    the average were allocated too much (signed): who pays for whom. `worst` is the tenant with the
    greatest absolute error, and `worst_error` that error in pico-USD (signed).
    """

    wape: Fraction
    bias: Fraction
    to_small: Fraction
    worst: str
    worst_error: int


def score(allocated: Mapping[str, int], true: Mapping[str, int]) -> Score | None:
    """Compare amounts in pico-USD, tenant by tenant; None where there is no true amount."""
    total = sum(abs(amount) for amount in true.values())
    if total == 0:
        return None
    errors = {
        owner: allocated.get(owner, 0) - true.get(owner, 0)
        for owner in allocated.keys() | true.keys()
    }
    sum_true, many = sum(true.values()), len(errors)
    small = [error for owner, error in errors.items() if true.get(owner, 0) * many < sum_true]
    worst = min(errors, key=lambda owner: (-abs(errors[owner]), owner))
    return Score(
        Fraction(sum(map(abs, errors.values())), total),
        Fraction(sum(errors.values()), total),
        Fraction(sum(small), total),
        worst,
        errors[worst],
    )
