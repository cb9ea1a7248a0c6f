"""The merge equals the naive one for any observations, whatever they say and however they speak."""

from __future__ import annotations

import os
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import given, settings
from hypothesis import strategies as st
from naive_merge import merge as naive_merge

from costspan.core.join import merge
from costspan.core.join.identity import Reach, Spoken
from costspan.core.schema import FIELDS, Observation

EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "600"))

SPECIAL: dict[str, tuple[Any, ...]] = {
    "source": ("litellm", "sweep", "sweep"),
    "attempt_id": ("a", "a", "b"),
    "provider_result": ("unknown", "unknown", "ok", "failed"),
    "flags": ((), ("f",), ("g", "f"), ("swept",)),
    "operation_ids": ((), ("run",), ("run", "call")),
    "usage": ({}, {"input": 1}, {"output": 2}),
}


def pool(hint: Any) -> tuple[Any, ...]:
    """A few values of a field of this type, among them those that are false but not null."""
    (said, *_) = [each for each in (get_args(hint) or (hint,)) if each is not type(None)]
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(said) is Literal:
        return get_args(said)
    if get_origin(said) is dict:
        return ({}, {"a": 1}, {"b": 2})
    if get_origin(said) is tuple or hint == tuple[str, ...]:
        return (("n", "1"), ("n", "2"))
    pools: dict[Any, tuple[Any, ...]] = {
        str: ("", "x", "y"), int: (0, 1, 5), bool: (False, True),
    }  # fmt: skip
    return pools[said]


NEVER_NULL = ("schema_version", "layer", "phase", "operation_ids", "flags")
POOLS = {name: pool(hint) for name, hint in get_type_hints(Observation).items()} | SPECIAL
POOLS |= {name: (None, *values) for name, values in POOLS.items() if name not in NEVER_NULL}
PAIRS = [(name, value) for name in FIELDS if name != "oid" for value in POOLS[name]]


TOGETHER = (
    *("cause cause_source initiator", "tenant tenant_source", "session session_origin"),
    *(
        "parent parent_origin",
        "usage usage_source raw_usage",
        "delivery",
        "delivery",
        "started_at recorded_at",
    ),
    *("provider_result source phase", "attempt_id operation_ids span_id flags", "attempt"),
)
"""Fields with an order of their own: most of what is drawn disagrees about one of these."""


@st.composite
def spoken(draw: st.DrawFn) -> list[Spoken]:
    """Up to five observations, no two of one oid, that differ about a few fields most of all.

    Often they are what production looks like: the start and the end of one instrument.
    """
    alike = draw(st.booleans())
    base = dict(draw(st.lists(st.sampled_from(PAIRS), max_size=25))) if alike else {}
    contested = draw(st.sampled_from(TOGETHER)).split() + draw(
        st.lists(st.sampled_from(FIELDS[2:]))
    )
    said: list[Spoken] = []
    for number in range(draw(st.integers(1, 5))):
        fields = base | dict(draw(st.lists(st.sampled_from(PAIRS), max_size=8)))
        for name in contested if alike else ["layer", "phase", *contested]:
            fields[name] = draw(st.sampled_from(POOLS[name]))
        reach = Reach.OWN if alike else draw(st.sampled_from(Reach))
        said.append(Spoken(Observation(oid=f"w{number % 2}:{number}", **fields), reach))
    return draw(st.permutations(said))


def test_the_pools_have_every_field() -> None:
    assert set(POOLS) == set(FIELDS)
    assert all(len(values) > 1 for values in POOLS.values())


@settings(
    max_examples=EXAMPLES,
)
@given(spoken())
def test_the_merge_is_the_naive_one(observations: list[Spoken]) -> None:
    assert merge("a", observations) == naive_merge("a", observations)
