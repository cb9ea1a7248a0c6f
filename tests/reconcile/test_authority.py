"""The authority rule: what is written is what holds; what is not understood is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from costspan.core.reconcile.authority import Authority, AuthorityError, load, parse

WHOLE = """
[authority]
totals = "provider"
adjust = "pro_rata"

[threshold.money]
absolute = "0.05"
relative = "0.01"

[accounts]
"litellm-prod" = "proj_1"

[[override]]
provider = "openai"
account = "proj_1"
adjust = "platform"
charge_adjustments = true

[[override]]
provider = "openai"
totals = "ledger"
adjust = "pro_rata"
"""


def test_the_default_is_the_provider_for_totals_and_the_ledger_for_the_split() -> None:
    rule = Authority().rule("openai", "")
    assert (rule.totals, rule.tokens, rule.split, rule.adjust) == (
        "provider",
        "provider",
        "ledger",
        "pro_rata",
    )
    assert not rule.charge_adjustments


def test_the_more_specific_override_wins() -> None:
    found = parse(WHOLE)
    assert found.rule("openai", "proj_1").adjust == "platform"
    assert found.rule("openai", "proj_1").totals == "ledger"
    assert found.rule("openai", "proj_2").adjust == "pro_rata"
    assert found.rule("anthropic", "").totals == "provider"


@pytest.mark.parametrize(
    ("ledger", "invoice", "is_over"),
    [
        (10 * 10**12, 10 * 10**12 + 5 * 10**10, False),  # 0.05 USD is not above 0.05
        (10 * 10**12, 10 * 10**12 + 10**11, False),  # above 0.05, not above a hundredth
        (10 * 10**12, 10 * 10**12 + 2 * 10**11, True),
        (0, 4 * 10**10, False),
        (6 * 10**10, 0, True),
    ],
)
def test_both_thresholds_must_be_passed(ledger: int, invoice: int, is_over: bool) -> None:
    assert parse(WHOLE).is_over("money", "openai", "", ledger, invoice) is is_over


def test_the_hash_is_of_what_is_said() -> None:
    assert parse("").sha256 == Authority().sha256
    assert parse(WHOLE).sha256 != Authority().sha256
    assert parse(WHOLE.replace('totals = "provider"\n', "")).sha256 == parse(WHOLE).sha256


@pytest.mark.parametrize(
    "text",
    [
        "nonsense = 1",
        '[authority]\ntotal = "provider"',
        '[authority]\nsplit = "provider"',
        "[threshold.money]\nabsolute = 0.01",
        '[threshold.money]\nabsolute = "a cent"',
        '[threshold.money]\nrelative = "-1"',
        '[threshold.tokens]\nabsolute = "0.5"',
        '[[override]]\nadjust = "platform"',
        "[authority",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(AuthorityError):
        parse(text)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "rule.toml"
    with pytest.raises(AuthorityError, match=r"rule\.toml: cannot be read"):
        load(path)
    path.write_text("x = 1", "utf-8")
    with pytest.raises(AuthorityError, match=r"rule\.toml: not an authority rule"):
        load(path)
