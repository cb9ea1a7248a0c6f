"""The memoised decision equals the naive one for any facts, lineage, rules and time."""

from __future__ import annotations

import os
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st
from naive_decide import decide as naive_decide

from costspan.core import schema
from costspan.core.decide import Lineage, decide, load_profile, load_rules
from costspan.core.join import merge
from costspan.core.join.identity import Reach, Spoken
from costspan.core.prices import ContextTier, PriceBook, PriceRow, Prices
from costspan.core.schema import Observation

EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "600"))


def row(model: str, provider: str | None, *rates: str, **terms: Any) -> PriceRow:
    components = ("input", "output", "cache_read", "cache_write_5m")
    return PriceRow(
        book="v1", model=model, provider=provider, rates=dict(zip(components, rates, strict=False)),
        **terms,
    )  # fmt: skip


ABOVE = (ContextTier(100, {"input": "5.00", "output": "22.5"}),)
BOOKS = (
    PriceBook(
        id="v1",
        rows=(
            row("big", "openai", "2.50", "10.00", effective_to=50),
            row("big", "openai", "2.00", "8.00", "1.00", "3.125", effective_from=50),
            row("big", "openai", "1.25", "5.00", tier="batch"),
            row("small", "openai", "0.15", "0.60", "0.0000007", "0.1875000003", above=ABOVE),
            row("other", "anthropic", "3.00", "15.00", "0.3333333", "3.75", effective_from=30),
            row("dear", None, "9000000", "9000000"),
        ),
        aliases={"big-2024-08-06": "big", "fast": "small"},
    ),
    PriceBook.from_table("v2", {"other": {"input": "1", "output": "1", "requests": "0.005"}}),
)
PRICES = Prices(BOOKS)
OWN_RULES = """
[[bucket]]
id = "X"
when = { owner = "platform", basis = "usage" }
then = "direct"
because = "looks at what the tables before decided"
[[cost]]
id = "Y"
when = { kind = "rerank" }
then = "flat"
because = "priced by hand"
"""
RULES = (
    load_profile("billing"),
    load_profile("chargeback"),
    load_rules(OWN_RULES),
    *(
        load_rules(f'[knobs]\n{knob} = "{value}"')
        for knob, value in (
            ("fallback_charge", "min"), ("cache_hit_charge", "list"), ("safety_owner", "tenant"),
            ("cache_hit_charge", "fraction"), ("bill_undelivered", "user_fault"),
            ("charge_above_cost", "capped"),
        )
    ),
)  # fmt: skip

NAMES = ("big", "big-2024-08-06", "small", "fast", "other", "dear", "unknown", "")
COMPONENTS = ("input", "output", "cache_read", "cache_write_5m", "requests", "audio_input")
USAGE = st.dictionaries(
    st.sampled_from(COMPONENTS[:4] * 4 + COMPONENTS),
    st.sampled_from((0, 1, 3, 99, 101, 10**6, 10**13, -1)),
    max_size=3,
)
USD = st.sampled_from(("0", "1", "0.0000000000005", "9000000", "9300000", "ten", "-1", ""))
OWNERS = st.sampled_from(("acme", "globex", "@platform", "@unattributed"))
POOLS: dict[str, st.SearchStrategy[Any]] = {
    "usage": USAGE, "delivered_usage": USAGE, "flat_cost": USD, "avoided_cost": USD,
    "executed_model": st.sampled_from(NAMES), "requested_model": st.sampled_from(NAMES),
    "provider": st.sampled_from(("openai", "anthropic")), "tier": st.sampled_from(("batch", "x")),
    "price_book": st.sampled_from(("v1", "v2", "v3")), "region": st.just("eu"),
    "tenant": OWNERS, "members": st.dictionaries(OWNERS, st.integers(0, 3), max_size=3),
    "attempt": st.integers(0, 2), "retry_of": st.just("a0"),
    "shared": st.booleans(), "shared_prefix": st.booleans(), "provider_billed": st.booleans(),
    "flags": st.sampled_from((("invalid_usage",), ("invalid:flat_cost", "x"), ("estimated",))),
    **{
        name: st.sampled_from(get_args(values))
        for name, values in (
            ("kind", schema.Kind), ("cause", schema.Cause), ("initiator", schema.Initiator),
            ("usage_source", schema.UsageSource), ("provider_result", schema.ProviderResult),
            ("delivery", schema.Delivery), ("fault", schema.Fault), ("cache", schema.Cache),
            ("policy_owner", schema.PolicyOwner), ("retry_reason", schema.RetryReason),
        )
    },
}  # fmt: skip
LINEAGES = st.builds(
    Lineage,
    st.sampled_from((None, None, "globex", "@platform")),
    st.sampled_from((None, "p")),
    st.sampled_from((None, "tool", "retrieval")),
)


@st.composite
def facts(draw: st.DrawFn) -> dict[str, Any]:
    """Some facts, mostly of a call that can be priced."""
    names = draw(st.lists(st.sampled_from(sorted(POOLS)), max_size=12, unique=True))
    said: dict[str, Any] = {name: draw(POOLS[name]) for name in names}
    if draw(st.booleans()):
        said = {
            "provider_result": "ok", "tenant": "acme", "executed_model": "big",
            "usage": {"input": draw(st.integers(0, 200)), "output": 1}, **said,
        }  # fmt: skip
    return said


@settings(
    max_examples=EXAMPLES,
)
@given(facts(), LINEAGES, st.sampled_from(RULES), st.sampled_from((None, 10, 30, 49, 50, 60)))
def test_the_decision_is_the_naive_one(
    said: dict[str, Any], lineage: Lineage, rules: Any, started_at: int | None
) -> None:
    seen = Observation(oid="w:1", attempt_id="a", started_at=started_at, **said)
    event = merge("a", [Spoken(seen, Reach.OWN)])
    decision = decide(event, lineage, rules, PRICES)
    assert decision == naive_decide(event, lineage, rules, PRICES)
    assert decision.ruling is decide(event, lineage, rules, PRICES).ruling
