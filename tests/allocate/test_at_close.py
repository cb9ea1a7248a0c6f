"""Allocating at a close is one transaction with it: both are done, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from shelf import at, call, keep, shelf

from costspan.core.allocate import (
    AllocationError,
    AllocationRule,
    allocate_in,
    load_rule,
    measured_for,
)
from costspan.core.journal.records import Close
from costspan.core.settle.close import CloseError, close_period
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settlement import Settlement

MONTH = "2026-11"
NOW = at("2026-12-01")
OVERHEAD: dict[str, Any] = {"tenant": None, "tenant_source": None, "initiator": "platform"}
BY_TOKENS = load_rule('[pool.safety]\nby = "tokens"')


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Two tenants, and pools `faults` and `safety`."""
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, usage={"input": 100}),
            call(2, tenant="globex", usage={"input": 300}),
            call(3, flat_cost="0.5", cause="safety", **OVERHEAD),
            call(4, flat_cost="0.1", provider_result="failed", fault="provider"),
        )
        yield ledger


def close(ledger: Ledger, rule: AllocationRule, during: Any = None, **options: Any) -> Close:
    known = measured_for(ledger, MONTH, rule)
    if during is not None:
        keep(ledger, during)  # settled after the events were measured, before the lease

    def share_out(settlement: Settlement) -> None:
        allocate_in(ledger, settlement, MONTH, rule, known, by="ann", reason="end", now_ns=NOW)

    return close_period(ledger, MONTH, "ann", "end", NOW, before_seal=share_out, **options)


def pools(ledger: Ledger) -> dict[str, int]:
    """Pool -> what the platform is left with of it."""
    left: dict[str, int] = {}
    for each in ledger.roll_ups(MONTH, "@platform"):
        left[each.line.pool or ""] = left.get(each.line.pool or "", 0) + each.cost
    return left


def entries(ledger: Ledger) -> int:
    return ledger.counts("postings")["postings"]


def test_what_is_shared_out_is_sealed_with_the_rest(ledger: Ledger) -> None:
    done = close(ledger, BY_TOKENS, call(5, flat_cost="1", cause="router", **OVERHEAD))
    assert pools(ledger) == {"faults": 0, "safety": 0, "router": 0}
    assert done.postings == entries(ledger) == 5 + 3 * 3
    assert {posting.posted_period for _, posting in ledger.sealed(MONTH)} == {MONTH}


def test_a_refused_close_shares_out_nothing(ledger: Ledger) -> None:
    """By what came to stand against it, and because the month is closed."""
    before = entries(ledger)
    with pytest.raises(CloseError, match="an open call"):
        close(ledger, BY_TOKENS, against=lambda: ["an open call"])
    assert (entries(ledger), ledger.closes()) == (before, [])
    close(ledger, BY_TOKENS)
    late = call(6, flat_cost="1", cause="safety", **OVERHEAD)
    keep(ledger, late)
    before = entries(ledger)
    with pytest.raises(CloseError, match="is closed"):
        close(ledger, BY_TOKENS)
    assert entries(ledger) == before


def test_a_pool_that_cannot_be_shared_out_takes_the_others_back(ledger: Ledger) -> None:
    """Pool `faults` comes first, and is posted before `safety` fails."""
    rule = load_rule('[pool.faults]\nmethod = "weighted"\nweights = {acme = 1}')
    before = entries(ledger)
    with pytest.raises(AllocationError, match="pool safety: weighted needs weights"):
        close(ledger, rule.with_method("weighted"))
    assert (entries(ledger), ledger.closes()) == (before, [])
    assert pools(ledger) == {"faults": 10**11, "safety": 5 * 10**11}
