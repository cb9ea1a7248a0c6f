"""A line of the books as the columns that name it, and back."""

from __future__ import annotations

from typing import Any

from costspan.core.settle.entries import Line

NAMES = "owner, effective_period, bucket, pool, day, model, posted_period, currency"

Key = tuple[Line, str]
"""A line and the period it is posted in."""


def names_of(key: Key) -> tuple[str, ...]:
    """The columns that name a line, in the order of `NAMES`."""
    line, posted_period = key
    return (
        line.owner, line.effective_period, line.bucket, line.pool or "", line.day, line.model,
        posted_period, "USD",
    )  # fmt: skip


def line_of(names: tuple[Any, ...]) -> Key:
    """The line that these columns name."""
    owner, effective_period, bucket, pool, day, model, posted_period, _ = names
    return Line(owner, bucket, pool or None, effective_period, day, model), posted_period
