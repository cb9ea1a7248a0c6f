"""Small worlds in which gateways' clients, attempts, runs, verdicts and sweeps often meet."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from journals import JANUARY, POLICIES, Journal, settled
from oracle import settle_all
from test_properties import EXAMPLES, decisions, proving

from costspan.core.join.gateways import DOWNSTREAM
from costspan.core.schema import Observation

OPERATIONS = st.sets(st.sampled_from(["run:0", "run:1"])).map(sorted).map(tuple)
ATTEMPTS = st.sampled_from(["a0", "a1"])
CLIENTS = st.sampled_from(["c0", "c1", "a0"])
DONE = {"provider_result": "ok", "flat_cost": "1"}


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """The fields that say what an observation speaks of."""
    shape = draw(st.sampled_from("attempt client run loose verdict sweep response".split()))
    operations = draw(OPERATIONS)
    fields: dict[str, Any] = {
        "operation_ids": operations,
        "response_id": draw(st.sampled_from([None, "g/resp-0", "p/resp-1"])),
        "tenant": draw(st.sampled_from([None, "acme", "globex"])),
        "started_at": JANUARY,
    }
    if shape == "attempt":
        fields |= {**DONE, "attempt_id": draw(ATTEMPTS), "layer": "gateway"}
    elif shape == "client":
        phase = draw(st.sampled_from(["start", "end"]))
        fields |= {**DONE, "attempt_id": draw(CLIENTS), "flags": (DOWNSTREAM,), "phase": phase}
    elif shape == "run":
        fields |= {"flags": (DOWNSTREAM,)}
    elif shape == "loose":
        fields |= {**DONE, "operation_ids": operations or ("run:0",)}
    elif shape == "verdict":
        fields |= {"attempt_id": draw(CLIENTS), "delivery": "blocked"}
    elif shape == "sweep":
        attempt = None if operations else draw(ATTEMPTS)
        fields = {"source": "sweep", "provider_result": "unknown", "usage_source": "missing",
                  "attempt_id": attempt, "operation_ids": operations}  # fmt: skip
    else:
        fields |= {**DONE, "operation_ids": ()}
    return fields


@settings(proving, max_examples=2 * EXAMPLES)
@given(st.lists(shapes(), min_size=2, max_size=6))
def test_clients_and_what_they_meet_settle_as_the_naive_settlement_says(
    shaped: list[dict[str, Any]],
) -> None:
    seen = [Observation(oid=f"w:{at + 1}", **fields) for at, fields in enumerate(shaped)]
    full = settle_all(seen, POLICIES[:1], (), ())
    with closing(settled(Journal(tuple((each,) for each in seen)), ())) as ledger:
        assert {each.event.id: each.event for each in ledger.events()} == full.events
        assert decisions(ledger) == full.decisions
        assert set(ledger.problems()) == full.problems
