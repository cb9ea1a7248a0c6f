"""Self-hosted models: what the events cost and what is idle are the GPU bill, to the pico."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import call, close_month, keep, shelf

from costspan.core.money import PICO
from costspan.core.prices import PriceBook, capacity_file
from costspan.core.prices.capacity_file import Capacity, load_capacity
from costspan.core.prices.tables import ContractError
from costspan.core.read.sheet import is_balanced
from costspan.core.rebuild import copy_books, nets
from costspan.core.restate import CapacityChange, Hand, RestateError, Target, restate
from costspan.core.restate import restate_capacity as restated
from costspan.core.settle.ledger import Ledger, open_url

PERIOD = "2026-11"
LLAMA: dict[str, Any] = {"executed_model": "llama", "provider": "vllm", "flat_cost": None}
IDLE = ("@platform", "adjustment", PERIOD)
LATER = 2**62
THOUSAND = Fraction(1000)


def bill(**said: Any) -> Capacity:
    """100 USD."""
    fields: dict[str, Any] = {
        **{"model": "llama", "provider": "vllm", "period": PERIOD, "basis": "reservation"},
        **{"gpu_hours": "40", "usd_per_gpu_hour": "2.50", "capacity": None},
        **{"weights": {"input": "1", "output": "3"}},
    }
    return Capacity(**{**fields, **said})


def hand(at_ns: int = 1) -> Hand:
    return Hand("ann", "the GPU bill", at_ns)


def run(ledger: Ledger, *bills: Capacity, at_ns: int = 1, **more: Any) -> CapacityChange:
    return restated(ledger, PERIOD, bills or [bill()], hand(at_ns), **more)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, **LLAMA, usage={"input": 1000, "output": 1000}),
            call(2, **LLAMA, usage={"input": 4000}, tenant="globex"),
            call(3),
            call(4, "2026-12-01", **LLAMA, usage={"input": 9}),
        )
        yield ledger


def of_events(ledger: Ledger) -> int:
    return sum(
        each.decision.cost
        for each in ledger.events()
        if each.event.facts.executed_model == "llama"
        and each.event.id != "a000004"
        and each.decision is not None
        and each.decision.cost is not None
    )


def idle_of(ledger: Ledger) -> int:
    return nets(ledger).get(IDLE, (0, 0))[0]


def test_a_reservation_is_all_somebodys(ledger: Ledger) -> None:
    done = run(ledger)
    (model,) = done.models
    # 1000 + 3 x 1000 + 4000 weighted tokens: 12.5 USD a thousand.
    assert (model.tokens, model.rate, model.idle, model.used) == (
        8 * THOUSAND,
        "12500",
        0,
        100 * PICO,
    )
    now = nets(ledger)
    assert now["globex", "direct", PERIOD] == (50 * PICO, 50 * PICO)
    assert now["acme", "direct", PERIOD][0] == 50 * PICO + PICO  # and a flat dollar
    assert (done.change.changed, done.change.events) == (2, 3)
    december = next(ledger.events(["a000004"]))
    assert december.decision is not None
    assert december.decision.cost is None  # nothing was paid for its month: unknown, not nothing
    assert is_balanced(ledger)


def test_by_usage_what_nobody_used_is_the_platforms(ledger: Ledger) -> None:
    done = run(ledger, bill(basis="usage", capacity=32_000))
    (model,) = done.models
    assert (model.used, model.idle, model.posted) == (25 * PICO, 75 * PICO, 75 * PICO)
    assert nets(ledger)[IDLE] == (75 * PICO, 0)
    assert done.change.differences["@platform"].cost == 75 * PICO
    (record,) = ledger.free_postings(PERIOD)
    assert (record.kind, record.lines[0].pool, record.lines[0].model) == (
        "capacity",
        "idle",
        "llama",
    )
    assert is_balanced(ledger)


def test_again_it_changes_nothing_and_tried_only_neither(ledger: Ledger) -> None:
    before = nets(ledger)
    tried = run(ledger, dry_run=True)
    assert (tried.change.recorded, tried.models[0].rate) == (False, "12500")
    assert nets(ledger) == before
    run(ledger, bill(basis="usage", capacity=32_000), at_ns=2)
    controls, now = ledger.controls(), nets(ledger)
    again = run(ledger, bill(basis="usage", capacity=32_000), at_ns=3)
    assert (again.change.recorded, again.change.postings) == (False, 0)
    assert (ledger.controls(), nets(ledger)) == (controls, now)


def test_what_comes_late_makes_the_others_cheaper(ledger: Ledger) -> None:
    run(ledger, at_ns=1)
    keep(ledger, call(9, **LLAMA, usage={"input": 8000}, tenant="late"))
    assert of_events(ledger) + idle_of(ledger) == 200 * PICO  # until it is restated
    done = run(ledger, at_ns=2)
    assert nets(ledger)["late", "direct", PERIOD] == (50 * PICO, 50 * PICO)
    assert of_events(ledger) + idle_of(ledger) == 100 * PICO
    assert done.models[0].rate == "6250"


def test_rounding_is_idle(ledger: Ledger) -> None:
    run(ledger, bill(gpu_hours="1", usd_per_gpu_hour="0.000000000007"))
    assert of_events(ledger) + idle_of(ledger) == 7
    run(ledger, bill(gpu_hours="1", usd_per_gpu_hour="1.000000000001"), at_ns=2)
    assert of_events(ledger) + idle_of(ledger) == PICO + 1


def test_more_than_one_entry_holds_is_posted_in_several(ledger: Ledger) -> None:
    huge = bill(model="nobody-called", gpu_hours="20000000", usd_per_gpu_hour="1")
    run(ledger, huge)
    assert nets(ledger)[IDLE] == (20_000_000 * PICO, 0)
    restate(ledger, Target(None, PERIOD), hand(2), undo=True)
    assert IDLE not in nets(ledger)


def test_without_tokens_all_is_idle(ledger: Ledger) -> None:
    done = run(ledger, bill(model="nobody-called"))
    assert (done.models[0].rate, done.models[0].idle) == (None, 100 * PICO)
    assert nets(ledger)[IDLE] == (100 * PICO, 0)
    assert run(ledger, bill(model="nobody-called"), at_ns=2).change.recorded is False


def test_what_has_another_cost_is_not_spread_over(ledger: Ledger) -> None:
    keep(
        ledger,
        call(5, **{**LLAMA, "flat_cost": "7"}, usage={"input": 8000}),
        call(6, **LLAMA, usage={"input": 8000}, provider_billed=False, provider_result="failed"),
    )
    (model,) = run(ledger).models
    assert (model.tokens, model.used, model.idle) == (8 * THOUSAND, 100 * PICO, 0)


def test_two_models_each_by_its_own_bill(ledger: Ledger) -> None:
    keep(ledger, call(7, **{**LLAMA, "executed_model": "qwen"}, usage={"output": 10}))
    qwen = bill(model="qwen", provider=None, gpu_hours="4", weights=dict(capacity_file.EVEN))
    done = run(ledger, bill(), qwen)
    assert [(each.name, each.used) for each in done.models] == [
        ("vllm/llama", 100 * PICO),
        ("qwen", 10 * PICO),
    ]


def test_one_file_a_model_is_the_same_as_one_file(ledger: Ledger) -> None:
    """A file names the bill of its model alone: the others' prices and idle shares stay."""
    llama = bill(basis="usage", capacity=32_000)
    qwen = bill(model="qwen", gpu_hours="4")
    lost = bill(model="nobody-called")
    keep(ledger, call(7, **{**LLAMA, "executed_model": "qwen"}, usage={"output": 10}))
    run(ledger, llama, lost, at_ns=1)
    after = run(ledger, qwen, at_ns=2)
    assert [each.name for each in after.models] == ["vllm/qwen"]
    for name, idle in (("vllm/llama", "75.00"), ("vllm/nobody-called", "100.00")):
        (note,) = (note for note in after.change.notes if note.startswith(f"{name} is not in"))
        assert f"idle share ({idle} USD) stay" in note
    apart = nets(ledger)
    assert of_events(ledger) == 25 * PICO
    assert apart[IDLE] == (175 * PICO, 0)
    assert sum(cost for cost, _ in apart.values()) == (100 + 100 + 10 + 1) * PICO  # a flat dollar
    assert run(ledger, llama, at_ns=3).change.recorded is False
    whole = run(ledger, qwen, lost, llama, at_ns=4)
    assert (whole.change.recorded, whole.change.notes) == (False, ())
    assert nets(ledger) == apart
    restate(ledger, Target(None, PERIOD), hand(5), undo=True)
    assert IDLE not in nets(ledger)
    again = run(ledger, qwen, at_ns=6)
    assert again.change.notes == ()  # nothing is left of what was taken back
    assert of_events(ledger) == 0


