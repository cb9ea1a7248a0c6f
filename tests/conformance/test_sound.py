"""The judge looks at every event, not at sums alone."""

from __future__ import annotations

from typing import Any

import pytest

from costspan.conformance.suite.script import Scenario, shipped
from costspan.conformance.suite.sound import unsound


@pytest.fixture
def scenario() -> Scenario:
    """Plain calls of two tenants."""
    return next(each for each in shipped() if each.id == "C01")


def event(tenant: str, **changes: Any) -> dict[str, Any]:
    share = {"owner": tenant, "cost": "0.002", "charge": "0.002"}
    said = {"driver": tenant, "owner": tenant, "outcome": "ok", "cost": "0.002", "charge": "0.002"}
    return {**said, "shares": [share], "flags": (), **changes}


def free(tenant: str, **changes: Any) -> dict[str, Any]:
    return event(tenant, cost="0", charge="0", shares=[], **changes)


def test_sound_events_are_left_alone(scenario: Scenario) -> None:
    assert list(unsound(scenario, [event("acme"), event("globex")], ())) == []


_SHARE = {"owner": "globex", "cost": "0.002", "charge": "0.003"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([event("globex"), free("globex")], "cost nothing there are: acme 0, globex 1"),
        ([], "cost something there are: acme 1, globex 0"),
        ([event("globex", cost=None, charge=None)], "usage never came there are: acme 0"),
        ([event("globex", outcome="open", cost=None)], "usage never came there are: acme 0"),
        ([event("globex", usage_source="estimated")], "usage never came there are: acme 0"),
        ([event("globex"), free("initech")], "initech, whom nobody played"),
        ([event("globex", cost="0.001")], "its shares add up to 0.002"),
        ([event("globex", outcome="failed")], "charged for an event that is failed"),
        ([event("globex", owner="@unattributed")], "globex caused is nobody's"),
        ([event("globex", charge="0.003", shares=[_SHARE])], "no flag says so"),
        ([event("globex", shares=[{**_SHARE, "owner": "@platform"}])], "charged to @platform"),
    ],
)
def test_what_sums_would_hide_is_said(
    scenario: Scenario, wrong: list[dict[str, Any]], said: str
) -> None:
    assert said in " / ".join(unsound(scenario, [event("acme"), *wrong], ()))
