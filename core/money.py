"""Money: integers of pico-USD (1e-12 USD), decimal strings on the wire, never a float.

A price is computed exactly (an int, or a `Fraction` where a rate is finer than a pico per token),
rounded once per event with `round_half_even`, and shared among owners with `split`. Sums of these
integers are exact at any size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import lcm

PICO = 10**12
"""pico-USD in one USD."""

# A bound on everything: above this an amount is a mistake, and "1e999999" would fill the memory.
_USD_LIMIT_EXPONENT = 18
_FINEST_EXPONENT = -400
_TEXT_LIMIT = 100
_AMOUNT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


class MoneyError(ValueError):
    """An amount or a set of weights that cannot be money."""


def decimal_of(amount: object) -> Decimal:
    """The finite decimal that `amount` (a str, an int or a Decimal) writes, exactly.

    Raises:
        MoneyError: if it is a float or bool, is not a plain ASCII decimal, is not finite, or is
            10**18 or more (or has more than 400 decimal places).
    """
    if isinstance(amount, str):
        if len(amount) > _TEXT_LIMIT or not _AMOUNT.fullmatch(amount):
            shown = amount[:_TEXT_LIMIT]
            raise MoneyError(f"not an amount: {shown!r}; write a decimal such as '0.0025'")
    elif isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise MoneyError(
            f"an amount is a str, an int or a Decimal, not {type(amount).__name__}: "
            f"{amount!r} may not be what was written; write it as a string"
        )
    elif isinstance(amount, int) and abs(amount) >= 10**_USD_LIMIT_EXPONENT:
        raise MoneyError("amount out of range: 10**18 or more")
    exact = Decimal(amount)
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int):
        raise MoneyError(f"not a finite amount: {amount!r}")
    if exact and (exact.adjusted() >= _USD_LIMIT_EXPONENT or exponent < _FINEST_EXPONENT):
        raise MoneyError(f"amount out of range: {str(amount)[:_TEXT_LIMIT]}")
    return exact if exact else Decimal(0)


def parse_usd(amount: str | int | Decimal, *, rounding: bool = False) -> int:
    """`amount` in USD as pico-USD.

    Args:
        amount: a decimal string, an int of dollars, or a Decimal.
        rounding: round half-even what is finer than a pico instead of refusing it.

    Raises:
        MoneyError: for a float, NaN, infinity, text that is no decimal, an amount of 10**18 USD or
            more, or one finer than a pico (unless `rounding`).
    """
    pico = Fraction(decimal_of(amount)) * PICO
    if pico.denominator == 1:
        return pico.numerator
    if not rounding:
        raise MoneyError(f"finer than a pico-dollar (12 decimal places): {amount}")
    return round_half_even(pico)


def format_usd(pico: int) -> str:
    """`pico` pico-USD as USD with exactly 12 decimal places, such as "-0.003290000000"."""
    dollars, rest = divmod(abs(pico), PICO)
    return f"{'-' if pico < 0 else ''}{dollars}.{rest:012d}"


def round_half_even(amount: Fraction | int) -> int:
    """`amount` to the nearest integer, an exact half to the even one."""
    return round(amount)


def round_ratio(numerator: int, denominator: int) -> int:
    """`numerator` / `denominator` (positive) to the nearest integer, an exact half to the even one.

    What `round_half_even` makes of the fraction, without making one.
    """
    whole, rest = divmod(numerator, denominator)
    above_half = 2 * rest - denominator
    return whole + (above_half > 0 or (above_half == 0 and whole % 2 == 1))


def split(amount: int, weights: Mapping[str, int | Fraction]) -> dict[str, int]:
    """Share `amount` (pico-USD, any sign) in proportion to `weights`, by largest remainder.

    The shares sum to `amount`, each is within 1 pico of its ideal, and neither the order of the
    owners nor the scale of the weights matters. Equal remainders go to the least owner id. A
    negative amount is split as its mirror image, so that a reversal undoes what was posted.

    Raises:
        MoneyError: if there are no weights, all are zero, one is negative, or one is not an int
            or a Fraction.
    """
    scaled = _integer_weights(weights)
    total = sum(scaled.values())
    if total == 0:
        raise MoneyError("cannot split: no weights, or all of them zero")
    sign = -1 if amount < 0 else 1
    shares: dict[str, int] = {}
    remainders: list[tuple[int, str]] = []
    for owner, weight in scaled.items():
        shares[owner], remainder = divmod(abs(amount) * weight, total)
        remainders.append((-remainder, owner))
    left = abs(amount) - sum(shares.values())
    if left:
        remainders.sort()
        for _, owner in remainders[:left]:
            shares[owner] += 1
    return shares if sign > 0 else {owner: -share for owner, share in shares.items()}


def _integer_weights(weights: Mapping[str, int | Fraction]) -> dict[str, int]:
    for owner, weight in weights.items():
        if type(weight) is not int and not isinstance(weight, Fraction):
            raise MoneyError(
                f"the weight of {owner!r} is a {type(weight).__name__}: use an int or a Fraction"
            )
        if weight < 0:
            raise MoneyError(f"the weight of {owner!r} is negative: {weight}")
    scale = lcm(*(weight.denominator for weight in weights.values()))
    return {
        owner: weight.numerator * (scale // weight.denominator) for owner, weight in weights.items()
    }
