from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from costspan.core.prices import Prices, contract
from costspan.core.prices.contract import ContractError, load
from costspan.plugins.prices import contract as plugin

FULL = """
[book]
id = "acme-2026"
currency = "USD"

[aliases]
"gpt-4o-2024-08-06" = "gpt-4o"
"azure:prod" = "gpt-4o"

[[price]]
model = "gpt-4o"
effective_to = 2026-01-01
input = "2.50"
output = "10.00"

[[price]]
model = "gpt-4o"
effective_from = 2026-01-01
input = "2.00"
output = 8
cache_read = "1.00"
web_searches = "0.01"
contracted_tokens = "0.5"

[[price.above]]
tokens = 200000
input = "4.00"

[[price]]
model = "gpt-4o"
tier = "batch"
provider = "azure"
region = "eu"
endpoint = "chat"
effective_from = 2026-01-01T12:00:00+02:00
effective_to = 2026-02-01T00:00:00
input = "1.00"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def ns(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[arg-type,misc]


def test_a_contract_is_read(tmp_path: Path) -> None:
    book = load(written(tmp_path, FULL))
    prices = Prices([book])
    assert (book.id, book.source) == ("acme-2026", "prices.toml")
    old = prices.find("gpt-4o", "openai", at_ns=ns(2026, 1, 1) - 1)
    new = prices.find("gpt-4o-2024-08-06", "openai", at_ns=ns(2026, 1, 1))
    assert old is not None
    assert new is not None
    assert old.row.rates == {"input": "2.5", "output": "10"}
    assert new.price({"input": 200_000}) == 400_000_000_000
    assert new.price({"input": 200_001, "output": 1}) == 200_001 * 4 * 10**6 + 8 * 10**6
    assert new.price({"contracted_tokens": 2}) == 10**6
    batch = prices.find("prod", "azure", "batch", "eu", "chat", ns(2026, 1, 1, 10))
    assert batch is not None
    assert (batch.row.effective_from, batch.row.effective_to) == (
        ns(2026, 1, 1, 10),
        ns(2026, 2, 1),
    )
    assert prices.find("prod", "azure", "batch", "eu", "chat", ns(2026, 1, 1, 10) - 1) is None


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    text = (contract.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    book = load(written(tmp_path, "\n".join(line.strip() for line in text.splitlines())))
    assert book.id == "contract"
    assert tomllib.loads(text)["book"]["currency"] == "USD"
    assert book.rows[0].above[0].rates == {"input": "5"}


PRICE = '[[price]]\nmodel = "m"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no prices: write each one under"),
        ("price = 3", "no prices"),
        ("[[price]", "not valid TOML"),
        ("[prices]\nx = 1", "unknown key 'prices', did you mean 'price'"),
        ("[book]\nname = 'x'\n" + PRICE, r"\[book\]: unknown key 'name'; known are currency, id"),
        ("[book]\nid = 3\n" + PRICE, "id must be text"),
        ("book = 3\n" + PRICE, "book must be a table"),
        ("[book]\ncurrency = 'EUR'\n" + PRICE, "only USD"),
        ("[[price]]\ninput = '1'", r"\[\[price\]\] 1 \(no model\): says no model"),
        (PRICE, "no rates"),
        (PRICE + "input = 2.5", r"1 \(m\): input = 2.5 is a TOML float.*input = \"2.5\""),
        (PRICE + "input = nan", "is a TOML float"),
        (PRICE + "input = true", "an amount is a string"),
        (PRICE + "input = 'two'", "not an amount"),
        (PRICE + "input = '-1'", "cannot be negative"),
        (PRICE + "imput = '1'", "unknown key 'imput', did you mean 'input'"),
        (PRICE + "cache_write = '1'", "did you mean 'cache_write"),
        (PRICE + "tier = 2\ninput = '1'", "tier must be text"),
        (PRICE + "effective_from = '2026-01-01'\ninput = '1'", "write a TOML date without quotes"),
        (PRICE + "effective_from = 2026-01-01\neffective_to = 2026-01-01\ninput = 1", "before"),
        (PRICE + "input = 1\nabove = 3", r"under \[\[price.above\]\]"),
        (PRICE + "input = 1\n[[price.above]]\ninput = '2'", "tokens must be a whole number"),
        (PRICE + "input = 1\n[[price.above]]\ntokens = 5\ninput = 0.5", "above.*TOML float"),
        (PRICE + "input = 1\n[[price.above]]\ntokens = 5\nimput = 1", "did you mean 'input'"),
        (PRICE + "input = 1\n" + PRICE + "input = 2", "two prices for m hold at the same time"),
        (
            PRICE
            + "input = 1\ntier='x'\n"
            + PRICE
            + "tier='x'\neffective_from=2026-01-01\ninput=2",
            "two prices for m tier x hold at the same time",
        ),
        ("[aliases]\nx = 'n'\n" + PRICE + "input = 1", "'x' points to 'n', which has no"),
        ("[aliases]\nx = 3\n" + PRICE + "input = 1", "x must be text"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ContractError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="cannot be read"):
        load(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ContractError, match="not valid TOML"):
        load(path)


def test_windows_that_only_touch_are_no_overlap(tmp_path: Path) -> None:
    text = (
        PRICE + "effective_to = 2026-01-01\ninput = 1\n" + PRICE + "input = 2\n"
        "effective_from = 2026-01-01\n" + PRICE + "provider = 'p'\ninput = 3\n"
    )
    assert len(load(written(tmp_path, text)).rows) == 3


def test_the_hook_brings_no_book_of_its_own() -> None:
    assert plugin.prices() == []
    assert plugin.load is load
