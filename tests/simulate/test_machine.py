"""A computer whose processes record, fork, die and settle; its books must be right after each step.

Every run follows from its number alone: `--examples N` makes N longer ones, `--simulation S` other
ones.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from simulator.machine import STEPS, simulate

EXAMPLES, SHARDS = 40, 4
LONG_STEPS = 50


@pytest.mark.timeout(0)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_whatever_happens_the_books_are_right(
    shard: int, option: Callable[[str], int | None]
) -> None:
    asked = option("--examples")
    simulate(
        -(-(asked or EXAMPLES) // SHARDS),
        seed=(option("--simulation") or 0) * SHARDS + shard,
        shrink=True,
        steps=LONG_STEPS if asked else STEPS,
    )
