"""What the properties found, as the smallest journals that showed it: kept for ever.

Each is settled one record at a time in every order, and all at once; every time the books must be
those of the naive settlement.
"""

from __future__ import annotations

from contextlib import closing
from itertools import permutations
from typing import Any

import pytest
from journals import FEBRUARY, GATEWAY, MARCH, POLICIES, Journal, policy_record, settled
from oracle import Settlement, settle_all

from costspan.core.journal.records import SessionOwner
from costspan.core.schema import Observation

CALL = {"provider_result": "ok", "executed_model": "gpt-4o-mini", "usage": {"input": 1000}}
AT_GATEWAY = {"layer": "sdk", "attributes": {"base_url": GATEWAY}}


def seen(oid: str, attempt: str | None = None, *operations: str, **fields: Any) -> Observation:
    return Observation(oid=oid, attempt_id=attempt, operation_ids=operations, **fields)


def principal(tenant: str, session: str | None = None) -> dict[str, Any]:
    return {"tenant": tenant, "tenant_source": "principal", "session": session}


def agreed(*records: Any) -> Settlement:
    """The naive settlement, after the incremental one agreed with it in every order."""
    observations = [each for each in records if isinstance(each, Observation)]
    directory = [each for each in records if isinstance(each, SessionOwner)]
    full = settle_all(observations, POLICIES, directory, (GATEWAY,))
    later = policy_record(POLICIES[1])
    for order in permutations(records):
        singly = tuple((each,) for each in order)
        for batches in ((order, (later,)), ((later,), *singly), (*singly, (later,))):
            with closing(settled(Journal(batches))) as ledger:
                assert {each.event.id: each.event for each in ledger.events()} == full.events
                assert {e.event.id: e.decision for e in ledger.events()} == full.decisions
                assert set(ledger.problems()) == full.problems
    return full


def owners(full: Settlement) -> dict[str, str | None]:
    return {event_id: each.owner if each else None for event_id, each in full.decisions.items()}


def test_an_oid_that_moves_to_another_attempt_takes_its_event_along() -> None:
    full = agreed(seen("w:1", "a", **CALL), seen("w:1", "b", **CALL), seen("w:2", None, parent="a"))
    assert len(full.events) == 2
    assert full.problems == {("conflict", "w:1", "")}


def test_an_oid_that_loses_its_operation_leaves_its_evidence_behind() -> None:
    agreed(
        seen("w:1", "a", "run", span_id="s", **CALL),
        seen("w:1", "a", **CALL),
        seen("w:2", None, "run", tenant="acme"),
        seen("w:3", "c", parent="s", **CALL),
    )


def test_the_evidence_of_a_losing_payload_owns_no_session() -> None:
    agreed(
        seen("w:1", "a", **CALL, **principal("acme", "s")),
        seen("w:1", "a", **CALL, **principal("globex", "s")),
        seen("w:2", "b", session="s", **CALL),
    )


def test_a_session_two_observations_vouch_for_outlives_one_of_them() -> None:
    full = agreed(
        seen("w:1", "a", **CALL, **principal("acme", "s")),
        seen("w:2", "a", **principal("acme", "s")),
        seen("w:2", "a", feature="another payload"),
        seen("w:3", "b", session="s", **CALL),
    )
    assert owners(full)["b"] == "acme"


@pytest.mark.parametrize("clock", ["started_at", "ended_at", "recorded_at"])
def test_whatever_is_known_of_its_time_decides_which_policy_holds(clock: str) -> None:
    full = agreed(seen("w:1", "a", **CALL, **{clock: MARCH}), seen("w:2", "b", **CALL))
    decisions = full.decisions
    assert decisions["a"] is not None
    assert decisions["b"] is not None
    assert decisions["a"].rules_sha256 == POLICIES[1].rules.sha256
    assert decisions["b"].rules_sha256 == POLICIES[0].rules.sha256
    assert FEBRUARY < MARCH


def test_the_operators_latest_word_holds_whenever_it_comes() -> None:
    full = agreed(
        *(SessionOwner("s", tenant, "ann", at) for tenant, at in (("a", 1), ("b", 2), ("a", 3))),
        seen("w:1", "x", session="s", **CALL),
    )
    assert owners(full) == {"x": "a"}


def test_refused_evidence_is_nobodys_parent() -> None:
    full = agreed(
        seen("w:1", "a", "run", **CALL, **principal("acme")),
        seen("w:2", None, "run", **principal("globex")),
        seen("w:3", "child", parent="w:2", **CALL),
    )
    assert owners(full)["child"] == "@unattributed"