def test_tokens_that_an_earlier_bill_prices_are_not_spread_over_again(ledger: Ledger) -> None:
    """The dated name has a bill of its own, in another file; without it, llama's would price it."""
    dated = "llama-2026-08-06"
    keep(ledger, call(7, **{**LLAMA, "executed_model": dated}, usage={"input": 1000}))
    run(ledger, bill(model=dated, gpu_hours="4"))
    (llama,) = run(ledger, bill(), at_ns=2).models
    assert (llama.tokens, llama.used, llama.idle) == (8 * THOUSAND, 100 * PICO, 0)


def test_one_bill_under_two_names_is_refused(ledger: Ledger) -> None:
    """Else the hours would be in the books twice: once as idle, once as the price."""
    run(ledger, bill(provider=None, basis="usage", capacity=32_000))
    before = nets(ledger)
    with pytest.raises(RestateError, match="is for llama, and this one for vllm/llama"):
        run(ledger, bill(), at_ns=2)
    assert nets(ledger) == before
    both = run(ledger, bill(provider=None, basis="usage", capacity=32_000), bill(), at_ns=3)
    assert [(each.name, each.used, each.idle) for each in both.models] == [
        ("llama", 0, 100 * PICO),
        ("vllm/llama", 100 * PICO, 0),
    ]


