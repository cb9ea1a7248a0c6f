"""Strategies of journals: small pools of ids, so that everything meets everything.

What is drawn is nastier than what any host writes: shared and missing ids, cycles of parents,
sessions of two minds, evidence before and after what it speaks of, two payloads under one oid.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from hypothesis import strategies as st
from oracle import Rule

from costspan.core.decide import load_profile
from costspan.core.journal.records import Policy, SessionOwner
from costspan.core.prices import PriceBook
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

JANUARY, FEBRUARY, MARCH = 1_767_300_000 * 10**9, 1_770_000_000 * 10**9, 1_773_000_000 * 10**9
GATEWAY = "http://gateway.test/v1"

FIRST_BOOK = PriceBook.from_table(
    "v1",
    {
        "gpt-4o": {"input": "2.50", "output": "10.00", "cache_read": "1.25"},
        "gpt-4o-mini": {"input": "0.15", "output": "0.60"},
        "sonnet": {"input": "3.00", "output": "15.00", "cache_write_5m": "3.75"},
        "odd": {"input": "0.0000007", "output": "0.3333333"},
    },
    {"gpt-4o-2024-08-06": "gpt-4o"},
)
SECOND_BOOK = PriceBook.from_table("v2", {"gpt-4o": {"input": "2.00", "output": "8.00"}})
POLICIES = (
    Rule(0, load_profile("billing"), (FIRST_BOOK,)),
    Rule(FEBRUARY, load_profile("chargeback"), (SECOND_BOOK, FIRST_BOOK)),
)
"""The second one comes into the journal at any moment, and decides what starts from February on."""

ATTEMPTS = ("a0", "a1", "a2")
OPERATIONS = ("run:0", "run:1", "call:2")
RESPONSES = ("resp-0", "resp-1")
SPANS = ("span0", "w0:1")  # a span may be called what another one's oid is
OIDS = tuple(f"w{writer}:{seq}" for writer in (0, 1) for seq in range(1, 7))
SESSIONS = ("s0", "s1")
TENANTS = ("acme", "globex", "initech")
MODELS = ("gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-mini", "sonnet", "odd", "nobody-knows")
PARENTS = (*ATTEMPTS * 4, *OPERATIONS * 2, *SPANS, *OIDS[:4], "missing")


def some(*values: Any) -> st.SearchStrategy[Any]:
    """One of a few values."""
    return st.sampled_from(values)


def said(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Some fields, and perhaps others."""
    return st.fixed_dictionaries(required, optional=optional)


_ids = some(*ATTEMPTS)
_operations = st.lists(some(*OPERATIONS), min_size=1, max_size=2, unique=True).map(tuple)
_responses = some(*RESPONSES)
_gateway = st.just({"base_url": GATEWAY + "/chat"})
_identity = st.one_of(
    said({"attempt_id": _ids}, span_id=some(*SPANS)),
    said({"attempt_id": _ids, "operation_ids": _operations}),
    said({"attempt_id": _ids, "response_id": _responses}, operation_ids=_operations),
    said({"operation_ids": _operations}, response_id=_responses, span_id=some(*SPANS)),
    said({"response_id": _responses}, span_id=some(*SPANS)),
    said(
        {"attributes": _gateway},
        attempt_id=_ids, operation_ids=_operations, response_id=_responses,
    ),
    said({"flags": st.just(("downstream",)), "attempt_id": _ids}, operation_ids=_operations),
    said({}, span_id=some(*SPANS)),
)  # fmt: skip

_authenticated = some("principal", "principal", "signed", "assignment")
_origin = some("ours", "signed", "caller")
_owner = st.one_of(
    st.just({}),
    said({"tenant": some(*TENANTS), "tenant_source": some("context", "metadata")}),
    said({"tenant": some(*TENANTS), "tenant_source": _authenticated, "session": some(*SESSIONS)}),
    said({"session": some(*SESSIONS)}, session_origin=_origin),
    said({"parent": some(*PARENTS)}),
    said({"parent": some(*PARENTS)}, parent_origin=_origin, session=some(*SESSIONS)),
    said({"parent": some(*PARENTS), "tenant": some(*TENANTS)}),
    said({"members": st.dictionaries(some(*TENANTS, "@unattributed"), st.integers(0, 50))}),
)