@pytest.mark.parametrize("parent", ["w:1", "w:2", "w:3", "w:4"])
def test_a_parent_may_be_named_by_any_oid_that_speaks_of_it(parent: str) -> None:
    full = agreed(
        seen("w:1", "a", "run", response_id="r", **CALL, **principal("acme")),
        seen("w:2", None, "run"),
        seen("w:3", response_id="r"),
        seen("w:9", "child", parent=parent, **CALL),
    )
    assert owners(full)["child"] == ("acme" if parent != "w:4" else "@unattributed")


def test_an_oid_goes_before_a_span_of_the_same_name() -> None:
    full = agreed(
        seen("w:1", "b", **CALL, tenant="acme"),
        seen("w:2", "a", span_id="w:1", **CALL, tenant="globex"),
        seen("w:3", "child", parent="w:1", **CALL),
    )
    assert owners(full)["child"] == "acme"


def test_a_second_attempt_takes_a_span_back_from_the_first() -> None:
    """The run's evidence spoke for a sole attempt, with its span; now it is one of two."""
    full = agreed(
        seen("w:1", "a", "run", **CALL),
        seen("w:2", None, "run", span_id="s", tenant="acme"),
        seen("w:3", "b", "run", **CALL),
        seen("w:4", "child", parent="s", **CALL),
    )
    assert owners(full)["child"] == "@unattributed"


def test_a_call_below_a_tool_is_a_sub_agents_however_far_below() -> None:
    full = agreed(
        seen("w:1", "root", kind="model", **CALL, **principal("acme")),
        seen("w:2", "tool", kind="tool", parent="root"),
        seen("w:3", "step", parent="tool", **CALL),
        seen("w:4", "below", parent="step", **CALL),
    )
    causes = {event_id: each.cause for event_id, each in full.decisions.items() if each}
    assert causes == {"root": "primary", "tool": "tool", "step": "subagent", "below": "subagent"}


def test_an_operation_that_turns_out_to_have_an_attempt_is_no_event() -> None:
    full = agreed(
        seen("w:1", None, "run", "other", **CALL, tenant="acme"),
        seen("w:2", None, "other", **CALL),
        seen("w:3", "a", "run"),
    )
    assert set(full.events) == {"a", "other"}


def test_a_gateways_client_finds_its_event_whichever_comes_first() -> None:
    full = agreed(
        seen("w:1", "a", response_id="r", layer="gateway", **CALL),
        seen("w:2", "mine", "call", response_id="r", tenant="acme", **AT_GATEWAY),
        seen("w:3", "carried", layer="gateway", **CALL),
        seen("w:4", "carried", "call", tenant="globex", **AT_GATEWAY),
    )
    assert owners(full) == {"a": "acme", "carried": "globex"}


def test_a_verdict_on_a_clients_attempt_does_not_count_the_call_twice() -> None:
    full = agreed(
        seen("w:1", "a", response_id="r", layer="gateway", **CALL),
        seen("w:2", "mine", "call", response_id="r", tenant="acme", **AT_GATEWAY, **CALL),
        seen("w:3", "mine", host_cost="0.1"),
        seen("w:4", None, "call", feature="search"),
    )
    assert owners(full) == {"a": "acme"}
    assert full.events["a"].facts.feature == "search"


def test_a_response_that_two_carry_after_all_lets_go_of_its_evidence() -> None:
    full = agreed(
        seen("w:1", "a", response_id="r", **CALL),
        seen("w:2", response_id="r", tenant="acme"),
        seen("w:3", "b", response_id="r", **CALL),
    )
    assert owners(full) == {"a": "@unattributed", "b": "@unattributed"}
    assert full.problems == {("unmatched", "w:2", "")}


@pytest.mark.parametrize("number", range(4))
def test_a_payload_that_wins_its_oid_later_is_found_by_its_own_keys(number: int) -> None:
    """Whichever of the two payloads has the smaller hash."""
    agreed(
        seen("w1:4", "a1", response_id="p/r", phase="start", tenant="acme"),
        seen("w1:6", "a1", **CALL, feature=f"mine {number}"),
        seen("w1:6", None, response_id="p/r", **CALL, feature=f"found {number}"),
        seen("w0:6", None, "run:1", response_id="p/r", **CALL),
    )
