"""The PostgreSQL ledger trusts nothing that it is given."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from postgres_books import flat, keep

from costspan.core import counters
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal.records import Counts, Refusals, SessionOwner
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url
from costspan.plugins.ledgers.postgres.text import escaped, unescaped

HOSTILE = [
    "o'brien\"; DROP TABLE postings; --",
    "\N{SMILING FACE WITH OPEN MOUTH}",
    "%s %b %(x)s %",
    '{1,NULL,"}',
    "\\N\\x00\\",
    "NULL",
    "\t1:1\n",
    "#x",
    "x" * 300,
    "a\0b",
    "\1",
    "\1\1\0\2",
]


# --- what it is given ----------------------------------------------------------------------------


@given(st.text(max_size=9), st.text(max_size=9))
def test_texts_come_back_and_keep_their_order(one: str, other: str) -> None:
    assert unescaped(escaped(one)) == one
    assert "\0" not in escaped(one)
    assert (escaped(one) < escaped(other)) == (one < other)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_only_ever_values(ledger: Ledger, text: str) -> None:
    seen = Observation(
        oid=f"{text}:1", attempt_id=text, operation_ids=(text,), response_id=text, span_id=text,
        tenant=text, tenant_source="principal", session=text, parent=text, request_id=text,
        executed_model=text, flat_cost="1", provider_result="ok", user=text,
    )  # fmt: skip
    keep(ledger, seen)
    keep(ledger, seen, Observation(oid="w:2", response_id=text, feature="late"))
    (event,) = ledger.events()
    assert (event.event.id, event.event.facts.feature) == (text, "late")
    assert nets(ledger) == {(text, "direct", "0000-00"): (PICO, PICO)}
    assert ledger.find_events(text) == [text]
    assert {each.oid for each in ledger.journal()} == {f"{text}:1", "w:2"}


def test_many_hostile_names_at_once_go_by_copy_and_come_back(ledger: Ledger) -> None:
    keep(ledger, *(flat(n, attempt=f"{HOSTILE[n % len(HOSTILE)]}{n}") for n in range(1, 1200)))
    ids = {f"{HOSTILE[n % len(HOSTILE)]}{n}" for n in range(1, 1200)}
    found = [each.event.id for each in ledger.events()]
    assert found == sorted(ids)
    assert {each.event_id for _, each in ledger.postings_after(0, -1)} == ids
    assert [number for number, _ in ledger.postings_after(0, -1)] == list(range(1, 1200))


UNFIT = {
    "a time that no store can hold": {"started_at": 2**63 + 7},
    "a name that no index can hold": {
        "attempt": "".join(map(chr, random.Random(1).sample(range(0x4E00, 0x9FFF), 3000)))
    },
}


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT.keys())
def test_a_record_that_cannot_be_settled_holds_nothing_up(
    url: str, tmp_path: Path, unfit: dict[str, Any]
) -> None:
    """It went around `clean`. It stays, is counted, is retried."""
    config = Config(ledger=url, spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    for number in range(1, 30):
        writer.record(flat(number, **{"started_at": 1, **(unfit if number == 11 else {})}))
    writer.rotate()
    for _ in (1, 2):
        done = drain(config)
        assert (done.unreadable, done.segments) == (1, 1)
    assert any(name.startswith("unsettled:") for name in counters.snapshot())
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        assert len(list(ledger.events())) == 28
        assert nets(ledger) == {("acme", "direct", "1970-01"): (28 * PICO, 28 * PICO)}


def test_a_writer_may_number_more_records_than_an_epoch_has(ledger: Ledger) -> None:
    numbers = [1, 2**32 - 1, 2**32, 2**33 + 5, 10**17]
    for _ in (1, 2):
        keep(ledger, *(flat(number) for number in numbers))
    assert [each.oid for each in ledger.journal()] == [f"w:{number}" for number in numbers]
    assert ledger.writers() == [("w", 10**17, len(numbers))]


def test_the_operators_latest_word_holds_in_any_order(ledger: Ledger) -> None:
    rows = [SessionOwner("s", tenant, "ann", at) for tenant, at in (("a", 1), ("b", 2), ("a", 3))]
    for row in reversed(rows):
        with ledger.settling(1) as settlement:
            settle(settlement, [], [row])
            assert settlement.session_owners(["s"]) == {"s": "a"}


def test_refusals_of_every_process_are_counted(ledger: Ledger) -> None:
    with ledger.settling(1) as settlement:
        settlement.append_control(
            [
                Refusals("old", {"disk:28": 2}, 1),
                Counts("new", {"refused:disk:28": 3, "ladder:held": 7}, 1),
                Counts("new", {"refused:disk:28": 1}, 1),
            ]
        )
    assert ledger.counts("refused") == {"refused": 5}