def test_an_undo_takes_back_prices_and_idle_share(ledger: Ledger) -> None:
    before = nets(ledger)
    run(ledger, bill(basis="usage", capacity=32_000))
    undone = restate(ledger, Target(None, PERIOD), hand(2), undo=True)
    assert nets(ledger) == before
    assert undone.differences["@platform"].cost == -75 * PICO
    run(ledger, bill(basis="usage", capacity=32_000), at_ns=3)
    assert nets(ledger)[IDLE] == (75 * PICO, 0)


def test_a_contract_leaves_the_self_hosted_prices_in_force(ledger: Ledger) -> None:
    run(ledger)
    contract = PriceBook.from_table("contract", {"gpt-4o": {"input": "1"}})
    restate(ledger, Target(None, PERIOD), hand(2), prices=contract)
    assert of_events(ledger) + idle_of(ledger) == 100 * PICO
    assert run(ledger, at_ns=3).change.postings == 0


def test_more_tokens_than_the_capacity_are_refused(ledger: Ledger) -> None:
    before = nets(ledger)
    with pytest.raises(RestateError, match="8,000 weighted tokens were used of a capacity of 7,99"):
        run(ledger, bill(basis="usage", capacity=7_999))
    with pytest.raises(RestateError, match=r"no \[\[capacity\]\] of 2026-11"):
        run(ledger, bill(period="2026-10"))
    assert nets(ledger) == before


