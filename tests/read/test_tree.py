"""Explanations of trees: deep, wide, looping ones; found without a look at every event."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from journals import Journal, journals, settled
from shelf import call, keep, keep_all, shelf

from costspan.cli.explain import print_explanation
from costspan.cli.printing import Page
from costspan.core.read import tree as trees
from costspan.core.read.books import Books, NotFound
from costspan.core.read.explain import DEPTH_MAX, Explained, Explanation
from costspan.core.schema import Observation
from costspan.core.settle.draft import Draft, node_of
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.lineage import ancestors

DEEP = 2 * sys.getrecursionlimit() + 1


def every(found: Explanation) -> Iterator[tuple[Explained, str | None]]:
    """Each event that is told, and the one it is told below."""
    waiting = [(root, root.under) for root in found.roots]
    while waiting:
        node, above = waiting.pop()
        yield node, above
        waiting += [(child, node.id) for child in node.below]


def chain(length: int) -> Iterator[Observation]:
    """Each called by the one before."""
    for number in range(1, length + 1):
        parent = f"a{number - 1:06}" if number > 1 else None
        yield call(number, parent=parent, parent_origin="ours")


@pytest.fixture(scope="module")
def deep() -> Iterator[Ledger]:
    with closing(shelf()) as ledger:
        keep_all(ledger, chain(DEEP))
        yield ledger


@pytest.mark.parametrize("number", [1, DEEP // 2, DEEP])
def test_deeper_than_a_stack(deep: Ledger, number: int) -> None:
    found = Books(deep).explain(f"a{number:06}")
    assert {node.id: above for node, above in every(found)} == {
        f"a{n:06}": f"a{n - 1:06}" if n > 1 else None for n in range(1, DEEP + 1)
    }
    assert found.cost == f"{DEEP}.000000000000"
    assert len(found.roots) == -(-DEEP // DEPTH_MAX)
    assert not found.is_cut
    plain = found.plain()
    assert plain["roots"][1]["under"] == f"a{DEPTH_MAX:06}"
    assert plain["roots"][0]["decision"]["rules"]


def test_a_deep_tree_on_a_page(tmp_path: Path) -> None:
    with closing(shelf()) as ledger, (tmp_path / "page").open("w+") as stream:
        keep(ledger, *chain(2 * DEPTH_MAX + 1))
        print_explanation(Page(stream), Books(ledger).explain("a000005"))
        stream.seek(0)
        lines = stream.read().splitlines()
    pieces = [line.split()[:2] for line in lines if line.endswith("(a deep tree, told in pieces)")]
    assert pieces == [
        ["below", f"a{DEPTH_MAX:06}"], ["below", f"a{2 * DEPTH_MAX:06}"],
    ]  # fmt: skip
    in_tree = [line.split()[0] for line in lines if line.lstrip().startswith("[")]
    assert in_tree[:-1] == [f"[{n}]" for n in range(1, 2 * DEPTH_MAX + 2)]
    assert sum(line.split()[:1] == ["event"] for line in lines) == 1


def test_a_session_of_more_events_than_a_page_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "EVENTS_MAX", 100)
    monkeypatch.setattr("costspan.core.read.books.EVENTS_MAX", 100)
    with closing(shelf()) as ledger:
        keep(ledger, *(call(n, session="s1", session_origin="ours") for n in range(1, 102)))
        keep(ledger, *(call(n, session="s2", session_origin="ours") for n in range(201, 301)))
        keep(ledger, call(400), *(call(n, parent="a000400") for n in range(401, 601)))
        books = Books(ledger)
        found = books.explain("s1")
        assert found.is_cut
        assert [node.id for node, _ in every(found)] == [f"a{n:06}" for n in range(100, 0, -1)]
        assert not books.explain("s2").is_cut
        wide = books.explain("a000400")
        assert wide.is_cut
        assert len(list(every(wide))) == 100
        below = books.explain("a000555")
        assert "a000555" in {node.id for node, _ in every(below)}


@settings(max_examples=60)
@given(journals(most=12))
def test_the_tree_is_that_of_the_settlement(journal: Journal) -> None:
    """Whatever the journal: every event once, below the ancestor that lineage found nearest."""
    with closing(settled(journal)) as ledger:
        books = Books(ledger)
        for each in ledger.events():
            found = books.explain(each.event.id)
            told = list(every(found))
            assert len({node.id for node, _ in told}) == len(told)
            tree = trees.Tree(ledger, found.matched)
            nodes = {id: node_of(event.event) for id, event in tree.events.items()}
            references = {node.parent for node in nodes.values() if node.parent}
            resolved = Draft(ledger.reading()).resolve(references)
            for node, above in told:
                up = ancestors(node.id, nodes, resolved)
                assert above == (up[0] if up else None)


def test_a_loop_is_cut_at_its_least() -> None:
    with closing(shelf()) as ledger:
        loop = {1: 3, 2: 1, 3: 2, 4: 1, 5: 5}
        keep(ledger, *(call(n, parent=f"a{up:06}", parent_origin="ours") for n, up in loop.items()))
        found = Books(ledger).explain("a000004")
        assert sorted((node.id[-1], above and above[-1]) for node, above in every(found)) == [
            ("1", None), ("2", "1"), ("3", "2"), ("4", "1"),
        ]  # fmt: skip
        assert [node.id for node, _ in every(Books(ledger).explain("a000005"))] == ["a000005"]


CALL = "0199c0de-7b1e-7000-8000-0123456789ab"


@pytest.mark.parametrize(
    "name",
    [
        "a000001", "req-1", "trace-1", "s-1", "span-1", f"litellm:{CALL}", CALL,
        "openai/resp-1", "resp-1", "w:1",
    ],
)  # fmt: skip
def test_no_name_that_we_write_needs_a_look_at_every_event(name: str) -> None:
    """What SQLite is asked: nothing that reads a table of the journal or of events whole."""
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(
                1, request_id="req-1", trace_id="trace-1", session="s-1", session_origin="ours",
                span_id="span-1", operation_ids=(f"litellm:{CALL}",), response_id="openai/resp-1",
                flat_cost=None, usage={"input": 1000}, provider="openai",
            ),
            call(2, parent="a000001", parent_origin="ours"),
        )  # fmt: skip
        asked: list[str] = []
        connection = ledger.connection  # type: ignore[attr-defined]
        connection.set_trace_callback(asked.append)
        found = Books(ledger).explain(name)
        connection.set_trace_callback(None)
        assert "a000001" in found.matched
        assert found.roots[0].price is not None
        scans = {
            row[3]
            for sql in asked
            if sql.lstrip().startswith("SELECT")
            for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")
            if row[3].startswith("SCAN")
        }
        # Tables of a few rows; the others are asked for one row, to know whether there is any.
        few = {"SCAN price_books", "SCAN controls", "SCAN invoices"}
        any_row = {"SCAN waiting", "SCAN assignments", "SCAN restatements", "SCAN archived"}
        assert {scan.partition(" USING ")[0] for scan in scans} <= few | any_row
        for nobody in ("nobody", "0"):
            with pytest.raises(NotFound):
                Books(ledger).explain(nobody)


def test_problems_are_found_by_the_event_and_by_the_record() -> None:
    signed = {"attempt_id": "a000002", "tenant_source": "signed"}
    with closing(shelf()) as ledger:
        keep(ledger, call(1, attempt_id="a000002"), call(2, **signed, tenant="globex"))
        keep(ledger, call(3), call(3, flat_cost="2"))
        (refused,) = Books(ledger).explain("a000002").roots
        assert refused.problems == ("identity_conflict of w:2",)
        (twice,) = Books(ledger).explain("a000003").roots
        assert twice.problems == ("conflict of w:3",)
        assert sorted(kind for kind, _, _ in ledger.problems()) == ["conflict", "identity_conflict"]
