"""What the tests of `costspan doctor` share: what it found, and how books come to harm."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from desk import Desk

from costspan.core.journal import records
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url

OK: dict[str, Any] = {
    "tenant": "acme",
    "executed_model": "gpt-4o",
    "usage": {"input": 1000, "output": 100},
    "provider_result": "ok",
    "attempts_hidden": 0,
}


def findings_of(desk: Desk) -> dict[str, dict[str, Any]]:
    findings = desk.run("doctor", "--json").json["findings"]
    # What this process counted of itself belongs to the tests before this one.
    return {each["check"]: each for each in findings if each["check"] not in ("counter", "mount")}


def change_books(desk: Desk, statement: str) -> None:
    """Do to the file what nobody should."""
    with closing(sqlite3.connect(desk.ledger)) as connection, connection:
        connection.execute(statement)


def tell(desk: Desk, *told: records.Control) -> None:
    """Control records of processes that are gone."""
    ledger = open_url(f"sqlite:///{desk.ledger}", create=False)
    with ledger.settling(0) as settlement:
        settle(settlement, [], told)
    ledger.close()