def test_a_component_without_weight_stays_unknown(ledger: Ledger) -> None:
    keep(ledger, call(8, **LLAMA, usage={"input": 5, "audio_input": 5}))
    done = run(ledger)
    assert "of 1 of these models' events the cost stays unknown" in done.change.notes[0]
    each = next(ledger.events(["a000008"]))
    assert each.decision is not None
    assert each.decision.cost is None


def test_in_a_sealed_month_it_is_posted_in_the_open_one_and_rebuilt(
    ledger: Ledger, tmp_path: Path
) -> None:
    close_month(ledger, PERIOD)
    run(ledger, bill(basis="usage", capacity=32_000), at_ns=LATER)
    posted = {each.posted_period for each in ledger.roll_ups() if each.line.pool == "idle"}
    assert posted == {"2026-12"}
    with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new:
        copy_books(ledger, new)
        assert nets(new) == nets(ledger)


_usages = st.lists(
    st.dictionaries(
        st.sampled_from(["input", "output", "cache_read"]), st.integers(0, 10**7), min_size=1
    ),
    max_size=6,
)
_weights = st.fixed_dictionaries(
    dict.fromkeys(["input", "output", "cache_read"], st.sampled_from(["1", "0.1", "3", "0.333"]))
)


@settings(max_examples=25)
@given(_usages, _weights, st.integers(1, 10**9), st.sampled_from(["reservation", "usage"]))
def test_events_and_idle_are_the_bill(
    usages: list[dict[str, int]], weights: dict[str, str], cents: int, basis: Any
) -> None:
    with closing(shelf()) as ledger:
        keep(ledger, *(call(n, **LLAMA, usage=usage) for n, usage in enumerate(usages, 10)))
        capacity = 10**9 if basis == "usage" else None
        said = bill(
            basis=basis, capacity=capacity, weights=weights, gpu_hours=str(cents),
            usd_per_gpu_hour="0.01",
        )  # fmt: skip
        for at_ns in (1, 2):
            done = run(ledger, said, at_ns=at_ns)
            assert of_events(ledger) + idle_of(ledger) == cents * PICO // 100
        assert (done.change.recorded, done.change.postings) == (False, 0)
        assert is_balanced(ledger)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gpus.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_documented_file_is_valid(tmp_path: Path) -> None:
    text = (capacity_file.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    text = "\n".join(line.strip() for line in text.splitlines())
    assert tomllib.loads(text)
    (found,) = load_capacity(written(tmp_path, text))
    assert (found.paid, found.basis, found.capacity) == (3024 * PICO, "reservation", None)
    text = text.replace('"reservation"', '"usage"').replace("# capacity =", "capacity =")
    (found,) = load_capacity(written(tmp_path, text))
    assert (found.basis, found.capacity) == ("usage", 9_000_000_000)
    assert found.weights == {"input": "1", "output": "4", "cache_read": "0.1"}


GPU = '[[capacity]]\nmodel = "m"\nperiod = "2026-11"\ngpu_hours = "1"\nusd_per_gpu_hour = "1"\n'
RESERVED = GPU + 'basis = "reservation"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing was paid"),
        (GPU, 'basis is "reservation" or "usage", not None'),
        (GPU.replace("2026-11", "November") + 'basis = "usage"', "needs model"),
        (RESERVED.replace('"1"', "1.5", 1), "TOML float"),
        (RESERVED.replace('gpu_hours = "1"\n', ""), "needs gpu_hours"),
        (RESERVED.replace('"1"', '"-1"', 1), "cannot be negative"),
        (RESERVED + "capacity = 5", "basis usage, and only that"),
        (GPU + 'basis = "usage"\ncapacity = 0', "whole number of tokens"),
        (RESERVED + '[capacity.weights]\nimages = "1"', "only tokens have a weight"),
        (RESERVED + '[capacity.weights]\nimput = "1"', "did you mean 'input'"),
        (RESERVED + RESERVED, "m of 2026-11 is there twice"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ContractError, match=message) as caught:
        load_capacity(path)
    assert str(caught.value).startswith(str(path))
