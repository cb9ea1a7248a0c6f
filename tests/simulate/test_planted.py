"""Each bug that is planted must be found, by an invariant that it breaks."""

from __future__ import annotations

import pytest
from simulator.checks import Violation
from simulator.machine import simulate
from simulator.planted import BUGS, Bug

EXAMPLES, TRIES = 150, 4


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    with bug.plant():
        found = first_violation(bug.seed)
    assert found is not None, "nobody noticed"
    assert found.invariant in bug.breaks, found


def first_violation(seed: int) -> Violation | None:
    """What the first runs find that find anything: those of `seed` do so soonest."""
    for number in range(seed, seed + TRIES):
        try:
            simulate(EXAMPLES, seed=number, shrink=False)
        except Violation as violation:
            return violation
    return None
