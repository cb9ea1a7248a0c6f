"""Rows and books as data: ids, hashes, snapshots, differences."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zlib
from typing import Any

import pytest
from price_rows import V1, book, row

from costspan.core.prices import ContextTier, PriceBook, PriceError, diff


def test_content_decides_ids_and_hashes_not_order_or_spelling() -> None:
    rows = [
        row("a", rates={"input": "2.50", "output": "1e1"}),
        row("b", tier="default", above=(ContextTier(2, {"input": "1"}), ContextTier(1, {}))),
    ]
    same = [
        row("b", above=(ContextTier(1, {}), ContextTier(2, {"input": "1.0"}))),
        row("a", rates={"output": "10", "input": "2.5"}),
    ]
    assert {one.id for one in rows} == {one.id for one in same}
    assert book(*rows).sha256 == book(*same).sha256
    random.shuffle(same)
    assert book(*same).sha256 == book(*rows).sha256
    assert row("a").id != row("a", book="c").id != row("a", tier="batch", book="c").id
    assert book(row("a")).sha256 != book(row("a"), aliases={"x": "a"}).sha256
    assert len(row().id) == 16


def test_ids_are_the_same_in_every_process() -> None:
    code = (
        "from costspan.core.prices import PriceBook\n"
        "print(PriceBook.from_table('v1', {'m': {'input': '1.50', 'output': '2'}}).sha256)"
    )
    here = PriceBook.from_table("v1", {"m": {"output": "2.0", "input": "1.5"}}).sha256
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_a_snapshot_reads_back_and_prices_the_same() -> None:
    original = book(
        row(provider="openai", effective_from=5, above=(ContextTier(10, {"input": "2"}),)),
        aliases={"x": "m"},
        defaults={"m": "openai"},
        providers={"p": "openai"},
        source="s",
        source_version="1",
    )
    data = original.to_bytes()
    again = PriceBook.from_bytes(data)
    assert again.sha256 == original.sha256
    assert again.to_bytes() == data
    assert again.rows == original.rows
    assert again == original


def test_a_damaged_snapshot_is_refused() -> None:
    content = json.loads(zlib.decompress(V1.to_bytes()))
    content["rows"][0]["rates"]["input"] = "0.01"
    changed = zlib.compress(json.dumps(content).encode())
    other_schema = zlib.compress(json.dumps({**content, "schema": "x"}).encode())
    for data in (b"", b"x", V1.to_bytes()[:-9], zlib.compress(b"[]"), zlib.compress(b"{}")):
        with pytest.raises(PriceError, match="not a price book snapshot"):
            PriceBook.from_bytes(data)
    with pytest.raises(PriceError, match="was changed"):
        PriceBook.from_bytes(changed)
    with pytest.raises(PriceError, match="schema 'x'"):
        PriceBook.from_bytes(other_schema)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rates": {}}, "no rates"),
        ({"rates": {"input": "free"}}, "m: input: not an amount"),
        ({"rates": {"input": 0.1}}, "not float"),
        ({"rates": {"input": "-1"}}, "cannot be negative"),
        ({"rates": {"input": "NaN"}}, "not an amount"),
        ({"currency": "EUR"}, "only USD"),
        ({"model": ""}, "without a model"),
        ({"effective_from": 5, "effective_to": 5}, "must be before"),
        ({"above": (ContextTier(1, {}), ContextTier(1, {}))}, "distinct thresholds"),
        ({"above": (ContextTier(1, {"input": "x"}),)}, "not an amount"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PriceError, match=message):
        row(**fields)


def test_diff_names_what_moved() -> None:
    before = book(row("same"), row("gone"), row("moved", rates={"input": "1", "output": "2"}))
    after = book(
        row("same", book="n"), row("new"), row("moved", rates={"input": "1", "output": "3"}), id="n"
    )
    changes = diff(before, after)
    assert [(change.kind, change.components) for change in changes] == [
        ("removed", ("input",)),
        ("changed", ("output",)),
        ("added", ("input",)),
    ]
    assert changes[1].before is not None
    assert changes[1].before.model == "moved"
    assert diff(before, before) == []