_usage = st.dictionaries(
    some("input", "output", "cache_read", "cache_write_5m"),
    st.integers(0, 9) | st.integers(0, 200_000),
    min_size=1,
    max_size=3,
)
_plain = {
    "provider_result": st.just("ok"),
    "requested_model": st.just("gpt-4o-mini"),
    "executed_model": st.just("gpt-4o-mini"),
    "usage": st.dictionaries(some("input", "output"), st.integers(1, 10**7), min_size=1),
}
_result = st.one_of(
    said(_plain, started_at=some(JANUARY, FEBRUARY, MARCH)),
    said(_plain, kind=some("model", "tool"), started_at=some(JANUARY, MARCH)),
    said(
        {"requested_model": some(*MODELS), "executed_model": some(*MODELS), "usage": _usage},
        usage_source=some("provider", "estimated", "missing"),
        provider_result=some("ok", "failed"),
        fault=some("provider", "platform", "agent", "user"),
        shared_prefix=st.booleans(),
        tier=some("default", "batch"),
        recorded_at=some(JANUARY, MARCH),
        ended_at=some(FEBRUARY, MARCH),
    ),
    said(
        {"delivery": some("delivered", "blocked", "cancelled_by_user", "cancelled_by_platform")},
        provider_result=some("ok", "unknown"),
        delivered_usage=_usage,
    ),
    said(
        {"flat_cost": some("0", "0.01", "3.000000000001", "8999999.9")},
        cache=some("miss", "exact", "semantic"),
        avoided_cost=st.just("0.5"),
        provider_billed=st.booleans(),
    ),
    st.just({}),
)
_work = st.one_of(
    st.just({}),
    said(
        {},
        cause=some("primary", "step", "tool", "batch", "safety", "index", "cache_lookup"),
        cause_source=some("explicit", "structure", "inferred"),
        initiator=some("user", "agent", "platform"),
        shared=st.booleans(),
        policy_owner=some("platform", "tenant"),
        client_claims=some({"tenant": "globex"}, {"cause": "safety"}),
    ),
    said(
        {},
        kind=some("model", "tool", "retrieval", "router", "request"),
        attempt=some(1, 2),
        retry_of=_ids,
        retry_reason=some("provider", "agent", "guardrail"),
    ),
)
_instrument = said(
    {},
    layer=some("provider", "gateway", "framework", "manual"),
    phase=some("start", "end"),
    source=some("sweep"),
)
_fields = st.tuples(_identity, _owner, _result, _work, _instrument)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    """One observation: of each group of fields a plausible few are said."""
    fields: dict[str, Any] = {}
    for group in draw(_fields):
        fields.update(group)
    writer, seq = draw(some(*OIDS)).split(":")
    return Observation(oid=f"{writer}:{seq}", writer=writer, seq=int(seq), **fields)


_session_owners = st.builds(
    SessionOwner, some(*SESSIONS), some(*TENANTS[:2]), st.just("operator"), st.integers(1, 3)
)


def shown(record: Any) -> str:
    """A record without the fields that say nothing."""
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    said = [f"{name}={value!r}" for name, value in values.items() if value not in (None, ())]
    return f"{type(record).__name__}({', '.join(said)})"


class Journal(NamedTuple):
    """Records as they arrive: `batches` of observations and control records, settled one by one."""

    batches: tuple[tuple[Observation | SessionOwner | Policy, ...], ...]

    def __repr__(self) -> str:
        batches = (", ".join(map(shown, batch)) for batch in self.batches)
        return f"Journal(batches=[{'; '.join(f'[{batch}]' for batch in batches)}])"

    @property
    def observations(self) -> list[Observation]:
        return [each for batch in self.batches for each in batch if isinstance(each, Observation)]

    @property
    def directory(self) -> list[SessionOwner]:
        return [each for batch in self.batches for each in batch if isinstance(each, SessionOwner)]


def policy_record(rule: Rule) -> Policy:
    """The control record of a policy."""
    return Policy(
        rule.rules.sha256, tuple(b.sha256 for b in rule.books), rule.effective_from, "test"
    )


@st.composite
def arrivals(draw: st.DrawFn, records: list[Any]) -> Journal:
    """The same records in some order, some of them more than once, in some batches."""
    again = draw(st.lists(some(*records), max_size=3)) if records else []
    order = draw(st.permutations([*records, *again]))
    cuts = sorted(draw(st.sets(st.integers(0, len(order)), max_size=4)))
    edges = [0, *cuts, len(order)]
    return Journal(tuple(tuple(order[a:b]) for a, b in pairwise(edges)))


@st.composite
def journals(draw: st.DrawFn, most: int = 8, distinct: bool = False) -> Journal:
    """A journal: observations, directory rows and the second policy, in some batches.

    `distinct`: no two payloads under one oid.
    """
    unique_by = (lambda seen: seen.oid) if distinct else None
    records: list[Any] = draw(
        st.lists(observations(), min_size=1, max_size=most, unique_by=unique_by)
    )
    records += draw(st.lists(_session_owners, max_size=4))
    records.append(policy_record(POLICIES[1]))
    return draw(arrivals(records))


@st.composite
def journal_pairs(draw: st.DrawFn) -> tuple[Journal, Journal]:
    """Two arrivals of the same records."""
    first = draw(journals())
    records = [each for batch in first.batches for each in batch]
    return first, draw(arrivals(records))


def opened(rules: tuple[Rule, ...] = POLICIES) -> Ledger:
    """A ledger in memory that holds the first policy, and knows what the others name."""
    ledger = open_url("sqlite:///:memory:", create=True)
    with ledger.settling(0) as settlement:
        for rule in rules:
            settlement.keep_rule_set(rule.rules)
            for book in rule.books:
                settlement.keep_price_book(book)
        settle(settlement, [], [policy_record(rules[0])])
    return ledger


def settled(journal: Journal, gateways: tuple[str, ...] = (GATEWAY,)) -> Ledger:
    """A ledger in memory after every batch of a journal was settled. The caller closes it."""
    ledger = opened()
    for batch in journal.batches:
        seen = [each for each in batch if isinstance(each, Observation)]
        controls = [each for each in batch if not isinstance(each, Observation)]
        with ledger.settling(0) as settlement:
            settle(settlement, seen, controls, gateways)
    return ledger
