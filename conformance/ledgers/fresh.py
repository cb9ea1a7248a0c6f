"""Empty ledgers at a place that a user names, and nothing left of them afterwards."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import ENCODED, joined, pieces_of, shown_url, split_url
from costspan.core.settle.ledger import Ledger, open_url

IN_MEMORY = "sqlite:///:memory:"
_FILE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")

Opening = Callable[[], Ledger]


@contextmanager
def empty_ledgers(url: str = IN_MEMORY) -> Generator[Opening]:
    """What opens another empty ledger at every call, at the place of this URL.

    In SQLite a file in a folder of its own beside the one that is named; in PostgreSQL a schema of
    its own. No ledger that is there already is looked at; those that were made are removed at the
    end, and are to be closed before.

    Raises:
        LedgerError: if nobody knows how to make an empty ledger in this scheme.
    """
    if url == IN_MEMORY:
        yield lambda: open_url(IN_MEMORY, create=True)
    elif url.startswith(_POSTGRES):
        with _schemas(url) as opening:
            yield opening
    elif url.startswith(_FILE):
        named = Path(url.removeprefix(_FILE))
        if not named.parent.is_dir():
            raise LedgerError(f"there is no folder {named.parent} to make empty ledgers in")
        with tempfile.TemporaryDirectory(prefix=f"{named.name}.", dir=named.parent) as folder:
            yield lambda: open_url(f"{_FILE}{folder}/{secrets.token_hex(8)}.db", create=True)
    else:
        scheme = url.partition(":")[0]
        raise LedgerError(
            f"how an empty ledger of scheme {scheme!r} is made, only its author knows: see"
            " LedgerFactory, of costspan.conformance"
        )


@contextmanager
def _schemas(url: str) -> Generator[Opening]:
    made: list[str] = []

    def opening() -> Ledger:
        _drop(url, made)
        made.append(f"costspan_empty_{secrets.token_hex(8)}")
        return open_url(in_schema(url, made[-1]), create=True)

    try:
        yield opening
    finally:
        _drop(url, made)


def in_schema(url: str, schema: str) -> str:
    """The same database, another schema; all else as it is written."""
    parts = split_url(url)
    if parts is None:
        raise LedgerError(f"the ledger {shown_url(url)} cannot be opened: {ENCODED}")
    kept = [piece for piece, name, _ in pieces_of(parts.query) if name != "schema"]
    return joined(parts._replace(query="&".join([*kept, f"schema={quote(schema, safe='')}"])))


def _drop(url: str, schemas: list[str]) -> None:
    """Remove schemas that were made here; a server that is gone has bigger trouble than those."""
    if not schemas:
        return
    import psycopg
    from psycopg.sql import SQL, Identifier

    from costspan.plugins.ledgers.postgres.place import Place

    with suppress(psycopg.Error), psycopg.connect(Place(url).conninfo, autocommit=True) as asked:
        while schemas:
            asked.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schemas[-1])))
            schemas.pop()


def drop_schema(url: str) -> None:
    """Remove the ledger of a URL that `in_schema` made."""
    schema = dict(parse_qsl(urlsplit(url).query)).get("schema", "")
    _drop(url, [schema])
