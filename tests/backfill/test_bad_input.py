"""What is wrong with a file: said where it stands, and no row takes another with it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, Ran
from exports import call, document, ndjson, owners, table

Row = dict[str, Any]
ROWS = [call(number, user=f"a {number}\nb") for number in range(1, 21)]


def read(desk: Desk, data: bytes, name: str = "rows") -> Ran:
    path = desk.folder / name
    path.write_bytes(data)
    return desk.run("ingest", "litellm-spendlogs", path, "--json")


def as_csv(desk: Desk, rows: list[Row] = ROWS) -> bytes:
    return table(desk.folder / "good.csv", rows).read_bytes()


def plain_csv(desk: Desk) -> bytes:
    """A row a line, as a copy of the table is."""
    return as_csv(desk, [call(number) for number in range(1, 21)])


@pytest.mark.parametrize(
    ("torn", "kept"),
    [
        (lambda data: data[:-40], 19),  # the last row is cut
        (lambda data: data.replace(b"success\r\n", b'"success\r\n', 1), 19),  # opened, never closed
        (lambda data: data.replace(b"chatcmpl-7,", b"chatcmpl-7,more,", 1), 19),
        (lambda data: data.replace(b"chatcmpl-7,", b"", 1), 19),
        (lambda data: data + data, 20),  # an export behind another, with its headings
        (lambda data: b"\xef\xbb\xbf" + data, 20),
        (lambda data: data.replace(b"\r\n", b"\n"), 20),
        (lambda data: data.replace(b"acme", b"ac\xe9me"), 20),  # Latin-1
        (lambda data: data.replace(b"acme", b"ac\x00me", 1), 20),
    ],
    ids=["cut", "quote", "more", "fewer", "twice", "BOM", "LF", "latin", "NUL"],
)
def test_one_bad_row_of_csv_is_one_bad_row(
    desk: Desk, torn: Callable[[bytes], bytes], kept: int
) -> None:
    ran = read(desk, torn(plain_csv(desk)))
    assert ran.code == (0 if kept == 20 else 1), ran.err
    assert ran.json["new"] == kept
    assert ran.json["rejected_rows"] == 20 - kept
    assert desk.run("doctor").code == 0


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_what_a_spreadsheet_puts_between(desk: Desk, delimiter: str) -> None:
    names = list(call(1))
    cells = [json.dumps(v) if isinstance(v, dict) else str(v or "") for v in call(1).values()]
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells]
    data = f"{delimiter.join(names)}\n{delimiter.join(quoted)}\n".encode()
    assert read(desk, data).json["new"] == 1


def test_a_cell_too_large_is_one_bad_row(desk: Desk) -> None:
    rows = [call(1), call(2, user="x" * (17 * 1024 * 1024)), call(3)]
    ran = read(desk, as_csv(desk, rows))
    assert (ran.code, ran.json["new"]) == (1, 2)
    (bad,) = ran.json["rejected"]
    assert bad["where"] == "line 3"


def test_a_torn_document_keeps_what_was_before(desk: Desk) -> None:
    whole = json.dumps(ROWS).encode()
    assert read(desk, whole).json["new"] == 20
    torn = read(desk, whole[:-300])
    assert (torn.code, torn.json["duplicates"]) == (1, 19)
    (bad,) = torn.json["rejected"]
    assert bad["where"] == "row 20"
    assert "to the end of the list" in bad["reason"]


def test_documents_of_any_layout(desk: Desk, tmp_path: Path) -> None:
    for data in (
        json.dumps({"data": ROWS, "total": 20}),
        json.dumps({"total": 20, "data": ROWS}, indent=1),
        json.dumps(ROWS, indent=4),
        "\n\n" + json.dumps(ROWS),
    ):
        ran = read(desk, data.encode())
        assert (ran.code, ran.json["rows"]) == (0, 20), data[:20]
    assert owners(desk) == {"acme": ("0.002640000000", 20)}


def test_a_gzip_that_breaks_off_keeps_what_was_before(desk: Desk) -> None:
    made = b"".join(json.dumps(call(n, user=str(n * 7919))).encode() + b"\n" for n in range(1, 500))
    ran = read(desk, gzip.compress(made)[:-3000])
    assert ran.code == 1
    assert 0 < ran.json["new"] < 499
    assert "gzip file is torn" in ran.json["rejected"][-1]["reason"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\n  \n", "empty"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"PAR1rest", "Parquet"),
        ("request_id,startTime\n".encode("utf-16"), "UTF-16"),
        (b"PGDMPrest", "dump"),
        (b"one word\n", "no line of headings"),
        (b"a,b,a\n1,2,3\n", "'a' stands twice"),
        (b"id,traceId,startTime,model\n1,2,2026-10-05T12:00:00Z,m\n", "costspan ingest langfuse"),
        (b"x,y\n1,2\n", "\\copy"),
        (b'{"data": 5', "not JSON"),
    ],
)
def test_what_is_no_export_is_said_before_anything_is_changed(
    desk: Desk, data: bytes, said: str
) -> None:
    path = desk.folder / "rows"
    path.write_bytes(data)
    ran = desk.run("ingest", "litellm-spendlogs", path)
    assert ran.code == 2
    assert said in ran.err
    assert not desk.ledger.exists()


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-01-01T00:00:00Z", "soon",
     "99999999999", "-1", "infinity"],
)  # fmt: skip
def test_moments_of_no_month_are_bad_rows(desk: Desk, moment: str) -> None:
    path = ndjson(desk.folder / "rows", [call(1, startTime=moment, endTime=moment), call(2)])
    ran = desk.run("ingest", "litellm-spendlogs", path, "--json")
    assert (ran.code, ran.json["new"], ran.json["rejected_rows"]) == (1, 1, 1)


def test_milliseconds_are_no_dates(desk: Desk) -> None:
    rows = [call(n, startTime=str(1711113102359 + n), endTime=None) for n in range(3)]
    ran = desk.run("ingest", "litellm-spendlogs", table(desk.folder / "ms.csv", rows), "--json")
    assert (ran.code, ran.json["new"], ran.json["flags"]) == (0, 3, {})
    assert [row["period"] for row in desk.run("report", "--json", "--by", "period").json["rows"]]


@pytest.mark.parametrize("row_id", ["resp_" + "x" * 900, "1007", "a\x01b", "ü" * 300, "x/y:3"])
def test_any_id_names_a_row(desk: Desk, row_id: str) -> None:
    rows = [call(1, request_id=row_id), call(2, request_id=f"{row_id}-2", litellm_call_id="call-1")]
    path = document(desk.folder / "ids.json", rows)
    ran = desk.run("ingest", "litellm-spendlogs", path, "--json")
    assert (ran.code, ran.json["new"]) == (0, 2)
    assert {each["cause"] for each in ran.json["differences"]} == {
        "same", "one_call_of_several_rows"
    }  # fmt: skip
    again = desk.run("ingest", "litellm-spendlogs", path, "--json").json
    assert (again["duplicates"], again["conflicts"]) == (2, 0)
    doctor = desk.run("doctor")
    assert "missing in the numbering" not in doctor.out + doctor.err
