"""Several files are one export: in any order, and however often one of them is named."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from exports import books, call, causes_of, document, ndjson, owners, table
from focus_rows import charge

Row = dict[str, Any]


def parts_of(folder: Path) -> list[Path]:
    """Three files of one export: rows of the same sums in each, and flaws of their own."""
    rows = [
        [charge(), charge("output", "10", BilledCost="0.1"), charge("cache_read", "5")],
        [charge(quantity="2000000.0", BilledCost="0.3"), charge("output", "x", BilledCost="0.2")],
        [
            charge(quantity="3000000.0", BilledCost="0.45"),
            charge("cache_read", "7", BilledCost="x"),
        ],
    ]
    return [
        table(folder / "part-00000.csv", rows[0]),
        table(folder / "part-00001.csv.gz", rows[1], packed=True),
        ndjson(folder / "part-00002.ndjson", rows[2]),
    ]


def focus(desk: Desk, *arguments: object) -> Any:
    ran = desk.run("ingest", "focus", *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_rows_are_added_up_over_all_files_in_any_order(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(desk.folder)
    first = focus(desk, *parts)
    assert (first["rows"], first["new"], len(first["files"])) == (7, 3, 3)
    before = books(desk)
    told = ("differences", "owners", "places", "unattributed", "totals")
    for number, order in enumerate(permutations(parts)):
        again = focus(desk, *order)
        assert (again["new"], again["duplicates"], again["conflicts"]) == (0, 3, 0), order
        assert [again[each] for each in told] == [first[each] for each in told]
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("COSTSPAN_LEDGER", str(desk.folder / f"{number}.db"))
            focus(desk, *order)
            assert books(desk) == before
    # 6,000,000 tokens and 12 cached ones; what came out is unknown.
    assert owners(desk)["acme"][0] == "0.900000900000"
    said = desk.run("ingest", "focus", *parts).out
    assert "from 3 files" in said
    assert "nothing new: 3 in the ledger already" in said


@pytest.mark.parametrize(
    "again",
    [
        lambda path: path,
        lambda path: Path(os.path.relpath(path)),
        lambda path: path.parent / ".." / path.parent.name / path.name,
        lambda path: _made(path, lambda new: new.symlink_to(path)),
        lambda path: _made(path, lambda new: os.link(path, new)),
        lambda path: _made(path, lambda new: shutil.copy(path, new)),
        lambda path: _made(path, lambda new: new.write_bytes(gzip.compress(path.read_bytes()))),
    ],
    ids=["path", "relative", "around", "symlink", "link", "copy", "gzip beside it"],
)
def test_a_file_that_is_named_twice_is_taken_once(
    desk: Desk, again: Callable[[Path], Path]
) -> None:
    first, second, third = parts_of(desk.folder)
    twice = again(first)
    read = focus(desk, first, second, twice, third)
    assert (read["rows"], read["files"]) == (7, [str(first), str(second), str(third)])
    assert read["taken_once"] == [{"file": str(twice), "same_as": str(first)}]
    assert owners(desk)["acme"][0] == "0.900000900000"
    assert "taken once" in desk.run("ingest", "focus", first, twice).out


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    new = path.with_name("again")
    make(new)
    return new


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"PK\x03\x04"), "ZIP"),
        (lambda path: path.mkdir(), "is a directory: name its files"),
        (_fifo, "no regular file"),
        (lambda path: None, "No such file"),
        (lambda path: ndjson(path, [call()]), "costspan ingest litellm-spendlogs"),
        (lambda path: path.write_bytes(gzip.compress(b"a,b\n" * 9)[:12]), "torn"),
        # The last piece of a file that was cut into pieces: it has no headings, and one row.
        (lambda path: path.write_text("Usage,2026-10-05T12:00:00Z,0.15,USD\n"), "no rows of focus"),
        (lambda path: path.write_text("x" * 200_000 + ",y\n1,2\n"), "no line of headings"),
    ],
    ids=["empty", "zip", "folder", "fifo", "missing", "kind", "gzip", "piece", "long"],
)
def test_what_cannot_be_read_is_told_before_anything_is_changed(
    desk: Desk, make: Callable[[Path], object], said: str
) -> None:
    aside = desk.folder / "rejected"
    aside.write_text("of the last run")
    bad = desk.folder / "bad.csv"
    make(bad)
    parts = parts_of(desk.folder)
    ran = desk.run("ingest", "focus", *parts, bad, "--rejected", aside)
    assert ran.code == 2
    assert said in ran.err
    assert str(bad) in ran.err
    assert not desk.ledger.exists()
    assert aside.read_text() == "of the last run"


def test_a_rejected_row_is_named_with_its_file(desk: Desk) -> None:
    good = table(desk.folder / "2026-10.csv", [call(1), call(2)])
    bad = table(desk.folder / "2026-11.csv.gz", [call(3), call(4, request_id=None)], packed=True)
    list_of = document(desk.folder / "2026-12.json", [call(5), call(6, startTime="", endTime="")])
    aside = desk.folder / "rejected"
    ran = desk.run("ingest", "litellm-spendlogs", good, bad, list_of, "--json", "--rejected", aside)
    assert (ran.code, ran.json["new"]) == (1, 4)
    assert [each["where"] for each in ran.json["rejected"]] == [
        f"{bad}, line 3",
        f"{list_of}, row 2",
    ]
    assert len(aside.read_text().splitlines()) == 2
    said = desk.run("ingest", "litellm-spendlogs", good, bad, "--csv")
    assert f"{bad}, line 3: no request_id" in said.err


def test_rejected_rows_never_take_the_place_of_an_export(desk: Desk) -> None:
    good = table(desk.folder / "2026-10.csv", [call(1)])
    copy = _made(good, lambda new: shutil.copy(good, new))
    before = good.read_bytes()
    for each in (good, copy):
        ran = desk.run("ingest", "litellm-spendlogs", good, copy, "--rejected", each)
        assert ran.code == 2
        assert each.read_bytes() == before
    assert not desk.ledger.exists()


def test_rows_that_stand_in_two_files_are_compared_once(desk: Desk) -> None:
    parts = [
        ndjson(desk.folder / "a.ndjson", [call(n) for n in range(6)]),
        table(desk.folder / "b.csv", [call(n) for n in range(4, 10)]),
    ]
    ran = desk.run("ingest", "litellm-spendlogs", *parts, "--json")
    assert (ran.json["rows"], ran.json["new"], ran.json["duplicates"]) == (12, 10, 2)
    assert causes_of(ran.json) == {"same": 10}
    assert (ran.json["totals"]["ours"], 10) == owners(desk)["acme"]


def test_a_long_cell_in_a_later_file_is_one_cell(desk: Desk) -> None:
    parts = [
        table(desk.folder / "a.csv", [call(1, user="x" * 200_000)]),
        table(desk.folder / "b.csv", [call(2, user="y" * 200_000)]),
    ]
    ran = desk.run("ingest", "litellm-spendlogs", *parts, "--json")
    assert (ran.code, ran.json["new"], ran.json["rejected"]) == (0, 2, [])


def test_a_table_is_read_alone(desk: Desk) -> None:
    part = ndjson(desk.folder / "a.ndjson", [call()])
    ran = desk.run("ingest", "litellm-spendlogs", part, "postgresql://u:secret@h/litellm")
    assert ran.code == 2
    assert "read alone" in ran.err
    assert "secret" not in ran.err
    assert not desk.ledger.exists()


@pytest.mark.parametrize(
    "data",
    [
        json.dumps([call(1)]) + "\n" + json.dumps([call(2)]),
        json.dumps({"data": [call(1)], "meta": {}}, indent=1) + json.dumps({"data": [call(2)]}),
        json.dumps([call(1)]) + "and so on",
    ],
)
def test_what_follows_a_list_is_not_lost_in_silence(desk: Desk, data: str) -> None:
    path = desk.folder / "pages.json"
    path.write_text(data)
    ran = desk.run("ingest", "litellm-spendlogs", path, "--json")
    assert (ran.code, ran.json["new"]) == (1, 1)
    (bad,) = ran.json["rejected"]
    assert bad["where"] == "after row 1"
