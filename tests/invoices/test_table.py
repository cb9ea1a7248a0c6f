"""Any CSV file, by the file that says what its columns mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from papers import USD, lines_of, table

from costspan.core.invoices.document import InvoiceError

GERMAN = """
[invoice]
provider = "mistral"
account = "werk-1"
currency = "eur"
delimiter = ";"
decimal = ","
day_format = "%d.%m.%Y"
[columns]
amount = "Betrag"
day = "Datum"
model = "Modell"
component = "Art"
quantity = "Menge"
category = "Posten"
[categories]
"Verbrauch" = "usage"
"MwSt" = "tax"
[components]
"Eingabe" = "input"
[skip]
"Modell" = ["Summe"]
"""
ROWS = """Datum;Modell;Art;Menge;Betrag;Posten
05.11.2026;large;Eingabe;1.234.567;1.234,50;Verbrauch
06.11.2026;;;;0,19;MwSt
;Summe;;;1.234,69;
"""
PLAIN = '[invoice]\nprovider = "x"\ncurrency = "USD"\n[columns]\namount = "a"\nday = "d"\n'


def plain(amount: str, day: str = "2026-11-05") -> bytes:
    return table(("a", "d"), (amount, day))


def test_a_german_bill(read: Callable[..., Any]) -> None:
    used, taxed = lines_of(ROWS.encode(), columns=GERMAN)
    assert (used.day, used.model, used.component, used.quantity) == (
        *("2026-11-05", "large", "input", 1_234_567),
    )
    assert (used.amount, used.currency, used.category) == (1_234_500_000_000_000, "EUR", "usage")
    assert (taxed.amount, taxed.category) == (190_000_000_000, "tax")
    [kept] = read(ROWS.encode(), columns=GERMAN)
    assert (kept.invoice.source, kept.invoice.provider) == ("csv", "mistral")
    assert kept.notes == ["rows left out as [skip] says: 1 time, first at line 4"]


def test_cents_are_cents_if_it_is_said() -> None:
    columns = PLAIN.replace("currency", 'amounts_in = "cents"\ncurrency')
    assert lines_of(plain("123.45"), columns=columns)[0].amount == 1_234_500_000_000
    assert lines_of(plain("123.45"), columns=PLAIN)[0].amount == 123_450_000_000_000


@pytest.mark.parametrize(
    ("written", "pico"),
    [("1,234.5", 1_234_500_000_000_000), ("-1,000", -1000 * USD), ("7", 7 * USD)],
)
def test_groups_of_thousands(written: str, pico: int) -> None:
    assert lines_of(plain(written), columns=PLAIN)[0].amount == pico


@pytest.mark.parametrize("written", ["1,50", "1,5", "12,34.5", "1.234,50", "1,2345"])
def test_a_comma_that_may_be_decimal_is_not_guessed_at(written: str) -> None:
    with pytest.raises(InvoiceError, match="which of its marks is the decimal one"):
        lines_of(plain(written), columns=PLAIN)


def test_the_same_bytes_read_another_way_are_the_next_version(
    read: Callable[..., Any], store: Any
) -> None:
    raw = plain("5")
    [first] = read(raw, columns=PLAIN)
    [again] = read(raw, columns=PLAIN)
    [second] = read(raw, columns=PLAIN.replace("currency", 'amounts_in = "cents"\ncurrency'))
    assert (again.is_new, again.invoice) == (False, first.invoice)
    assert (second.invoice.version, second.changes.lines) == (2, 1)
    [back] = read(raw, columns=PLAIN)  # undoes the wrong reading: a version of its own
    assert (back.invoice.version, back.changes.lines, back.amounts) == (3, 1, {"usage": 5 * USD})
    assert read(raw, columns=PLAIN)[0].is_new is False
    assert [each.id for each in store.current("2026-11")] == [back.invoice.id]


def test_a_period_where_there_is_no_day() -> None:
    columns = PLAIN.replace("day", "period")
    [line] = lines_of(plain("1", "2026-10"), columns=columns)
    assert (line.day, line.is_provisional) == ("", False)
    with pytest.raises(InvoiceError, match="neither a day nor a period"):
        lines_of(plain("1", "October"), columns=columns)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("[", "--columns"),
        (PLAIN + 'colour = "x"\n', "colour"),
        (PLAIN.replace('amount = "a"\n', ""), "amount"),
        (PLAIN.replace('day = "d"\n', ""), "day or of the period"),
        (PLAIN.replace('currency = "USD"\n', ""), "name the currency"),
        (PLAIN.replace('provider = "x"\n', ""), "--provider"),
        (PLAIN.replace("currency", 'amounts_in = "pence"\ncurrency'), "amounts_in"),
        (PLAIN.replace("currency", 'decimal = "x"\ncurrency'), "decimal"),
        (PLAIN.replace('"a"', '"b"'), "no column 'b'"),
        (PLAIN + '[categories]\n"x" = "rent"\n', "rent"),
        (PLAIN.replace("USD", "dollars"), "ISO code"),
    ],
)
def test_a_mapping_that_cannot_be_used_is_explained(columns: str, why: str) -> None:
    with pytest.raises(InvoiceError, match=why):
        lines_of(plain("1"), columns=columns)


def test_a_category_without_a_word_of_ours_is_refused() -> None:
    with pytest.raises(
        InvoiceError, match=r"line 2: the category 'Miete' is not in \[categories\]"
    ):
        lines_of(ROWS.replace("Verbrauch", "Miete").encode(), columns=GERMAN)


def test_usage_of_a_negative_quantity_is_refused() -> None:
    with pytest.raises(InvoiceError, match="line 2: usage of a negative quantity"):
        lines_of(ROWS.replace("1.234.567", "-1").encode(), columns=GERMAN)
