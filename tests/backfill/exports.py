"""The ways in which rows come: files of each format, and a table with LiteLLM's own columns."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from desk import Desk, Ran

Row = dict[str, Any]


def call(number: int = 1, **more: Any) -> Row:
    """A row as it stands in the table: 1,000 tokens in, 400 of them cached, 20 out."""
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "total_tokens": 1020,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    return {
        "request_id": f"chatcmpl-{number}",
        "litellm_call_id": f"call-{number}",
        "call_type": "acompletion",
        "api_key": "88dc",
        "spend": 0.000132,
        "total_tokens": 1020,
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "startTime": "2026-10-05T12:00:00.000Z",
        "endTime": "2026-10-05T12:00:01.000Z",
        "completionStartTime": "2026-10-05T12:00:01.000Z",
        "model": "gpt-4o-mini",
        "custom_llm_provider": "openai",
        "api_base": "https://api.openai.com",
        "metadata": {"usage_object": usage, "status": None},
        "cache_hit": "None",
        "team_id": "acme",
        "end_user": "",
        "status": "success",
        **more,
    }


def without_details(**more: Any) -> Row:
    return call(**{"metadata": {}, **more})


def ndjson(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def document(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(json.dumps({"data": rows, "meta": {"page": 1}}, indent=2), "utf-8")
    return path


def table(path: Path, rows: Sequence[Mapping[str, Any]], packed: bool = False) -> Path:
    """CSV, as psql's \\copy writes it: nulls are empty."""
    plain = path.with_suffix(".plain")
    with plain.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in row.items()}
            for row in rows
        )
    data = plain.read_bytes()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


def ingest(desk: Desk, rows: Iterable[Mapping[str, Any] | str], *options: object) -> Ran:
    """Ingest rows of LiteLLM's."""
    path = ndjson(desk.folder / "rows.ndjson", rows)
    return desk.run("ingest", "litellm-spendlogs", path, *options)


def owners(desk: Desk) -> dict[str, tuple[str | None, int]]:
    """Cost and events by owner."""
    found = desk.run("report", "--json", "--by", "owner").json["rows"]
    return {row["owner"]: (row["cost"], row["events"]) for row in found}


def causes(ran: Ran) -> dict[str, int]:
    """Rows by cause."""
    return causes_of(ran.json)


def causes_of(report: Row) -> dict[str, int]:
    """Rows by cause, of a report."""
    found: dict[str, int] = {}
    for each in report["differences"]:
        found[each["cause"]] = found.get(each["cause"], 0) + each["rows"]
    return found


def books(desk: Desk) -> Any:
    """What the books say, in every way that matters; not where they are."""
    return [
        desk.run("report", "--json", "--by", by).json["rows"]
        for by in ("owner,bucket", "period", "model")
    ]
