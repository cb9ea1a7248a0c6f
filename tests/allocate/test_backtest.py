"""The back-test hides known labels and scores what each method makes of it."""

from __future__ import annotations

from contextlib import closing
from fractions import Fraction
from typing import Any

import pytest
from shelf import call, keep, shelf

from costspan.core.allocate import AllocationError, allocate, load_rule, score
from costspan.core.allocate.backtest import PROXIES, backtest
from costspan.core.money import PICO
from costspan.core.settle.ledger import Ledger


def used(ledger: Ledger) -> None:
    """6, 3 and 1 USD; requests 1, 3, 1; tokens 600, 300, 100; sessions 1, 2, 1."""
    facts: dict[str, dict[str, Any]] = {
        "acme": {"flat_cost": "6", "usage": {"input": 500, "output": 100}, "session": "s"},
        "initech": {"flat_cost": "1", "usage": {"input": 100, "images": 900}, "session": "s"},
    }
    keep(
        ledger,
        *(call(n, tenant=tenant, **said) for n, (tenant, said) in enumerate(facts.items(), 1)),
        *(
            call(10 + n, tenant="globex", usage={"input": 100}, session=f"s{min(n, 1)}")
            for n in range(3)
        ),
        call(20, tenant=None, tenant_source=None, initiator="platform", cause="safety"),
        call(21, flat_cost=None, usage={"input": 10**9}, executed_model="mystery"),
        call(30, day="2026-10-05", usage={"input": 10**9}, session="s9"),
        call(31, day="2026-10-05", tenant="globex"),
    )


def test_each_method_by_hand() -> None:
    with closing(shelf()) as ledger:
        used(ledger)
        found = backtest(ledger, "2026-11")
    assert (found.cost, found.tenants) == (10 * PICO, 3)
    truth = {"acme": 6 * PICO, "globex": 3 * PICO, "initech": PICO}
    weights: dict[str, dict[str, int | Fraction]] = {
        "even": {"acme": 1, "globex": 1, "initech": 1},
        "requests": {"acme": 1, "globex": 3, "initech": 1},
        "tokens": {"acme": 6, "globex": 3, "initech": 1},
        "sessions": {"acme": 1, "globex": 2, "initech": 1},
        "weighted": {"acme": 1, "globex": 1},
        # Stretches of 100, 200, 300 tokens: needed by three, two, one.
        "shapley": {
            "acme": Fraction(100, 3) + 100 + 300,
            "globex": Fraction(100, 3) + 100,
            "initech": Fraction(100, 3),
        },
    }
    scores = {each.method: each.score for each in found.tried}
    for method, by in weights.items():
        assert scores[method] == score(allocate(10 * PICO, by), truth), method  # type: ignore[index]
    best = found.tried[0]
    assert (best.method, best.score and best.score.wape) == ("tokens", Fraction(0))
    wapes = [each.score.wape for each in found.tried if each.score]
    assert wapes == sorted(wapes)
    assert set(scores) == set(PROXIES)
    assert all(each.bias == 0 for each in scores.values() if each)


def test_weights_of_a_rule_go_before_last_months_cost() -> None:
    rule = load_rule('[every]\nmethod = "weighted"\nweights = {acme = 6, globex = 3, initech = 1}')
    with closing(shelf()) as ledger:
        used(ledger)
        (only,) = backtest(ledger, "2026-11", ("weighted",), rule).tried
        assert only.score is not None
        assert only.score.wape == 0
        (none,) = backtest(ledger, "2026-10", ("weighted",)).tried
        assert (none.score, none.why) == (
            None,
            "no weights in a rule, and no cost in the month before",
        )
        with pytest.raises(AllocationError, match="nothing to hide"):
            backtest(ledger, "2026-12")
        with pytest.raises(AllocationError, match="no period"):
            backtest(ledger, "2026-13")
