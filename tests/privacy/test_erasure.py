"""A person is behind a pseudonym, and can be erased: no byte is left, and nothing sealed breaks."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shelf import call, close_month, keep, shelf

from costspan.core.clean import observation
from costspan.core.config import Config
from costspan.core.journal.records import Erasure
from costspan.core.privacy.erasure import ErasureError, erase, files_with
from costspan.core.privacy.persons import PSEUDONYM, is_pseudonym
from costspan.core.read.books import Books
from costspan.core.rebuild import nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import broken_seals
from costspan.core.settle.ledger import Ledger, open_url

ANN = "ann.o'neil@example.com"
BOB = "bob@example.com"
HAND: dict[str, Any] = {"by": "the privacy desk", "reason": "request 17", "now_ns": 5}


def files_of(path: Path) -> bytes:
    """Every byte of a ledger: the file, and what is beside it."""
    return b"".join(each.read_bytes() for each in sorted(path.parent.glob(path.name + "*")))


def users(ledger: Ledger) -> set[str | None]:
    return {each.event.facts.user for each in ledger.events()}


def books_of(ledger: Ledger) -> Any:
    return (
        nets(ledger),
        list(ledger.roll_ups()),
        [ledger.postings(e.event.id) for e in ledger.events()],
    )


def test_journal_and_events_hold_pseudonyms_and_the_side_table_the_person(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        claims: dict[str, Any] = {"client_claims": {"end_user": ANN, "tags": ["x"]}}
        keep(ledger, call(1, user=ANN), call(2, user=ANN, **claims), call(3, user=BOB), call(4))
        pseudonym = ledger.persons.pseudonym_of(ANN)
        assert pseudonym is not None
        assert PSEUDONYM.fullmatch(pseudonym)
        assert users(ledger) == {pseudonym, ledger.persons.pseudonym_of(BOB), None}
        seen = list(ledger.journal())
        assert ANN not in repr(seen)
        assert seen[1].client_claims == {"end_user": pseudonym, "tags": ["x"]}
        assert ledger.persons.names([pseudonym]) == {pseudonym: ANN}


def test_two_ledgers_give_a_person_two_pseudonyms(tmp_path: Path) -> None:
    found: set[str | None] = set()
    for name in ("a.db", "b.db"):
        with closing(shelf(tmp_path / name)) as ledger:
            keep(ledger, call(1, user=ANN))
            found.add(ledger.persons.pseudonym_of(ANN))
    assert len(found) == 2


def test_no_byte_is_left_and_the_sealed_root_holds(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with closing(shelf(path)) as ledger:
        many = [call(n, user=ANN if n % 3 else f"user-{n}@example.com") for n in range(1, 400)]
        keep(ledger, *many)
        keep(ledger, call(401, "2026-12-03", user=ANN))
        close_month(ledger, "2026-11")
        before, roots = books_of(ledger), [close.root for close in ledger.closes()]
        assert ANN.encode() in files_of(path)
        done = erase(ledger, user=ANN, **HAND)
        assert (done.was_known, done.is_compact, done.mentions) == (True, True, 0)
        assert ANN.encode() not in files_of(path)
        assert b"user-3@example.com" in files_of(path)
        assert books_of(ledger) == before
        assert [close.root for close in ledger.closes()] == roots
        assert broken_seals(ledger) == []
        assert Books(ledger).is_balanced()
        assert ledger.persons.names([done.record.pseudonym]) == {}
        kept = [each for each in ledger.controls() if isinstance(each, Erasure)]
        assert kept == [done.record]
    rebuild(Config(ledger=str(path), spool=tmp_path / "spool"))
    with closing(open_url(f"sqlite:///{path}", create=False)) as ledger:
        assert nets(ledger) == before[0]
        assert done.record.pseudonym in users(ledger)
        assert [each for each in ledger.controls() if isinstance(each, Erasure)] == kept
        assert len(ledger.persons.names([str(each) for each in users(ledger)])) == 133
    assert ANN.encode() not in files_of(path)


def test_what_pages_left_behind_as_they_were_split_is_gone_too(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    names = [f"{n * 7919 % 600:04}-{'long' * 10}@example.com" for n in range(600)]
    with closing(shelf(path)) as ledger:
        ledger.connection.execute("PRAGMA secure_delete = OFF")  # type: ignore[attr-defined]
        for at in range(0, len(names), 20):
            keep(ledger, *(call(at + n, user=name) for n, name in enumerate(names[at : at + 20])))
        ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[attr-defined]
        content = path.read_bytes()
        left = max(names, key=lambda name: content.count(name.encode()))
        assert content.count(left.encode()) > 2  # more than its row and its index
        assert erase(ledger, user=left, **HAND).is_compact
    assert left.encode() not in files_of(path)


def test_the_same_observation_again_is_a_duplicate_also_after_the_erasure(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    seen = call(1, user=ANN, client_claims={"user": ANN})
    with closing(shelf(path)) as ledger:
        keep(ledger, seen)
        with ledger.settling(1) as settlement:
            assert settle(settlement, [seen]).duplicates == 1
        erase(ledger, user=ANN, **HAND)
        with ledger.settling(1) as settlement:
            report = settle(settlement, [seen])
        assert (report.duplicates, report.conflicts, report.postings) == (1, 0, 0)
        assert ledger.persons.pseudonym_of(ANN) is None
    assert ANN.encode() not in files_of(path)


def test_a_loser_again_brings_nobody_back(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    one, two = call(1, user=ANN), call(1, user=ANN, flat_cost="2")
    with closing(shelf(path)) as ledger:
        keep(ledger, one)
        keep(ledger, two, two)
        erase(ledger, user=ANN, **HAND)
        for seen in (one, two):
            with ledger.settling(1) as settlement:
                report = settle(settlement, [seen, seen])
            assert (report.duplicates, report.conflicts) == (2, 0)
        assert ledger.persons.pseudonym_of(ANN) is None
        assert ledger.counts("conflict") == {"conflict": 1}
    assert ANN.encode() not in files_of(path)


def test_numbers_and_whatever_lies_deeper_are_persons_too(tmp_path: Path) -> None:
    claims = {
        "user_id": 12345,
        "metadata": {"user_id": ANN, "n": 12345, "list": [{"end_user": 7.5}]},
        "user": {"name": "Ann", "mail": ANN},
        "end_user": None,
    }
    with closing(shelf(tmp_path / "l.db")) as ledger:
        seen = call(1, user="12345", client_claims=claims)
        keep(ledger, seen)
        (kept,) = ledger.journal()
        number, ann = ledger.persons.pseudonym_of("12345"), ledger.persons.pseudonym_of(ANN)
        assert kept.user == number
        assert kept.client_claims == {
            "user_id": number,
            "metadata": {
                "user_id": ann,
                "n": 12345,
                "list": [{"end_user": ledger.persons.pseudonym_of("7.5")}],
            },
            "user": "not kept",
            "end_user": None,
        }
        with ledger.settling(1) as settlement:
            report = settle(settlement, [seen, kept])
        assert (report.duplicates, report.conflicts) == (2, 0)


def test_who_comes_back_is_somebody_else(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, user=ANN))
        first = erase(ledger, user=ANN, **HAND).record.pseudonym
        keep(ledger, call(2, user=ANN))
        second = ledger.persons.pseudonym_of(ANN)
        assert second is not None
        assert second != first
        assert users(ledger) == {first, second}


def test_a_loser_of_a_conflict_is_behind_the_pseudonym_too(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with closing(shelf(path)) as ledger:
        keep(ledger, call(1, user=ANN))
        keep(ledger, call(1, user=ANN, flat_cost="2"), call(1, user=BOB, flat_cost="3"))
        assert ledger.counts("conflict") == {"conflict": 2}
        erase(ledger, user=ANN, **HAND)
    assert ANN.encode() not in files_of(path)


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.permutations([0, 1, 2, 3, 4]))
def test_whichever_comes_first_the_same_one_wins_an_oid(order: list[int]) -> None:
    said = [("1", ANN), ("2", ANN), ("2", BOB), ("3", None), ("1", "cy")]
    with closing(shelf()) as ledger:
        for at in order:
            cost, user = said[at]
            keep(ledger, call(1, user=user, flat_cost=cost))
        (event,) = ledger.events()
        assert event.event.facts.flat_cost == WINNER
        assert ledger.counts("conflict") == {"conflict": 2}


def _winner() -> str:
    from hashlib import sha256

    from costspan.core.schema import canonical

    return min(("1", "2", "3"), key=lambda c: sha256(canonical(call(1, flat_cost=c))).hexdigest())


WINNER = _winner()


def test_erased_twice_is_recorded_once_and_by_pseudonym_too(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, user=ANN))
        pseudonym = ledger.persons.pseudonym_of(ANN)
        first = erase(ledger, pseudonym=pseudonym, **HAND)
        again = erase(ledger, pseudonym=pseudonym, **{**HAND, "by": "another"})
        assert (first.was_known, again.was_known) == (True, False)
        assert again.record == first.record
        with pytest.raises(ErasureError, match="nobody"):
            erase(ledger, user=ANN, **HAND)


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ({"user": "nobody@example.com"}, "nobody"),
        ({"pseudonym": "p:" + "0" * 24}, "nobody"),
        ({"pseudonym": "x"}, "24 hex"),
        ({"user": ANN, "reason": f"{ANN} asked us to"}, "without the id"),
        ({"user": ANN, "by": ANN}, "without the id"),
    ],
)
def test_what_cannot_be_erased_is_refused(tmp_path: Path, who: dict[str, str], said: str) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, user=ANN))
        with pytest.raises(ErasureError, match=said):
            erase(ledger, **{**HAND, **who})
        assert ledger.persons.pseudonym_of(ANN) is not None


def test_a_short_id_may_be_a_part_of_a_word_in_the_reason(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, user="an"))
        assert erase(ledger, user="an", **{**HAND, "reason": "demand 3"}).was_known


@pytest.mark.parametrize("user", ["a" * 300, "bob\x07", "jose\u0301@example.com"])
def test_ids_that_are_not_kept_as_they_are_are_found_all_the_same(
    tmp_path: Path, user: str
) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        said = observation({"user": user, "client_claims": {"end_user": user}})
        keep(ledger, call(1, user=said.user, client_claims=said.client_claims))
        erase(ledger, user=user, **HAND)
        assert user.encode() not in files_of(tmp_path / "l.db")
        assert (said.user or "").encode() not in files_of(tmp_path / "l.db")
        with pytest.raises(ErasureError, match="nobody"):
            erase(ledger, user=user, **HAND)


def test_what_other_fields_hold_is_counted(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, user=ANN, labels={"mail": ANN}))
        assert erase(ledger, user=ANN, **HAND).mentions == 2  # the observation and the event


def test_a_reader_at_the_same_time_is_told(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    with closing(shelf(path)) as ledger:
        keep(ledger, call(1, user=ANN))
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM persons").fetchall()
            done = erase(ledger, user=ANN, **HAND, patience_seconds=0)
            assert not done.is_compact
        assert erase(ledger, pseudonym=done.record.pseudonym, **HAND).is_compact
    assert ANN.encode() not in files_of(path)


def test_spool_files_that_hold_an_id_are_found(tmp_path: Path) -> None:
    quarantine = tmp_path / "quarantine"
    quarantine.mkdir()
    (tmp_path / "a.seg").write_bytes(b"x" * (1 << 20) + ANN.encode() + b"y")
    (tmp_path / "b.seg").write_bytes(ANN.encode()[:-1])
    (quarantine / "a.seg@12.torn").write_bytes(ANN.encode())
    found = files_with(tmp_path, ANN)
    assert tmp_path / "a.seg" in found
    assert tmp_path / "b.seg" not in found


def test_a_pseudonym_is_kept_as_it_is(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger, closing(shelf(tmp_path / "m.db")) as other:
        keep(ledger, call(1, user=ANN))
        keep(other, *ledger.journal())
        assert users(other) == users(ledger)
        assert all(is_pseudonym(str(each)) for each in users(other))


def test_persons_of_two_oids_of_one_batch_are_one_person(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        start = msgspec.structs.replace(call(1, user=ANN, flat_cost=None), phase="start")
        end: Observation = msgspec.structs.replace(call(1, user=ANN), oid="w:2", seq=2)
        keep(ledger, start, end)
        assert users(ledger) == {ledger.persons.pseudonym_of(ANN)}
