"""Charge books as data: entries, which one holds, snapshots, and the file they are written in."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from price_rows import ns

from costspan.core.money import PICO
from costspan.core.prices import ChargeBook, ChargeEntry, PriceBook, PriceError, charge_file
from costspan.core.prices.charge_file import load_charges
from costspan.core.prices.tables import ContractError


def entry(tenant: str | None = "acme", **fields: Any) -> ChargeEntry:
    said: dict[str, Any] = {} if {"factor", "fixed", "rates"} & fields.keys() else {"factor": "1"}
    return ChargeEntry(book="b", tenant=tenant, **said, **fields)


def found(book: ChargeBook, tenant: str, *models: str, at_ns: int = 0) -> str | None:
    terms = book.find(tenant, models, at_ns)
    return None if terms is None else terms.entry.factor


def test_the_nearest_entry_holds() -> None:
    book = ChargeBook(
        id="b",
        entries=(
            entry(factor="2"),
            entry(factor="3", model="gpt-4o"),
            entry(factor="4", effective_from=10),
            entry(factor="5", model="gpt-4o", effective_from=10, effective_to=20),
            entry(None, factor="6"),
            entry("globex", factor="7", model="gpt-4o"),
        ),
    )
    assert found(book, "acme") == "2"
    assert found(book, "acme", "gpt-4o-mini") == "2"
    assert found(book, "acme", "gpt-4o-2024-08-06", "gpt-4o") == "3"
    assert [found(book, "acme", "x", at_ns=at) for at in (9, 10)] == ["2", "4"]
    assert [found(book, "acme", "gpt-4o", at_ns=at) for at in (9, 10, 19, 20)] == list("3553")
    assert found(book, "initech", "gpt-4o") == "6"
    assert found(book, "globex", "gpt-4o") == "7"
    assert found(book, "globex", "haiku") == "6"
    assert found(ChargeBook(id="b", entries=(entry(),)), "globex") is None


def test_an_entry_says_one_thing_exactly() -> None:
    assert entry(factor="1.250").factor == "1.25"
    assert entry(factor="1.250").id == entry(factor="1.25").id != entry(factor="1.26").id
    book = ChargeBook(id="b", entries=(entry(fixed="0.0100"), entry(None, rates={"input": "1.0"})))
    terms, of_any = book.find("acme", (), 0), book.find("x", (), 0)
    assert terms is not None
    assert of_any is not None
    assert (terms.fixed, terms.factor, terms.match) == (Fraction(PICO, 100), None, None)
    assert of_any.match is not None
    assert of_any.match.cost({"input": 3}) == 3_000_000
    fields: dict[str, Any]
    for fields in (
        {"factor": "1", "fixed": "1"},
        {"factor": "1", "rates": {"input": "1"}},
        {"factor": None},
        {"rates": {}},
    ):
        with pytest.raises(PriceError, match="says one thing"):
            entry(**fields)
    with pytest.raises(PriceError, match="cannot be negative"):
        entry(factor="-1")
    with pytest.raises(PriceError, match="not float"):
        entry(fixed=0.1)
    with pytest.raises(PriceError, match="must be before"):
        entry(effective_from=5, effective_to=5)


def test_a_snapshot_reads_back_and_damage_is_refused() -> None:
    book = ChargeBook(id="b", source="s", entries=(entry(), entry("z", rates={"input": "2.50"})))
    other = ChargeBook(id="b", source="s", entries=book.entries[::-1])
    assert book.sha256 == other.sha256
    again = ChargeBook.from_bytes(book.to_bytes())
    assert (again.sha256, set(again.entries)) == (book.sha256, set(book.entries))
    with pytest.raises(PriceError, match="not a charge book snapshot"):
        ChargeBook.from_bytes(book.to_bytes()[:-4])
    with pytest.raises(PriceError, match="schema 'costspan-prices/1'"):
        ChargeBook.from_bytes(PriceBook(id="b").to_bytes())


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "charges.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_documented_example_is_valid(tmp_path: Path) -> None:
    text = (charge_file.__doc__ or "").split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    text = "\n".join(line.strip() for line in text.splitlines())
    book = load_charges(written(tmp_path, text))
    assert len(tomllib.loads(text)["charge"]) == len(book.entries) == 3
    assert (book.id, book.source) == ("charges", "charges.toml")
    acme, globex, initech = book.entries
    assert (acme.tenant, acme.factor, acme.effective_from) == ("acme", "1.2", ns(2026, 1, 1))
    assert (globex.fixed, initech.model) == ("0.01", "gpt-4o")
    assert initech.rates == {"input": "3", "output": "12"}


CHARGE = '[[charge]]\ntenant = "acme"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no entries: write each one under"),
        (CHARGE, "says one thing"),
        (CHARGE + "factor = 1.2", "TOML float"),
        (CHARGE + "factor = '1'\nfixed = '1'", "says one thing"),
        (CHARGE + "factor = 'x'", r"1 \(acme\): charges: acme: factor: not an amount"),
        (CHARGE + "imput = '1'", "did you mean 'input'"),
        (CHARGE + "tier = 'batch'", "unknown key 'tier'"),
        (CHARGE + "factor = '1'\n" + CHARGE + "factor = '2'", "two entries for acme hold at the"),
        ("[[charge]]\ntenant = '@platform'\nfactor = '1'", "is not a tenant"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ContractError, match=message) as caught:
        load_charges(path)
    assert str(caught.value).startswith(str(path))
