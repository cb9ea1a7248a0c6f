from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan.core.money import (
    PICO,
    MoneyError,
    format_usd,
    parse_usd,
    round_half_even,
    round_ratio,
    split,
)

owners = st.text(min_size=1, max_size=6)
weights = st.dictionaries(
    owners,
    st.one_of(st.integers(0, 10**9), st.fractions(0, 10**6, max_denominator=999)),
    min_size=1,
    max_size=8,
).filter(lambda found: any(found.values()))
amounts = st.integers(-(10**20), 10**20)


@pytest.mark.parametrize(
    ("text", "pico"),
    [
        ("0", 0),
        ("-0", 0),
        ("2.50", 2_500_000_000_000),
        (".5", PICO // 2),
        ("5.", 5 * PICO),
        ("+1", PICO),
        ("-0.003290000000", -3_290_000_000),
        ("0.000000000001", 1),
        ("1e-12", 1),
        ("2.5E-7", 250_000),
        ("0.0000000000010", 1),
        (3, 3 * PICO),
        (Decimal("1.10"), 1_100_000_000_000),
        (Decimal("9223372.036854775807"), 2**63 - 1),
    ],
)
def test_amounts_are_read_exactly(text: str | int | Decimal, pico: int) -> None:
    assert parse_usd(text) == pico


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1\n", "1,5", "1_000", "$1", "0x1", "NaN", "inf", "-Infinity", "١", "1e99999"),  # noqa: RUF001
        *("1e18", "1e999", "1e-13", "0.0000000000001", "1e-9999", "9" * 200, 10**18, -(10**400)),
        *(Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e-999999")),
        *(0.1, 1.0, True, None, b"1", Fraction(1, 2)),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_is_not_an_amount_is_refused(text: Any) -> None:
    with pytest.raises(MoneyError):
        parse_usd(text)


def test_a_float_is_refused_by_name() -> None:
    amount: Any = 0.1
    with pytest.raises(MoneyError, match=r"not float.*write it as a string"):
        parse_usd(amount)


def test_finer_than_a_pico_is_rounded_half_even_only_when_asked() -> None:
    assert parse_usd("0.0000000000005", rounding=True) == 0
    assert parse_usd("0.0000000000015", rounding=True) == 2
    assert parse_usd("-0.0000000000015", rounding=True) == -2
    assert parse_usd("1e-300", rounding=True) == 0
    with pytest.raises(MoneyError, match="finer than a pico"):
        parse_usd("0.0000000000005")


def test_exactness_does_not_depend_on_the_decimal_context() -> None:
    assert parse_usd("123456789012345678.123456789012") == 123456789012345678123456789012


@given(amounts)
def test_format_has_twelve_places_and_reads_back(pico: int) -> None:
    text = format_usd(pico)
    assert len(text.split(".")[1]) == 12
    assert Fraction(text) == Fraction(pico, PICO)
    if abs(pico) < 10**30:
        assert parse_usd(text) == pico


def test_format_writes_the_sign_of_small_amounts() -> None:
    assert format_usd(-3_290_000_000) == "-0.003290000000"
    assert format_usd(-1) == "-0.000000000001"
    assert format_usd(0) == "0.000000000000"


@given(st.fractions())
def test_rounding_is_nearest_and_halves_go_to_even(amount: Fraction) -> None:
    rounded = round_half_even(amount)
    assert abs(rounded - amount) <= Fraction(1, 2)
    if abs(rounded - amount) == Fraction(1, 2):
        assert rounded % 2 == 0


@given(st.integers(), st.integers(1, 50) | st.integers(1, 10**40))
def test_integers_are_rounded_as_their_fraction_is(numerator: int, denominator: int) -> None:
    assert round_ratio(numerator, denominator) == round_half_even(Fraction(numerator, denominator))


@given(amounts, weights)
def test_shares_sum_exactly_and_lie_within_a_pico(
    amount: int, weights: dict[str, int | Fraction]
) -> None:
    shares = split(amount, weights)
    total = sum(weights.values(), Fraction(0))
    assert sum(shares.values()) == amount
    assert shares.keys() == weights.keys()
    for owner, share in shares.items():
        assert abs(share - Fraction(amount * weights[owner]) / total) < 1
        assert share == 0 or weights[owner] > 0


@given(amounts, weights, st.randoms(), st.integers(1, 10**6))
def test_neither_order_nor_scale_of_weights_matters(
    amount: int, weights: dict[str, int | Fraction], random: Any, scale: int
) -> None:
    shuffled = list(weights.items())
    random.shuffle(shuffled)
    assert split(amount, weights) == split(amount, dict(shuffled))
    assert split(amount, weights) == split(
        amount, {owner: Fraction(weight) / scale for owner, weight in weights.items()}
    )


@given(amounts, weights)
def test_a_reversal_mirrors_the_split(amount: int, weights: dict[str, int | Fraction]) -> None:
    assert split(-amount, weights) == {
        owner: -share for owner, share in split(amount, weights).items()
    }


def test_ties_go_to_the_least_owner_id() -> None:
    assert split(1, {"b": 1, "a": 1}) == {"a": 1, "b": 0}
    assert split(-1, {"b": 1, "a": 1}) == {"a": -1, "b": 0}
    assert split(5, {"c": 1, "b": 1, "a": 1}) == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no weights"),
        ({"a": 0, "b": Fraction(0)}, "all of them zero"),
        ({"a": 1, "b": -1}, "'b' is negative"),
        ({"a": 0.5}, "float"),
        ({"a": True}, "bool"),
    ],
)
def test_weights_that_cannot_share_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(MoneyError, match=message):
        split(1, weights)


def test_the_golden_allocation_methods() -> None:
    pool = parse_usd("0.040213000000")
    methods = json.loads(
        """{
        "even": [{"acme": 1, "globex": 1, "initech": 1},
                 ["0.013404333334", "0.013404333333", "0.013404333333"]],
        "activity": [{"acme": 30, "globex": 10, "initech": 5},
                 ["0.026808666667", "0.008936222222", "0.004468111111"]],
        "weighted": [{"acme": 6, "globex": 3, "initech": 1},
                 ["0.024127800000", "0.012063900000", "0.004021300000"]]}"""
    )
    for weights, shares in methods.values():
        assert [format_usd(share) for share in split(pool, weights).values()] == shares
