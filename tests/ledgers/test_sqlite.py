"""The SQLite ledger: append-only, one settler, wide sums, and no trust in anything it is given."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan.core import counters
from costspan.core.config import Config
from costspan.core.decide import load_profile
from costspan.core.drain import add_observations, drain
from costspan.core.journal.records import Counts, Policy, Refusals, SessionOwner
from costspan.core.ledger_errors import LedgerBusy, LedgerError, LedgerMissing
from costspan.core.money import PICO
from costspan.core.rebuild import nets, rebuild
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.entries import Amount, Line, Posting
from costspan.core.settle.ledger import Ledger, open_url
from costspan.plugins.ledgers.sqlite.rows import join_oid, split_oid

LINE = Line("acme", "direct", None, "2026-01", "2026-01-31", "gpt-4o")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "books" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(open_url(f"sqlite:///{path}", create=True)) as opened:
        with opened.settling(1) as settlement:
            rules = load_profile("billing")
            settlement.keep_rule_set(rules)
            settle(settlement, [], [Policy(rules.sha256, (), 0, "test")])
        yield opened


def keep(ledger: Ledger, *observations: Observation) -> None:
    with ledger.settling(1) as settlement:
        settle(settlement, observations)


def flat(number: int, usd: str = "1", attempt: str | None = None, **facts: object) -> Observation:
    return Observation(
        oid=f"w:{number}", attempt_id=attempt or f"a{number}", tenant="acme", provider_result="ok",
        flat_cost=usd, **facts,
    )  # fmt: skip


# --- append-only ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE postings SET cost = 0",
        "DELETE FROM postings",
        "INSERT OR REPLACE INTO postings SELECT * FROM postings",
        "REPLACE INTO postings SELECT * FROM postings",
        "UPDATE OR REPLACE postings SET id = 7",
    ],
)
@pytest.mark.parametrize("recursive_triggers", ["ON", "OFF"])
def test_postings_are_only_ever_added_to(
    ledger: Ledger, path: Path, statement: str, recursive_triggers: str
) -> None:
    keep(ledger, flat(1), flat(2))
    before = ledger.postings("a1")
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute(f"PRAGMA recursive_triggers = {recursive_triggers}")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            foreign.execute(statement)
    assert ledger.postings("a1") == before != []


# --- sums ----------------------------------------------------------------------------------------


def test_sums_are_wider_than_any_integer_of_the_store(ledger: Ledger) -> None:
    keep(ledger, *(flat(number, "9000000") for number in range(1, 6)))
    (roll_up,) = ledger.roll_ups()
    assert (roll_up.cost, roll_up.events) == (45_000_000 * PICO, 5)
    assert roll_up.cost > 2**63


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-9, 9)), max_size=8), st.data())
def test_roll_ups_are_the_same_in_any_batching(
    amounts: list[tuple[int, int]], data: st.DataObject
) -> None:
    postings = [Posting("e", LINE, "2026-01", Amount(*amount), 0) for amount in amounts]
    rows = []
    for cut in (0, data.draw(st.integers(0, len(postings)))):
        with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
            for batch in (postings[:cut], postings[cut:]):
                with ledger.settling(0) as settlement:
                    settlement.post(batch)
            found = [(each.cost, each.charge) for each in ledger.roll_ups()]
            total = tuple(map(sum, zip(*amounts, strict=True))) if amounts else (0, 0)
            assert found == ([total] if any(total) else [])
            sql = "SELECT cost_usd, cost_pico, charge_usd, charge_pico FROM lines"
            rows.append(ledger.connection.execute(sql).fetchall())  # type: ignore[attr-defined]
    assert rows[0] == rows[1]


# --- who may write -------------------------------------------------------------------------------


def test_one_settler_at_a_time(ledger: Ledger, path: Path) -> None:
    with closing(open_url(f"sqlite:///{path}", create=True)) as other:
        busy = pytest.raises(LedgerBusy, match="records stay in the spool")
        with ledger.settling(1), busy, other.settling(0):
            pytest.fail("two settlers")
        keep(other, flat(1))
    assert [each.event.id for each in ledger.events()] == ["a1"]


def test_a_settlement_that_fails_changes_nothing(ledger: Ledger) -> None:
    keep(ledger, flat(1))

    def fail() -> None:
        with ledger.settling(1) as settlement:
            settle(settlement, [flat(2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [each.event.id for each in ledger.events()] == ["a1"]
    keep(ledger, flat(2))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (2 * PICO, 2 * PICO)}


def test_a_connection_does_not_cross_a_fork(ledger: Ledger, path: Path) -> None:
    keep(ledger, flat(1))
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            list(ledger.events())
            said = b"no error"
        except LedgerError as error:
            said = str(error).encode()
        ledger.close()  # closes nothing of the parent's
        os.write(write, said)
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"before a fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)
    assert (path.parent / "ledger.db-wal").exists(), "the parent still writes to it"
    keep(ledger, flat(2))
    with closing(open_url(f"sqlite:///{path}", create=False)) as again:
        assert [each.event.id for each in again.events()] == ["a1", "a2"]


# --- opening -------------------------------------------------------------------------------------


def test_reading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match="costspan drain"):
        open_url(f"sqlite:///{tmp_path}/none/ledger.db", create=False)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(LedgerMissing, match="no books of costspan"):
        open_url(f"sqlite:///{empty}", create=False)
    assert list(tmp_path.iterdir()) == [empty]
    assert empty.read_bytes() == b""


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database, but long enough to be looked at" * 50)
    for create in (True, False):
        with pytest.raises(LedgerError, match="cannot be opened"):
            open_url(f"sqlite:///{tmp_path}/notes.db", create=create)
    with pytest.raises(LedgerError, match="cannot be opened"):
        open_url(f"sqlite:///{tmp_path}/notes.db/below/ledger.db", create=True)


def test_another_schema_version_is_refused_and_named(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path)) as foreign, foreign:
        foreign.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    for create in (True, False):
        with pytest.raises(LedgerError, match="schema version 99, this costspan reads 3"):
            open_url(f"sqlite:///{path}", create=create)


@pytest.mark.parametrize("name", ["a b?c#d%e.db", "größe.db", "it's.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    for create in (True, False):
        open_url(f"sqlite:///{tmp_path / name}", create=create).close()
    assert name in os.listdir(tmp_path)


# --- what it is given ----------------------------------------------------------------------------

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
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
def test_every_oid_is_kept_apart(oid: str) -> None:
    writer, seq = split_oid(oid)
    assert join_oid(writer, seq) == oid
    assert -1 <= seq < 2**63


def test_the_operators_latest_word_holds_in_any_order(ledger: Ledger) -> None:
    rows = [SessionOwner("s", tenant, "ann", at) for tenant, at in (("a", 1), ("b", 2), ("a", 3))]
    for row in reversed(rows):
        with ledger.settling(1) as settlement:
            settle(settlement, [], [row])
            owners = settlement.session_owners(["s"])
        assert owners == {"s": "a"}


# --- what is open --------------------------------------------------------------------------------


def test_what_is_awaited_is_found_oldest_first(ledger: Ledger) -> None:
    def begun(number: int, at: int | None, **facts: object) -> Observation:
        return Observation(
            oid=f"w:{number}", attempt_id=f"a{number}", phase="start", started_at=at, **facts
        )

    keep(
        ledger, flat(1, started_at=1), begun(2, 30), begun(3, 20), begun(4, None), begun(5, 40),
        begun(6, 10, cause="batch"), begun(7, 20),
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        assert settlement.awaiting("call", 30, 10) == ["a4", "a3", "a7", "a2"]
        assert settlement.awaiting("call", 30, 2) == ["a4", "a3"]
        assert settlement.awaiting("call", -1, 9) == []
        assert settlement.awaiting("batch", 10, 9) == ["a6"]
        assert settlement.awaiting("batch", 9, 9) == []
    keep(ledger, flat(102, attempt="a2"))
    with ledger.settling(1) as settlement:
        assert settlement.awaiting("call", 100, 10) == ["a4", "a3", "a7", "a5"]


def test_a_drain_does_not_look_at_every_event(ledger: Ledger) -> None:
    """The settled ones are not in the index by which it finds, and counts, the others."""
    statements: list[str] = []
    connection = ledger.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(statements.append)
    with ledger.settling(1) as settlement:
        settlement.awaiting("call", 100, 10)
    ledger.counts()
    connection.set_trace_callback(None)
    asked = [each for each in statements if "status = '" in each or "is_swept" in each]
    assert len(asked) == 5
    for statement in asked:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "INDEX events_s" in plan
        assert "SCAN events USING" not in plan or "is_swept" in statement


# --- one bad record ------------------------------------------------------------------------------


def test_a_record_that_cannot_be_settled_holds_nothing_up(tmp_path: Path) -> None:
    """It went around `clean`: a time that no store can hold. It stays, is counted, is retried."""
    config = Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")
    writer = Recorder(config.spool)
    for number in range(1, 30):
        writer.record(flat(number, started_at=2**63 + 7 if number == 11 else 1))
    writer.rotate()
    before = counters.snapshot().get("unsettled:OverflowError", 0)
    for times in (1, 2):
        done = drain(config)
        assert (done.unreadable, done.segments) == (1, 1)
        assert counters.snapshot()["unsettled:OverflowError"] == before + times
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        assert len(list(ledger.events())) == 28
        assert nets(ledger) == {("acme", "direct", "1970-01"): (28 * PICO, 28 * PICO)}
    assert len(list(config.spool.glob("*.seg"))) == 1


# --- rebuilding ----------------------------------------------------------------------------------


def test_rebuilding_gives_the_same_books(tmp_path: Path) -> None:
    config = Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")
    add_observations(config, [flat(1), flat(2, parent="a1"), flat(3, cause="step")])
    add_observations(config, [flat(1, usd="2"), Observation(oid="w:9", attempt_id="a4")])
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        before = (nets(ledger), list(ledger.events()), ledger.counts(), set(ledger.problems()))
    rebuild(config)
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        counts = ledger.counts()
        assert (nets(ledger), list(ledger.events())) == before[:2]
        assert counts.pop("postings") <= before[2].pop("postings"), "revisions are not replayed"
        assert (counts, set(ledger.problems())) == before[2:]
        keep(ledger, flat(5))
    assert [p.name for p in tmp_path.iterdir() if "rebuilding" in p.name] == []
    with (
        closing(sqlite3.connect(tmp_path / "ledger.db")) as foreign,
        pytest.raises(sqlite3.IntegrityError),
    ):
        foreign.execute("DELETE FROM postings")


def test_a_writer_may_number_more_records_than_an_epoch_has(ledger: Ledger) -> None:
    numbers = [1, 2**32 - 1, 2**32, 2**33 + 5, 10**17]
    keep(ledger, *(flat(number) for number in numbers))
    keep(ledger, *(flat(number) for number in numbers))
    assert [each.oid for each in ledger.journal()] == [f"w:{number}" for number in numbers]
    assert ledger.writers() == [("w", 10**17, len(numbers))]
    assert nets(ledger)["acme", "direct", "0000-00"][0] == len(numbers) * PICO


def test_a_new_line_of_the_books_is_forgotten_when_its_settlement_fails(ledger: Ledger) -> None:
    with contextlib.suppress(ZeroDivisionError), ledger.settling(1) as settlement:
        settle(settlement, [flat(1)])
        raise ZeroDivisionError
    keep(ledger, flat(2))
    assert nets(ledger) == {("acme", "direct", "0000-00"): (PICO, PICO)}
    (event,) = ledger.events()
    assert event.decision is not None
    assert event.decision.rules == ("O4", "C6")


def test_the_lines_of_the_books_keep_their_names(ledger: Ledger, path: Path) -> None:
    keep(ledger, flat(1))
    refused = pytest.raises(sqlite3.IntegrityError, match="keep their names")
    with closing(sqlite3.connect(path)) as foreign, refused:
        foreign.execute("UPDATE lines SET owner = 'globex'")


def test_an_open_ledger_notices_that_another_rebuilt_the_books(ledger: Ledger, path: Path) -> None:
    """Rulings and lines are named by numbers, which are others after a rebuild."""
    keep(ledger, flat(1), flat(2, cause="safety", initiator="platform"))
    keep(ledger, flat(3, executed_model="other"))
    settings = Config(ledger=str(path), spool=path.parent)
    with closing(open_url(f"sqlite:///{path}", create=True)) as other:
        keep(other, flat(1, "5", attempt="a9"))  # a conflict: the journal comes in another order
        before = {each.event.id: each.decision for each in other.events()}
    assert {each.event.id: each.decision for each in ledger.events()} == before
    rebuild(settings)
    assert {each.event.id: each.decision for each in ledger.events()} == before
    keep(ledger, flat(4, executed_model="other"))
    lines = {(each.line.model, each.cost) for each in ledger.roll_ups()}
    assert ("other", 2 * PICO) in lines
    assert list(ledger.roll_ups()) == list(ledger.added_up())


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


def test_an_earlier_first_policy_decides_what_came_before_it(path: Path) -> None:
    """The first policy holds for everything before it, whichever was recorded first."""
    billing, chargeback = load_profile("billing"), load_profile("chargeback")
    policies = [Policy(billing.sha256, (), 200, "test"), Policy(chargeback.sha256, (), 100, "test")]
    books: list[object] = []
    for number, order in enumerate((policies, policies[::-1])):
        with closing(open_url(f"sqlite:///{path}.{number}", create=True)) as ledger:
            for policy in order:
                with ledger.settling(1) as settlement:
                    settlement.keep_rule_set(billing)
                    settlement.keep_rule_set(chargeback)
                    settle(settlement, [], [policy])
                keep(ledger, flat(1, started_at=50), flat(2, started_at=150))
            books.append([(e.event.id, e.decision) for e in ledger.events()])
    assert books[0] == books[1]


def test_a_line_is_looked_up_among_any_number_of_lines(ledger: Ledger) -> None:
    """A million tenants are a million lines: a settlement reads none but its own."""
    statements: list[str] = []
    connection = ledger.connection  # type: ignore[attr-defined]
    connection.set_trace_callback(statements.append)
    keep(ledger, flat(1))
    connection.set_trace_callback(None)
    asked = [each for each in statements if "JOIN lines" in each and "wanted" in each]
    assert asked
    for statement in asked:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "SEARCH lines" in plan
        assert "SCAN lines" not in plan
