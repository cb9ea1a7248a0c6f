"""What the meters and units of cloud bills say: a model, a token class, a tier, a quantity.

By the words below and no others; a meter they do not fit keeps its name as the description and
says no model.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from costspan.core.invoices.document import QUANTITY_MAX, InvoiceError
from costspan.core.money import MoneyError, decimal_of

# "USE1-Claude3.5Sonnet-input-tokens-batch": a region, the model, the token class.
_METER = re.compile(
    r"(?:[A-Z]{2,4}\d{1,2}-)?(?P<model>[A-Za-z0-9][^:]*?)[-_]"
    r"(?P<kind>cache-read-input|cache-write-input|cache-read|cache-write|input|output)"
    r"[-_]?tokens?(?:-count)?(?P<batch>-batch)?",
    re.IGNORECASE | re.ASCII,
)
# "MP:USE1_InputTokenCount-Units": a marketplace meter says the class, not the model.
_MARKET = re.compile(
    r"(?:.*:)?(?:[A-Z]{2,4}\d{1,2}_)?(?P<kind>CacheReadInput|CacheWriteInput|Input|Output)"
    r"TokenCount(?P<batch>[-_]Batch)?(?:-Units)?",
    re.IGNORECASE | re.ASCII,
)
_KINDS: Final = {
    "input": "input",
    "output": "output",
    "cacheread": "cache_read",
    "cachereadinput": "cache_read",
    "cachewrite": "cache_write_5m",
    "cachewriteinput": "cache_write_5m",
}
_UNIT = re.compile(r"(?:(?P<count>\d{1,9})\s*(?P<scale>[KM]?)\s+)?(?P<name>tokens?)", re.I | re.A)
_SCALES: Final = {"": 1, "k": 10**3, "m": 10**6}


class Meter(NamedTuple):
    """What a meter's name says."""

    model: str | None
    component: str
    tier: str | None


@lru_cache(1024)
def meter_of(name: str) -> Meter:
    """A meter's name (AWS: the usage type) taken apart."""
    found = _METER.fullmatch(name) or _MARKET.fullmatch(name)
    if found is None:
        return Meter(None, "", None)
    said = found.groupdict()
    component = _KINDS[said["kind"].replace("-", "").lower()]
    return Meter(said.get("model"), component, "batch" if said["batch"] else None)


def counted(quantity: str, unit: str, where: str) -> tuple[int | None, str | None]:
    """A quantity as a whole number of its unit; tokens by the thousand or million as tokens.

    None where there is none, or it is no whole number (the document keeps it as it is).

    Raises:
        InvoiceError: if it is no number, or too large.
    """
    if not quantity:
        return None, unit or None
    try:
        exact = Fraction(decimal_of(quantity))
    except MoneyError as error:
        raise InvoiceError(f"{where}: the quantity: {error}") from error
    tokens = _UNIT.fullmatch(unit)
    if tokens is not None:
        exact *= int(tokens["count"] or 1) * _SCALES[(tokens["scale"] or "").lower()]
    if abs(exact) > QUANTITY_MAX:
        raise InvoiceError(f"{where}: the quantity {quantity} is too large")
    whole = exact.numerator if exact.denominator == 1 else None
    return whole, "tokens" if tokens is not None else unit or None
