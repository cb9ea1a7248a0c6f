"""What the processes record: a few calls that everything is about, so that everything meets.

Each observation is an identity, an owner, a result and a time, drawn from short lists; some come
from the nastier strategy of the settlement's own properties.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st
from journals import observations as nasty_observations
from journals import shown

from costspan.core.schema import Observation
from simulator.computer import NOW_NS

HOUR_NS = 3600 * 10**9
TIMES_NS = (NOW_NS, NOW_NS - 40 * 24 * HOUR_NS, NOW_NS - HOUR_NS, NOW_NS + 2 * HOUR_NS)
"""Around the end of January: December, January, February."""
CALLS = range(5)
TENANTS = ("acme", "globex", "initech")
SESSIONS = ("s0", "s1")

_identities: list[dict[str, Any]] = [
    *({"attempt_id": f"a{n}"} for n in CALLS),
    *({"attempt_id": f"a{n}", "operation_ids": (f"run:{n // 2}",)} for n in CALLS),
    *({"attempt_id": f"a{n}", "response_id": f"resp-{n % 2}"} for n in (0, 1)),
]
_evidence: list[dict[str, Any]] = [
    {"operation_ids": ("run:0",)},
    {"operation_ids": ("run:1", "run:2")},
    {"operation_ids": ("run:2",), "response_id": "resp-1"},
    {"response_id": "resp-0"},
    {},
]
_owners: list[dict[str, Any]] = [
    {},
    {"tenant": "acme", "tenant_source": "principal", "session": "s0"},
    {"tenant": "globex", "tenant_source": "signed", "session": "s1"},
    {"tenant": "initech", "tenant_source": "context"},
    {"tenant": "globex", "tenant_source": "metadata", "session": "s0", "session_origin": "caller"},
    {"session": "s0"},
    {"session": "s1", "parent": "a0"},
    *({"parent": f"a{n}"} for n in CALLS),
    {"parent": "run:1"},
    {"parent": "a9", "parent_origin": "signed"},
    {"members": {"acme": 1, "globex": 1, "initech": 1}},
    {"members": {"acme": 700, "globex": 7}},
    {"shared": True},
    {"cause": "safety", "cause_source": "explicit", "initiator": "platform"},
    {"cause": "batch", "cause_source": "explicit"},
]
_models: list[dict[str, Any]] = [
    {"requested_model": "gpt-4o", "executed_model": "gpt-4o"},
    {"requested_model": "gpt-4o", "executed_model": "gpt-4o-mini"},
    {"requested_model": "odd", "executed_model": "odd"},
    {"requested_model": "sonnet", "executed_model": "sonnet"},
    {"requested_model": "gpt-4o-mini", "executed_model": "gpt-4o-mini"},
    {"executed_model": "nobody-knows"},
]
_ok: dict[str, Any] = {"provider_result": "ok", "usage_source": "provider"}
_results: list[dict[str, Any]] = [
    {**_ok, "usage": {"input": 1000, "output": 10}},
    {**_ok, "usage": {"input": 7, "output": 3}, "kind": "model"},
    {
        **_ok,
        "usage": {"input": 1_000_001, "output": 1, "cache_write_5m": 99},
        "shared_prefix": True,
    },
    {**_ok, "usage": {"output": 1}, "layer": "provider"},
    {**_ok, "usage": {"input": 31, "cache_read": 1}, "layer": "gateway"},
    {**_ok, "usage": {"input": 1, "output": 1}},
    {"usage": {"input": 1234}, "usage_source": "estimated", "delivery": "cancelled_by_user"},
    {"provider_result": "failed", "fault": "provider", "usage": {"input": 500}},
    {"provider_result": "failed", "fault": "agent", "attempt": 2, "retry_reason": "agent"},
    {"provider_result": "ok", "flat_cost": "8999999.000000000001"},
    {"provider_result": "ok", "flat_cost": "0.01", "kind": "tool", "name": "search"},
    {"provider_result": "ok", "usage_source": "missing"},
    {"delivery": "blocked", "layer": "framework"},
    {"cache": "exact", "provider_result": "ok", "avoided_cost": "0.5"},
]


class Told(NamedTuple):
    """An observation, printed without what it does not say."""

    seen: Observation

    def __repr__(self) -> str:
        return shown(self.seen)


def _join(groups: tuple[dict[str, Any], ...]) -> Told:
    fields: dict[str, Any] = {}
    for group in groups:
        fields.update(group)
    return Told(Observation(**fields))


def _joined(*groups: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Told]:
    return st.tuples(*groups).map(_join)


_times = st.sampled_from([{"started_at": at} for at in TIMES_NS])
starts = _joined(
    st.sampled_from([{"phase": "start"}]),
    st.sampled_from(_identities),
    st.sampled_from(_owners),
    st.sampled_from(_models),
    _times,
)
"""Intents: a call is about to leave."""
ends = _joined(
    st.sampled_from(_identities),
    st.sampled_from(_owners),
    st.sampled_from(_models),
    st.sampled_from(_results),
    st.sampled_from([{}, *({"started_at": at, "ended_at": at + 10**9} for at in TIMES_NS)]),
)
"""Results."""
evidence = _joined(
    st.sampled_from([*_identities, *_evidence]),
    st.sampled_from(_owners),
    st.sampled_from(
        [{}, {}, {"delivery": "cancelled_by_user"}, {"feature": "search"}, *_results[:3]]
    ),
    st.sampled_from([{"layer": "framework"}, {"layer": "gateway"}, {"recorded_at": NOW_NS}]),
)
"""What somebody else saw of a call, sooner or later."""
nasty = nasty_observations().map(
    lambda seen: Told(msgspec.structs.replace(seen, oid=None, writer=None, seq=None))
)
