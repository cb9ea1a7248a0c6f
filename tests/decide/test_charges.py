"""What a tenant's charge book makes of a charge: in USD by hand, and as properties."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan.core.decide import Decision, Lineage, decide, load_rules
from costspan.core.join import merge
from costspan.core.join.identity import Reach, Spoken
from costspan.core.money import format_usd, split
from costspan.core.prices import ChargeBook, ChargeEntry, PriceBook, Prices
from costspan.core.schema import Observation

BOOK = PriceBook.from_table(
    "v1",
    {
        "gpt-4o": {"input": "2.50", "output": "10.00"},
        "gpt-4o-mini": {"input": "0.15", "output": "0.60"},
        "haiku": {"input": "1.00", "output": "5.00", "cache_write_5m": "1.25"},
    },
)
USER = {"cause": "primary", "initiator": "user", "tenant": "acme", "tenant_source": "context"}


def charges(*entries: dict[str, Any]) -> ChargeBook:
    return ChargeBook(
        id="c", entries=tuple(ChargeEntry(book="c", **{"tenant": "acme", **e}) for e in entries)
    )


def decided(book: ChargeBook | None, rules: str = "", **facts: Any) -> Decision:
    seen = Observation(oid="w:1", attempt_id="a", **{"provider_result": "ok", **USER, **facts})
    event = merge("a", [Spoken(seen, Reach.OWN)])
    return decide(event, Lineage(), load_rules(rules), Prices([BOOK]), book)


def model(requested: str, executed: str, **usage: int) -> dict[str, Any]:
    return {"requested_model": requested, "executed_model": executed, "usage": usage}


def micro(pico: int | None) -> str | None:
    return None if pico is None else format_usd(pico * 10**6)[:-13]


MINI = model("gpt-4o-mini", "gpt-4o-mini", input=1000)  # costs 150
FALLBACK = model("gpt-4o", "gpt-4o-mini", input=1000)  # costs 150, charged 2500 as requested
FLAT = {"kind": "tool", "flat_cost": "0.001"}  # costs 1000
KNOB = '[knobs]\nfallback_charge = "{}"\n'


@pytest.mark.parametrize(
    ("entry", "rules", "facts", "charge"),
    [
        ({"factor": "1.2"}, "", MINI, "180"),
        ({"factor": "0"}, "", MINI, "0"),
        ({"fixed": "0.01"}, "", MINI, "10000"),
        ({"rates": {"input": "1"}}, "", MINI, "1000"),
        # After the fallback choice: what it chose is what the factor is on.
        ({"factor": "1.2"}, "", FALLBACK, "3000"),
        ({"factor": "1.2"}, KNOB.format("executed"), FALLBACK, "180"),
        ({"factor": "1.2"}, KNOB.format("min"), FALLBACK, "180"),
        ({"rates": {"input": "1"}}, "", FALLBACK, "1000"),
        # An entry of a model is about the model that the charge is by.
        ({"factor": "2", "model": "gpt-4o"}, "", FALLBACK, "5000"),
        ({"factor": "2", "model": "gpt-4o-mini"}, "", FALLBACK, "2500"),
        ({"factor": "2", "model": "gpt-4o-mini"}, KNOB.format("min"), FALLBACK, "300"),
        # A flat cost: a factor is on it, prices have no quantities, no request to a model.
        ({"factor": "1.5"}, "", FLAT, "1500"),
        ({"rates": {"input": "1"}}, "", FLAT, "1000"),
        ({"fixed": "0.01"}, "", FLAT, "1000"),
        ({"fixed": "0.01"}, "", {**MINI, "flat_cost": "0.001"}, "10000"),
        # Nothing stays nothing.
        ({"fixed": "0.01"}, "", {**MINI, "provider_result": "failed", "fault": "user"}, "0"),
        ({"fixed": "0.01"}, "", {**MINI, "delivery": "blocked"}, "0"),
        # What was not delivered is not charged: the book prices what was.
        (
            {"rates": {"input": "1"}},
            "",
            {**MINI, "delivery": "cancelled_by_user", "delivered_usage": {"input": 10}},
            "10",
        ),
        # A component that the book has no price of: as the rules say.
        ({"rates": {"output": "1"}}, "", MINI, "150"),
        # Nothing above cost, in the profile that promises it.
        ({"factor": "3"}, 'profile = "chargeback"', MINI, "150"),
        ({"factor": "0.5"}, 'profile = "chargeback"', MINI, "75"),
    ],
)
def test_a_charge_by_the_book(
    entry: dict[str, Any], rules: str, facts: dict[str, Any], charge: str
) -> None:
    decision = decided(charges(entry), rules, **facts)
    plain = decided(None, rules, **facts)
    assert micro(decision.charge) == charge
    assert decision.cost == plain.cost
    applied = [flag for flag in decision.flags if flag.startswith("CB:")]
    assert ("CB" in decision.rules) == bool(applied)
    if applied:
        assert decision.rules == (*plain.rules, "CB")
    above = (decision.charge or 0) > (decision.cost or 0)
    assert ("charged_above_cost" in decision.flags) == above


def test_the_decision_names_the_entry_and_what_could_not_be_applied() -> None:
    book = charges({"factor": "1.2"})
    assert f"CB:{book.entries[0].id}" in decided(book, **MINI).flags
    refused = decided(charges({"rates": {"output": "1"}}), **MINI)
    assert refused.flags == ("charge_book_not_applied",)
    assert refused.rules == decided(None, **MINI).rules
    capped = decided(charges({"factor": "3"}), 'profile = "chargeback"', **MINI)
    assert "charge_book_capped" in capped.flags


def test_the_price_of_the_day_it_started() -> None:
    book = charges({"factor": "2", "effective_from": 10}, {"factor": "3", "effective_to": 10})
    found = [micro(decided(book, **MINI, started_at=at).charge) for at in (9, 10)]
    assert found == ["450", "300"]


def test_what_is_unknown_stays_unknown() -> None:
    decision = decided(charges({"fixed": "1"}), **model("nobody-knows", "nobody-knows", input=1))
    assert (decision.cost, decision.charge, decision.shares) == (None, None, ())
    assert decision.rules == ("P0",)


def test_each_tenant_of_a_batch_by_its_own_entry() -> None:
    book = charges({"factor": "2"}, {"tenant": "globex", "fixed": "0.01"})
    members = {"acme": 2, "globex": 1, "initech": 1}
    decision = decided(book, **{**MINI, "cause": "batch"}, members=members)
    assert {share.owner: (share.cost, share.charge) for share in decision.shares} == {
        "acme": (75_000_000, 150_000_000),  # half of twice 150 micro-USD
        "globex": (37_500_000, 2_500_000_000),  # a quarter of a cent
        "initech": (37_500_000, 37_500_000),  # as the rules say
    }
    assert sum(flag.startswith("CB:") for flag in decision.flags) == 2


_rate = st.decimals(0, 20, places=7, allow_nan=False, allow_infinity=False).map(str)
_tenants = ("acme", "globex", "@unattributed", "initech")
_entries = st.lists(
    st.fixed_dictionaries({"tenant": st.sampled_from([*_tenants[:2], None])}).flatmap(
        lambda said: st.one_of(
            _rate.map(lambda text: {**said, "factor": text}),
            _rate.map(lambda text: {**said, "fixed": text}),
            st.dictionaries(st.sampled_from(["input", "output"]), _rate, min_size=1).map(
                lambda rates: {**said, "rates": rates}
            ),
        )
    ),
    max_size=3,
)
_facts = st.fixed_dictionaries(
    {
        "requested_model": st.sampled_from(["gpt-4o", "gpt-4o-mini", "nobody-knows"]),
        "executed_model": st.sampled_from(["gpt-4o", "haiku", "nobody-knows"]),
        "usage": st.dictionaries(
            st.sampled_from(["input", "output", "cache_write_5m"]), st.integers(0, 9999), max_size=3
        ),
    },
    optional={
        "members": st.dictionaries(st.sampled_from(_tenants), st.integers(0, 9), max_size=4),
        "shared_prefix": st.booleans(),
        "flat_cost": st.sampled_from(["0.5", "0.000000000001"]),
        "provider_result": st.sampled_from(["ok", "failed"]),
        "fault": st.sampled_from(["agent", "provider"]),
        "delivery": st.sampled_from(["cancelled_by_user", "blocked"]),
        "delivered_usage": st.just({"output": 3}),
        "provider_billed": st.booleans(),
        "cache": st.sampled_from(["exact", "semantic"]),
    },
)
_rules = st.sampled_from(["", 'profile = "chargeback"', KNOB.format("min")])


@given(_entries, _facts, _rules)
def test_whatever_the_book_says_the_books_balance(
    entries: list[dict[str, Any]], facts: dict[str, Any], rules: str
) -> None:
    """Costs stay, each charge is the tenant's own share, what is nobody's is not charged."""
    book = ChargeBook(id="c", entries=tuple(ChargeEntry(book="c", **each) for each in entries))
    with_book, plain = decided(book, rules, **facts), decided(None, rules, **facts)
    assert (with_book.cost, with_book.owner) == (plain.cost, plain.owner)
    assert [(s.owner, s.bucket, s.pool, s.cost) for s in with_book.shares] == [
        (s.owner, s.bucket, s.pool, s.cost) for s in plain.shares
    ]
    if with_book.cost is None:
        assert with_book.charge is None
        return
    assert with_book.absorbed is not None
    assert with_book.cost == (with_book.charge or 0) + with_book.absorbed
    assert with_book.charge == sum(share.charge for share in with_book.shares)
    named = {each.get("tenant") for each in entries}
    for mine, without in zip(with_book.shares, plain.shares, strict=True):
        if mine.owner.startswith("@"):
            assert mine.charge == 0
        elif mine.owner not in named and None not in named:
            assert mine == without
    if {"C1", "C2"} & {*plain.rules}:
        assert with_book == plain


@given(_facts, _rules)
def test_no_book_and_a_book_of_nobody_are_one(facts: dict[str, Any], rules: str) -> None:
    nobody = charges({"tenant": "nobody", "factor": "9"})
    assert decided(nobody, rules, **facts) == decided(None, rules, **facts)


@given(st.dictionaries(st.sampled_from(_tenants[:2]), st.integers(1, 9), min_size=2), _rate)
def test_a_share_is_the_share_of_the_whole_charge(members: dict[str, int], factor: str) -> None:
    decision = decided(charges({"factor": factor}), **MINI, members=members)
    whole = round(Fraction(150_000_000) * Fraction(factor))
    weights: dict[str, int | Fraction] = dict(members)
    found = {share.owner: share.charge for share in decision.shares}
    assert found["acme"] == split(whole, weights)["acme"]
    assert found["globex"] == split(150_000_000, weights)["globex"]
