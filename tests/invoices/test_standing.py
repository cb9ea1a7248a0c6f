"""A corrected document that no longer names an account: its money counts once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from papers import table

from costspan.core.invoices.invoice import Invoice
from costspan.core.invoices.store import InvoiceStore
from costspan.core.money import PICO
from costspan.core.reconcile.billed import choose

MONTH = "2026-11"
COLUMNS = """
[invoice]
provider = "openai"
currency = "USD"
[columns]
amount = "x"
day = "d"
account = "a"
"""
Read = Callable[..., Any]


def file(*, day: str = f"{MONTH}-05", **accounts: int) -> bytes:
    """A bill: account -> USD."""
    rows = [(str(usd), day, account) for account, usd in accounts.items()]
    return table("xda", *rows)


def billed(store: InvoiceStore) -> dict[str, int]:
    """Account -> what its current invoice comes to, in USD."""
    return {
        each.account: sum(pico for _, pico in store.sums(each.id).values()) // PICO
        for each in store.current(MONTH)
    }


def importing(read: Read) -> Callable[..., list[Any]]:
    return lambda raw, **order: list(read(raw, columns=COLUMNS, **order))


def test_an_account_that_the_correction_lacks_is_emptied(read: Read, store: InvoiceStore) -> None:
    bring = importing(read)
    bring(file(A=4, B=3))
    kept, emptied = bring(file(A=7))
    assert billed(store) == {"A": 7, "B": 0}
    assert (kept.invoice.account, emptied.invoice.account) == ("A", "B")
    assert (emptied.invoice.version, emptied.lines, emptied.invoice.currency) == (2, 0, "USD")
    assert (emptied.is_new, emptied.changes.lines) == (True, 1)
    assert any("which it does not name" in note and "at B" in note for note in kept.notes)
    (again,) = bring(file(A=7))
    assert (again.is_new, again.notes) == (False, [])
    assert billed(store) == {"A": 7, "B": 0}
    assert [each.is_new for each in bring(file(A=4, B=3))] == [True, True]  # undone
    assert billed(store) == {"A": 4, "B": 3}
    bring(file(B=7))
    assert billed(store) == {"A": 0, "B": 7}
    bring(file(A=7))  # the empty version of A is of the document before, so B's is replaced, too
    assert billed(store) == {"A": 7, "B": 0}


@pytest.mark.parametrize("first", [{"A": 4}, {"A": 4, "B": 3}])
def test_a_document_of_other_accounts_stands_beside_it(
    read: Read, store: InvoiceStore, first: dict[str, Any]
) -> None:
    """A file for each account is usual; what stays is said."""
    bring = importing(read)
    bring(file(**first))
    (kept,) = bring(file(C=5))
    assert billed(store) == {**first, "C": 5}
    assert any("stay as they are" in note and "at A" in note for note in kept.notes)
    bring(file(C=6), replaces=True)
    assert billed(store) == {**dict.fromkeys(first, 0), "C": 6}


def test_a_document_of_one_account_empties_no_other(read: Read, store: InvoiceStore) -> None:
    bring = importing(read)
    bring(file(A=4, B=3))
    (kept,) = bring(file(A=5), account="A")
    assert (billed(store), kept.notes) == ({"A": 5, "B": 3}, [])


def test_other_months_providers_and_sources_stay(read: Read, store: InvoiceStore) -> None:
    bring = importing(read)
    rows = [("4", f"{MONTH}-05", "A"), ("3", "2026-10-05", "B"), ("2", f"{MONTH}-05", "B")]
    bring(table("xda", *rows))
    read(file(A=1, B=1), columns=COLUMNS.replace("openai", "azure"))
    bring(file(A=6))
    assert [each.account for each in store.current("2026-10")] == ["B"]
    assert store.line(store.current("2026-10")[0].id, 0) is not None
    standing = {(each.provider, each.account) for each in store.current(MONTH) if has(store, each)}
    assert standing == {("openai", "A"), ("azure", "A"), ("azure", "B")}


def has(store: InvoiceStore, invoice: Invoice) -> bool:
    return store.line(invoice.id, 0) is not None


def test_an_emptied_invoice_hides_no_other_sources(read: Read, store: InvoiceStore) -> None:
    """The CSV file comes first by the rule, and has nothing of account B after all."""
    bring = importing(read)
    bring(file(A=4, B=3))
    bring(file(A=7))
    costs = Invoice(
        id="f" * 64, source="focus", provider="openai", account="B", period=MONTH, version=0,
        imported_at=1, by="mia", currency="USD", is_provisional=False,
    )  # fmt: skip
    (line,) = store.lines(next(each.id for each in store.current(MONTH) if each.account == "A"))
    store.keep(costs, [msgspec.structs.replace(line, invoice=costs.id, account="B")], b"x")
    found = choose(store, MONTH, ("csv", "focus")).documents
    assert {(each.invoice.account, each.invoice.source) for each in found} == {
        ("A", "csv"), ("B", "focus"),
    }  # fmt: skip
