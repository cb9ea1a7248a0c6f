"""The SQLite ledger's names: whatever it is given is a value, and every record keeps its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_calls import flat, keep

from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.journal_rows import join_oid, split_oid

HOSTILE = [
    "o'brien\"; DROP TABLE postings; --",
    "\N{SMILING FACE WITH OPEN MOUTH}",
    "%_?{keys}",
    "\t1:1",
    "#1:1",
    "#x",
    "sqlite_sequence",
    "x" * 300,
    "a\0b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_only_ever_values(ledger: Ledger, text: str) -> None:
    seen = Observation(
        oid=f"{text}:1", attempt_id=text, operation_ids=(text,), response_id=text, span_id=text,
        tenant=text, tenant_source="principal", session=text, parent=text, request_id=text,
        executed_model=text, flat_cost="1", provider_result="ok",
    )  # fmt: skip
    keep(ledger, seen)
    keep(ledger, seen, Observation(oid="w:2", response_id=text, feature="late"))
    (event,) = ledger.events()
    assert (event.event.id, event.event.facts.feature) == (text, "late")
    assert nets(ledger) == {(text, "direct", "0000-00"): (PICO, PICO)}
    assert ledger.find_events(text) == [text]
    assert {each.oid for each in ledger.journal()} == {f"{text}:1", "w:2"}


@given(st.text(max_size=12) | st.from_regex(r"\A.{0,3}:?[0-9]{0,20}\Z"))
@settings(max_examples=300)
def test_every_oid_is_kept_apart(oid: str) -> None:
    writer, seq = split_oid(oid)
    assert join_oid(writer, seq) == oid
    assert -1 <= seq < 2**63


def test_a_writer_may_number_more_records_than_an_epoch_has(ledger: Ledger) -> None:
    numbers = [1, 2**32 - 1, 2**32, 2**33 + 5, 10**17]
    keep(ledger, *(flat(number) for number in numbers))
    keep(ledger, *(flat(number) for number in numbers))
    assert [each.oid for each in ledger.journal()] == [f"w:{number}" for number in numbers]
    assert ledger.writers() == [("w", 10**17, len(numbers))]
    assert nets(ledger)["acme", "direct", "0000-00"][0] == len(numbers) * PICO


def test_the_lines_of_the_books_keep_their_names(ledger: Ledger, path: Path) -> None:
    keep(ledger, flat(1))
    refused = pytest.raises(sqlite3.IntegrityError, match="keep their names")
    with closing(sqlite3.connect(path)) as foreign, refused:
        foreign.execute("UPDATE lines SET owner = 'globex'")


def test_numbers_that_no_writer_gives_name_their_records_all_the_same(ledger: Ledger) -> None:
    odd = [(-1, "w:-1"), (-2, "w:-2"), (10**18, f"w:{10**18}"), (5, "elsewhere")]
    for at, (seq, oid) in enumerate(odd):
        begun = Observation(oid=oid, writer="w", seq=seq, attempt_id=f"a{at}", phase="start")
        keep(ledger, begun)
        keep(ledger, flat(at + 1, attempt=f"a{at}"))
    events = list(ledger.events())
    assert [oid in each.event.oid_names for each, (_, oid) in zip(events, odd, strict=True)] == [
        True
    ] * len(odd)
    assert len({each.oid for each in ledger.journal()}) == 2 * len(odd)


@pytest.mark.parametrize("first", [0, 1])
def test_a_record_named_as_an_attempt_replaces_none(ledger: Ledger, first: int) -> None:
    named = Observation(oid="a1", tenant="globex", flat_cost="5", provider_result="ok")
    both = [flat(1), named]
    keep(ledger, both[first])
    keep(ledger, both[1 - first])
    assert nets(ledger) == {("acme", "direct", "0000-00"): (PICO, PICO)}
    assert ledger.problems() == [("identity_conflict", "a1", "a1")]
