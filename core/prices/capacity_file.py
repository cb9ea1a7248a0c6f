"""Models that run on GPUs of one's own: what was paid for them, from a TOML file.

    [[capacity]]
    model = "llama-3.3-70b"      # as the calls name it
    provider = "vllm"            # left out: whoever is named as the provider
    period = "2026-11"
    gpu_hours = "1440"           # hours of one GPU: two GPUs for a month of 30 days
    usd_per_gpu_hour = "2.10"
    basis = "reservation"        # all that was paid, over the tokens that were used; or
                                 # "usage": over those that it could have done, which it needs:
    # capacity = 9000000000      # weighted tokens of the period

    [capacity.weights]           # left out: every token weighs the same
    input = "1"
    output = "4"                 # an output token costs four times an input token
    cache_read = "0.1"

Amounts and weights are strings or whole numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec

from costspan.core.money import PICO, round_half_even
from costspan.core.periods import is_period
from costspan.core.prices.content import plain_amount
from costspan.core.prices.tables import (
    ContractError,
    amount_of,
    at,
    document_of,
    is_tables,
    only,
    rates_of,
    table_of,
    text_of,
)
from costspan.core.prices.units import COMPONENTS, UNIT_COMPONENTS

Basis = Literal["reservation", "usage"]
_KEYS = (
    *("model", "provider", "period", "gpu_hours", "usd_per_gpu_hour"),
    *("basis", "capacity", "weights"),
)
EVEN = dict.fromkeys(sorted(COMPONENTS - UNIT_COMPONENTS), "1")
"""The weights of tokens where a file says none."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What was paid for one model in one period (YYYY-MM).

    `weights` are decimal strings: what a token of a component counts for. `capacity` is in tokens
    so weighted, None for a reservation.
    """

    model: str
    provider: str | None
    period: str
    gpu_hours: str
    usd_per_gpu_hour: str
    basis: Basis
    capacity: int | None
    weights: dict[str, str]

    @property
    def paid(self) -> int:
        """The bill in pico-USD."""
        return round_half_even(Fraction(self.gpu_hours) * Fraction(self.usd_per_gpu_hour) * PICO)

    @property
    def name(self) -> str:
        """Provider and model, for people."""
        return f"{self.provider}/{self.model}" if self.provider else self.model

    def weighted(self, usage: Mapping[str, int]) -> Fraction:
        """How many tokens a usage counts for."""
        return sum(
            (Fraction(self.weights[name]) * many for name, many in usage.items() if many),
            Fraction(0),
        )


def load_capacity(path: Path) -> list[Capacity]:
    """What the TOML file at `path` says was paid.

    Raises:
        ContractError: if the file cannot be read, or anything in it is not understood.
    """
    document = document_of(path)
    only(document, ("capacity",), str(path))
    listed = document.get("capacity")
    if not is_tables(listed):
        raise ContractError(f"{path}: nothing was paid: write each model under [[capacity]]")
    found: dict[tuple[str | None, str, str], Capacity] = {}
    for number, table in enumerate(listed, 1):
        where = f"{path}: [[capacity]] {number} ({table.get('model', 'no model')})"
        each = _capacity(table, where)
        key = (each.provider, each.model, each.period)
        if key in found:
            raise ContractError(f"{where}: {each.name} of {each.period} is there twice")
        found[key] = each
    return list(found.values())


def _capacity(table: Mapping[str, Any], where: str) -> Capacity:
    only(table, _KEYS, where)
    said = {name: text_of(table, name, where) for name in ("model", "provider", "period", "basis")}
    model, period, basis = said["model"], said["period"], said["basis"]
    if model is None or period is None or not is_period(period):
        raise ContractError(f'{where}: needs model = "..." and period = "YYYY-MM"')
    if basis not in get_args(Basis):
        raise ContractError(f'{where}: basis is "reservation" or "usage", not {basis!r}')
    capacity = table.get("capacity")
    if (capacity is not None) != (basis == "usage"):
        raise ContractError(
            f"{where}: basis usage, and only that, needs capacity = the tokens of the period that"
            " it could have done"
        )
    if capacity is not None and (type(capacity) is not int or capacity < 1):
        raise ContractError(f"{where}: capacity is a whole number of tokens, such as 9000000000")
    weights = rates_of(table_of(table, "weights", where), (), f"{where}: [capacity.weights]")
    if units := weights.keys() & UNIT_COMPONENTS:
        raise ContractError(f"{where}: {', '.join(sorted(units))}: only tokens have a weight")
    with at(where):
        return Capacity(
            model=model,
            provider=said["provider"],
            period=period,
            gpu_hours=_amount(table, "gpu_hours", where),
            usd_per_gpu_hour=_amount(table, "usd_per_gpu_hour", where),
            basis=cast(Basis, basis),
            capacity=capacity,
            weights={name: plain_amount(text, name) for name, text in weights.items()} or EVEN,
        )


def _amount(table: Mapping[str, Any], name: str, where: str) -> str:
    if name not in table:
        raise ContractError(f'{where}: needs {name} = "..."')
    return plain_amount(amount_of(table[name], name, where), f"{where}: {name}")
