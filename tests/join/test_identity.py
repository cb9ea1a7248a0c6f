"""Which observations are one event: two levels, never transitive."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from costspan.core.join import Identified, identify
from costspan.core.join.identity import Reach
from costspan.core.schema import Observation

GATEWAYS = ("https://gateway.test/v1",)
AT_GATEWAY = {"layer": "sdk", "attributes": {"base_url": "https://gateway.test/v1/chat"}}


def seen(oid: str, attempt: str | None = None, *operations: str, **fields: Any) -> Observation:
    return Observation(oid=oid, attempt_id=attempt, operation_ids=operations, **fields)


def identified(*observations: Observation, gateways: tuple[str, ...] = ()) -> Identified:
    """The identity of these, the same in every order."""
    found = [identify(order, gateways) for order in permutations(observations)]
    for other in found[1:]:
        assert reaches(other) == reaches(found[0]), "the order of arrival matters"
        assert sorted(other.unmatched) == sorted(found[0].unmatched)
        assert sorted(other.downstream) == sorted(found[0].downstream)
        assert sorted(other.refused) == sorted(found[0].refused)
    return found[0]


def reaches(found: Identified) -> dict[str, dict[str | None, Reach]]:
    return {
        event_id: {spoken.observation.oid: spoken.reach for spoken in together}
        for event_id, together in found.events.items()
    }


OWN, FULL, SHARED = Reach.OWN, Reach.FULL, Reach.SHARED


def test_only_the_attempt_id_makes_several_observations_one_event() -> None:
    found = identified(
        seen("1", "a", "run"), seen("2", "a"), seen("3", "b", "run", response_id="r"),
        seen("4", "c", response_id="r", span_id="s", trace_id="t"),
        seen("5", "d", span_id="s", trace_id="t"),
    )  # fmt: skip
    assert reaches(found) == {
        "a": {"1": OWN, "2": OWN}, "b": {"3": OWN}, "c": {"4": OWN}, "d": {"5": OWN},
    }  # fmt: skip


def test_an_operation_is_evidence_on_every_attempt_that_names_it() -> None:
    sole = identified(seen("1", "a", "run"), seen("2", None, "run"))
    assert reaches(sole) == {"a": {"1": OWN, "2": FULL}}
    two = identified(seen("1", "a", "run"), seen("2", "b", "run"), seen("3", None, "run"))
    assert reaches(two) == {"a": {"1": OWN, "3": SHARED}, "b": {"2": OWN, "3": SHARED}}


def test_the_sole_attempt_that_is_ok_by_its_own_word_gets_everything() -> None:
    found = identified(
        seen("1", "a", "run", provider_result="failed"),
        seen("2", "b", "run", provider_result="ok"),
        seen("3", None, "run", provider_result="ok"),
    )
    assert reaches(found) == {"a": {"1": OWN, "3": SHARED}, "b": {"2": OWN, "3": FULL}}
    blocked = identified(
        seen("1", "a", "run", provider_result="ok", delivery="blocked"),
        seen("2", "b", "run", provider_result="failed"),
        seen("3", None, "run", provider_result="ok"),
    )
    assert set(reaches(blocked)["a"].values()) == {OWN, SHARED}


def test_evidence_never_joins_what_it_speaks_of() -> None:
    found = identified(
        seen("1", "a", "x"),
        seen("2", "b", "y"),
        seen("3", None, "x", "y"),
        seen("4", None, "y", "z"),
    )
    assert reaches(found) == {
        "a": {"1": OWN, "3": SHARED}, "b": {"2": OWN, "3": SHARED, "4": FULL},
    }  # fmt: skip


def test_without_an_attempt_shared_operations_are_one_event_of_the_least() -> None:
    found = identified(
        seen("1", None, "m", "z"),
        seen("2", None, "z"),
        seen("3", None, "b", "m"),
        seen("4", None, "q"),
    )
    assert reaches(found) == {"b": {"1": OWN, "2": OWN, "3": OWN}, "q": {"4": OWN}}


def test_with_an_attempt_an_operation_connects_nothing_further() -> None:
    """'2' is evidence on the attempt only, though it names what '3' names too."""
    found = identified(seen("1", "a", "x"), seen("2", None, "x", "y"), seen("3", None, "y"))
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}, "y": {"3": OWN}}


def test_a_response_id_attaches_where_exactly_one_event_carries_it() -> None:
    one = identified(seen("1", "a", response_id="r"), seen("2", response_id="r"))
    assert reaches(one) == {"a": {"1": OWN, "2": FULL}}
    two = identified(
        seen("1", "a", response_id="r"),
        seen("2", None, "x", response_id="r"),
        seen("3", response_id="r"),
    )
    assert two.unmatched == ["3"]
    assert set(two.events) == {"a", "x"}
    none = identified(seen("2", response_id="r"), seen("1", response_id="r"), seen("3"))
    assert reaches(none) == {"1": {"1": OWN, "2": OWN}, "3": {"3": OWN}}


def test_evidence_carries_a_response_id_only_to_whom_it_says_everything() -> None:
    found = identified(
        seen("1", "a", "run"), seen("2", "b", "run"), seen("3", None, "run", response_id="r"),
        seen("4", response_id="r"),
    )  # fmt: skip
    assert reaches(found)["4"] == {"4": OWN}
    sole = identified(
        seen("1", "a", "run"), seen("3", None, "run", response_id="r"), seen("4", response_id="r")
    )
    assert reaches(sole) == {"a": {"1": OWN, "3": FULL, "4": FULL}}


def owned(tenant: str, source: str, **fields: Any) -> dict[str, Any]:
    return {"tenant": tenant, "tenant_source": source, **fields}


def test_an_event_never_holds_two_authenticated_tenants() -> None:
    own = seen("1", "a", "run", **owned("acme", "principal"))
    found = identified(own, seen("2", None, "run", **owned("globex", "principal")))
    assert reaches(found) == {"a": {"1": OWN}}
    assert found.refused == [("2", "a")]
    # Less trusted, the attempt's own instrument loses its word on the tenant, never its usage.
    signed = seen("1", "a", "run", **owned("acme", "signed"))
    found = identified(signed, seen("2", None, "run", **owned("globex", "principal")))
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}}
    assert found.refused == [("1", "a")]
    assert found.events["a"][0].observation.tenant is None
    # Without a word of the attempt's own, the more trusted one stays.
    found = identified(
        seen("1", "a", "run"),
        seen("2", None, "run", **owned("acme", "signed")),
        seen("3", None, "run", **owned("globex", "assignment")),
    )
    assert reaches(found) == {"a": {"1": OWN, "3": FULL}}
    assert found.refused == [("2", "a")]
    # What is not authenticated is merely outranked.
    found = identified(own, seen("2", None, "run", **owned("globex", "context")))
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}}
    assert found.refused == []


def test_nor_do_two_observations_of_one_attempt_bring_it_two() -> None:
    start = seen("1", "a", phase="start", **owned("acme", "signed"))
    found = identified(start, seen("2", "a", **owned("globex", "principal")), seen("3", "b"))
    assert reaches(found) == {"a": {"1": OWN, "2": OWN}, "b": {"3": OWN}}
    assert found.refused == [("1", "a")]
    assert {each.observation.tenant for each in found.events["a"]} == {None, "globex"}


def test_a_response_does_not_bring_a_second_tenant_either() -> None:
    found = identified(
        seen("1", "a", response_id="r", **owned("acme", "principal")),
        seen("2", response_id="r", **owned("globex", "principal")),
    )
    assert reaches(found) == {"a": {"1": OWN}}
    assert found.refused == [("2", "a")]


def test_a_client_of_a_gateway_makes_no_event() -> None:
    client = seen("2", "mine", "call", response_id="r", **AT_GATEWAY)
    alone = identified(client, gateways=GATEWAYS)
    assert (alone.events, alone.downstream) == ({}, ["2"])
    found = identified(seen("1", "a", response_id="r"), client, gateways=GATEWAYS)
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}}
    twice = identified(
        seen("1", "a", response_id="r"), seen("3", "b", response_id="r"), client, gateways=GATEWAYS
    )
    assert twice.unmatched == ["2"]
    elsewhere = identified(seen("1", "a", response_id="r"), client)
    assert set(elsewhere.events) == {"a", "mine"}, "no gateway of ours"


def test_evidence_on_a_clients_attempt_does_not_make_it_an_event() -> None:
    client = seen("2", "mine", "call", response_id="r", provider_result="ok", **AT_GATEWAY)
    verdict = seen("3", "mine", layer="manual", delivery="blocked", host_cost="0.1")
    alone = identified(client, verdict, gateways=GATEWAYS)
    assert alone.events == {}
    assert sorted(alone.downstream) == ["2", "3"]
    found = identified(
        seen("1", "a", response_id="r", provider_result="ok"), client, verdict, gateways=GATEWAYS
    )
    assert reaches(found) == {"a": {"1": OWN, "2": FULL, "3": FULL}}


def test_clients_that_share_an_operation_meet_their_gateway_each_by_itself() -> None:
    found = identified(
        seen("1", "a", response_id="r", layer="gateway"),
        seen("2", "one", "run", response_id="r", **AT_GATEWAY),
        seen("3", "two", "run", **AT_GATEWAY),
        gateways=GATEWAYS,
    )
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}}
    assert found.downstream == ["3"]


def test_the_carried_attempt_brings_client_and_gateway_together() -> None:
    found = identified(
        seen("1", "a", layer="gateway", provider_result="ok"),
        seen("2", "a", "call", **AT_GATEWAY),
        seen("3", "b", "call", layer="gateway", provider_result="ok"),
        gateways=GATEWAYS,
    )
    assert reaches(found) == {"a": {"1": OWN, "2": FULL}, "b": {"3": OWN}}


def test_a_gateway_is_a_base_url_not_a_prefix_of_one() -> None:
    other = {"layer": "sdk", "attributes": {"base_url": "https://gateway.test/v10"}}
    found = identified(seen("1", "a", **other), gateways=GATEWAYS)
    assert set(found.events) == {"a"}
    # Whatever layer the client's instrument is: a callback in the SDK calls itself a gateway too.
    client = {"layer": "gateway", "attributes": AT_GATEWAY["attributes"]}
    assert identified(seen("1", "a", **client), gateways=GATEWAYS).downstream == ["1"]
    # The recorder's mark says it without any setting.
    assert identified(seen("1", "a", flags=("downstream",))).downstream == ["1"]
