"""The charge book of the operator: a TOML file.

    [book]
    id = "charges"           # the name reports use; "charges" if left out

    [[charge]]
    tenant = "acme"          # left out: every tenant that has no entry of its own
    effective_from = 2026-01-01   # UTC, first moment in force; left out: always
    effective_to = 2027-01-01     # UTC, first moment no longer in force
    factor = "1.20"          # times the charge that the rules came to

    [[charge]]
    tenant = "globex"
    fixed = "0.01"           # USD per request to a model

    [[charge]]
    tenant = "initech"
    model = "gpt-4o"         # left out: any model
    input = "3.00"           # USD per 1M tokens, or per one of a unit, as in a price book
    output = "12.00"

Each entry says one thing: a factor, a fixed amount, or prices by component.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costspan.core.prices.charges import ChargeBook, ChargeEntry
from costspan.core.prices.tables import (
    ContractError,
    amount_of,
    at,
    document_of,
    is_tables,
    moment_of,
    only,
    rates_of,
    refuse_overlaps,
    table_of,
    text_of,
)

_KEYS = ("tenant", "model", "effective_from", "effective_to", "factor", "fixed")


def load_charges(path: Path) -> ChargeBook:
    """The charge book written in the TOML file at `path`.

    Raises:
        ContractError: if the file cannot be read, or anything in it is not understood.
    """
    document = document_of(path)
    only(document, ("book", "charge"), str(path))
    head = table_of(document, "book", str(path))
    only(head, ("id",), f"{path}: [book]")
    id = text_of(head, "id", f"{path}: [book]") or "charges"
    listed = document.get("charge")
    if not is_tables(listed):
        raise ContractError(f"{path}: no entries: write each one under [[charge]]")
    entries = [
        _entry(id, table, f"{path}: [[charge]] {number} ({table.get('tenant', 'every tenant')})")
        for number, table in enumerate(listed, 1)
    ]
    refuse_overlaps(entries, lambda entry: (entry.tenant, entry.model), _named, str(path))
    return ChargeBook(id=id, source=path.name, entries=tuple(entries))


def _entry(book: str, table: Mapping[str, Any], where: str) -> ChargeEntry:
    amounts = {
        name: amount_of(table[name], name, where) for name in ("factor", "fixed") if name in table
    }
    tenant = text_of(table, "tenant", where)
    if tenant is not None and tenant.startswith("@"):
        raise ContractError(f"{where}: {tenant} is not a tenant: nothing is charged to it")
    with at(where):
        return ChargeEntry(
            book=book,
            tenant=tenant,
            model=text_of(table, "model", where),
            effective_from=moment_of(table, "effective_from", where),
            effective_to=moment_of(table, "effective_to", where),
            rates=rates_of(table, _KEYS, where),
            **amounts,
        )


def _named(entry: ChargeEntry) -> str:
    model = f", {entry.model}" if entry.model else ""
    return f"entries for {entry.tenant or 'every tenant'}{model}"
