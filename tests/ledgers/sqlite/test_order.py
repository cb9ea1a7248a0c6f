"""The SQLite ledger's books are the same in whatever order, and from its journal anew."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from known_calls import flat, keep

from costspan.core.config import Config
from costspan.core.decide import load_profile
from costspan.core.drain import add_observations
from costspan.core.journal.records import Policy, SessionOwner
from costspan.core.money import PICO
from costspan.core.rebuild import nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url


def test_the_operators_latest_word_holds_in_any_order(ledger: Ledger) -> None:
    rows = [SessionOwner("s", tenant, "ann", at) for tenant, at in (("a", 1), ("b", 2), ("a", 3))]
    for row in reversed(rows):
        with ledger.settling(1) as settlement:
            settle(settlement, [], [row])
            owners = settlement.session_owners(["s"])
        assert owners == {"s": "a"}


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
